// softmax(q k^T / sqrt(D)) v of maps: of each image and head, every pixel with every other.
//
// Only keys and values are laid out anew, once for all queries.

#include "attention.h"

#include <cmath>

float Attention::scale() const {
  return 1.44269504f / std::sqrt(float(head_blocks() * kChannels));
}

namespace {

// One thread's way through images and heads.
class Attender {
 public:
  explicit Attender(const Attention& a)
      : a_(a),
        depth_(a.head_blocks()),
        columns_(a.columns()),
        keys_(std::size_t(a.num_pixels / kRows) * depth_),
        values_(std::size_t(columns_ / kChannels) * depth_ * 2),
        queries_(depth_),
        scores_(2 * kRows * columns_),
        probabilities_(2 * kRows * columns_, 0) {}

  void run(const Head& head) {
    for (int d = 0; d < depth_; ++d) {
      queries_[d] = input_rows(a_, head, 0, d);
      const auto keys = input_rows(a_, head, 1, d);
      for (int j = 0; j < a_.num_pixels / kRows; ++j) {
        transpose_pixels(keys, j * kRows, keys_[j * depth_ + d]);
      }
      const auto values = input_rows(a_, head, 2, d);
      for (int j = 0; j < columns_ / kChannels; ++j) {
        interleave_pixels(values, j * kChannels, a_.num_pixels, &values_[(j * depth_ + d) * 2]);
      }
    }
    for (int query = 0; query < a_.num_pixels; query += 2 * kRows) {
      // At the end of 16 pixels more than a multiple of 32, some are computed twice.
      const int pixels[2] = {query, std::min(query + kRows, a_.num_pixels - kRows)};
      multiply_with_all(queries_.data(), pixels, keys_, depth_, a_.num_pixels, columns_,
                        scores_.data());
      for (int row = 0; row < 2 * kRows; ++row) {
        take_softmax(head, pixels[row / kRows] + row % kRows, row);
      }
      for (int d = 0; d < depth_; ++d) {
        compute_output(d, pixels, tile_rows(a_, a_.output, 1, head, 0, d));
      }
    }
  }

 private:
  // Writes exp(score - max) of a row, rounded, and keeps the reciprocal of the sum before that.
  void take_softmax(const Head& head, int pixel, int row) {
    const float* scores = &scores_[row * columns_];
    bfloat16* probabilities = &probabilities_[row * columns_];
    __m512 largest = _mm512_loadu_ps(scores);
    for (int j = kWords; j < a_.num_pixels; j += kWords) {
      largest = _mm512_max_ps(largest, _mm512_loadu_ps(scores + j));
    }
    const float scale = a_.scale(), offset = -_mm512_reduce_max_ps(largest) * scale;
    const __m512 scales = _mm512_set1_ps(scale), offsets = _mm512_set1_ps(offset);
    __m512 sums = _mm512_setzero_ps();
    for (int j = 0; j < a_.num_pixels; j += kWords) {
      const __m512 x =
          power_of_two(_mm512_fmadd_ps(_mm512_loadu_ps(scores + j), scales, offsets));
      sums = _mm512_add_ps(sums, x);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(probabilities + j),
                          (__m256i)_mm512_cvtneps_pbh(x));
    }
    const float sum = _mm512_reduce_add_ps(sums);
    reciprocals_[row] = 1.0f / sum;
    if (!a_.logarithms) return;
    const std::int64_t image = std::int64_t(head.block) * kImages + head.image;
    a_.logarithms[(image * a_.num_heads + head.head) * a_.num_pixels + pixel] =
        std::log2(sum) - offset;
  }

  // Weighs 32 channels of the values.
  void compute_output(int d, const int pixels[2], PixelRows<bfloat16*> output) {
    const int row_bytes = columns_ * sizeof(bfloat16);
    fetch_rows(output, pixels);
    Accumulators::clear();
    for (int j = 0; j < columns_ / kChannels; ++j) {
      _tile_loadd(4, &probabilities_[j * kChannels], row_bytes);
      _tile_loadd(5, &probabilities_[kRows * columns_ + j * kChannels], row_bytes);
      _tile_loadd(6, values_[(j * depth_ + d) * 2].words, 64);
      _tile_loadd(7, values_[(j * depth_ + d) * 2 + 1].words, 64);
      Accumulators::multiply();
    }
    ProductRows sums;
    sums.store();
    for (int half = 0; half < 2; ++half) {
      for (int row = 0; row < kRows; ++row) {
        const __m512 reciprocal = _mm512_set1_ps(reciprocals_[half * kRows + row]);
        const Channels weighed = load(sums.values[half][row]) * Channels{reciprocal, reciprocal};
        store(output[pixels[half] + row], weighed);
      }
    }
  }

  const Attention& a_;
  const int depth_;    // blocks of 32 channels of a head
  const int columns_;  // pixels, rounded up to 32
  std::vector<Register> keys_, values_;
  std::vector<PixelRows<const bfloat16*>> queries_;
  std::vector<float> scores_;
  std::vector<bfloat16> probabilities_;
  float reciprocals_[2 * kRows];
};

}  // namespace

extern "C" void attend(const Attention* attention) {
  for_each_head<Attender>(*attention, *attention);
}
