// softmax(q k^T / sqrt(D)) v of maps: of each image and head, every pixel with every other.
//
// Maps are laid out by image here: an image's pixels in 32 channels follow each other, and 16 of them
// are what AMX loads. Only keys and values are laid out anew, once for all queries.

#include <algorithm>
#include <cmath>
#include <vector>

#include "tiles.h"

// num_pixels is a multiple of 16, num_channels of 32 times num_heads.
struct Attention {
  const bfloat16* queries_keys_values;  // maps of 3 * num_channels, by image
  bfloat16* output;                     // maps of num_channels, by image
  std::int32_t num_blocks, num_pixels, num_heads, num_channels;
};

namespace {

constexpr std::int64_t kPixelBytes = kChannels * sizeof(bfloat16);

// One thread's way through images and heads.
class Attender {
 public:
  explicit Attender(const Attention& a)
      : a_(a),
        depth_(a.num_channels / a.num_heads / kChannels),
        key_columns_((a.num_pixels + kChannels - 1) / kChannels * kChannels),
        keys_(std::size_t(a.num_pixels / kRows) * depth_),
        values_(std::size_t(key_columns_ / kChannels) * depth_ * 2),
        scores_(2 * kRows * key_columns_),
        probabilities_(2 * kRows * key_columns_, 0) {}

  void run(int block, int image, int head) {
    for (int d = 0; d < depth_; ++d) {
      const bfloat16* keys = channels(block, image, 1, head * depth_ + d);
      for (int j = 0; j < a_.num_pixels / kRows; ++j) {
        __m512i rows[kRows];
        for (int row = 0; row < kRows; ++row) {
          rows[row] = _mm512_loadu_si512(keys + (j * kRows + row) * kChannels);
        }
        transpose_words(rows, keys_[j * depth_ + d]);
      }
      const bfloat16* values = channels(block, image, 2, head * depth_ + d);
      for (int j = 0; j < key_columns_ / kChannels; ++j) {
        interleave_values(values, j, &values_[(j * depth_ + d) * 2]);
      }
    }
    for (int query = 0; query < a_.num_pixels; query += 2 * kRows) {
      // At the end of 16 pixels more than a multiple of 32, some are computed twice.
      const int pixels[2] = {query, std::min(query + kRows, a_.num_pixels - kRows)};
      compute_scores(channels(block, image, 0, head * depth_), pixels);
      for (int row = 0; row < 2 * kRows; ++row) take_softmax(row);
      for (int d = 0; d < depth_; ++d) {
        const std::int64_t plane =
            std::int64_t(block) * (a_.num_channels / kChannels) + head * depth_ + d;
        bfloat16* output = a_.output + (plane * kImages + image) * a_.num_pixels * kChannels;
        compute_output(d, pixels, output);
      }
    }
  }

 private:
  // Where an image's rows of a block of channels of queries (0), keys (1) or values (2) begin.
  const bfloat16* channels(int block, int image, int part, int channel_block) const {
    const int blocks = a_.num_channels / kChannels;
    const std::int64_t plane = std::int64_t(block) * 3 * blocks + part * blocks + channel_block;
    return a_.queries_keys_values + (plane * kImages + image) * a_.num_pixels * kChannels;
  }

  // Lays the values of 32 pixels out in two registers of 16 channels, two pixels a row.
  void interleave_values(const bfloat16* values, int j, Register to[2]) const {
    for (int row = 0; row < kRows; ++row) {
      const int pixel = j * kChannels + 2 * row;
      __m512i even = _mm512_setzero_si512(), odd = even;
      if (pixel < a_.num_pixels) {
        even = _mm512_loadu_si512(values + pixel * kChannels);
        odd = _mm512_loadu_si512(values + (pixel + 1) * kChannels);
      }
      interleave_rows(even, odd, to[0].words[row], to[1].words[row]);
    }
  }

  // Computes the products of the queries of twice 16 pixels with all keys.
  void compute_scores(const bfloat16* queries, const int pixels[2]) {
    const std::int64_t plane = std::int64_t(a_.num_pixels) * kTile;
    const int row_bytes = key_columns_ * sizeof(float);
    for (int key = 0; key < a_.num_pixels; key += 2 * kRows) {
      const int keys[2] = {key, std::min(key + kRows, a_.num_pixels - kRows)};
      Accumulators::clear();
      for (int d = 0; d < depth_; ++d) {
        _tile_loadd(4, queries + d * plane + pixels[0] * kChannels, kPixelBytes);
        _tile_loadd(5, queries + d * plane + pixels[1] * kChannels, kPixelBytes);
        _tile_loadd(6, keys_[keys[0] / kRows * depth_ + d].words, 64);
        _tile_loadd(7, keys_[keys[1] / kRows * depth_ + d].words, 64);
        Accumulators::multiply();
      }
      _tile_stored(0, &scores_[keys[0]], row_bytes);
      _tile_stored(1, &scores_[keys[1]], row_bytes);
      _tile_stored(2, &scores_[kRows * key_columns_ + keys[0]], row_bytes);
      _tile_stored(3, &scores_[kRows * key_columns_ + keys[1]], row_bytes);
    }
  }

  // Writes exp(score - max) of a row, rounded, and keeps the reciprocal of the sum before that.
  void take_softmax(int row) {
    const float* scores = &scores_[row * key_columns_];
    bfloat16* probabilities = &probabilities_[row * key_columns_];
    __m512 largest = _mm512_loadu_ps(scores);
    for (int j = kWords; j < a_.num_pixels; j += kWords) {
      largest = _mm512_max_ps(largest, _mm512_loadu_ps(scores + j));
    }
    const float scale = 1.44269504f / std::sqrt(float(depth_ * kChannels));
    const __m512 factor = _mm512_set1_ps(scale);
    const __m512 offset = _mm512_set1_ps(-_mm512_reduce_max_ps(largest) * scale);
    __m512 sum = _mm512_setzero_ps();
    for (int j = 0; j < a_.num_pixels; j += kWords) {
      const __m512 x =
          power_of_two(_mm512_fmadd_ps(_mm512_loadu_ps(scores + j), factor, offset));
      sum = _mm512_add_ps(sum, x);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(probabilities + j),
                          (__m256i)_mm512_cvtneps_pbh(x));
    }
    reciprocals_[row] = 1.0f / _mm512_reduce_add_ps(sum);
  }

  // Weighs 32 channels of the values.
  void compute_output(int d, const int pixels[2], bfloat16* output) {
    const int row_bytes = key_columns_ * sizeof(bfloat16);
    Accumulators::clear();
    for (int j = 0; j < key_columns_ / kChannels; ++j) {
      _tile_loadd(4, &probabilities_[j * kChannels], row_bytes);
      _tile_loadd(5, &probabilities_[kRows * key_columns_ + j * kChannels], row_bytes);
      _tile_loadd(6, values_[(j * depth_ + d) * 2].words, 64);
      _tile_loadd(7, values_[(j * depth_ + d) * 2 + 1].words, 64);
      Accumulators::multiply();
    }
    alignas(64) float sums[2][kRows][kChannels];
    _tile_stored(0, sums[0][0], sizeof(sums[0][0]));
    _tile_stored(1, sums[0][0] + kWords, sizeof(sums[0][0]));
    _tile_stored(2, sums[1][0], sizeof(sums[0][0]));
    _tile_stored(3, sums[1][0] + kWords, sizeof(sums[0][0]));
    for (int half = 0; half < 2; ++half) {
      for (int row = 0; row < kRows; ++row) {
        const __m512 reciprocal = _mm512_set1_ps(reciprocals_[half * kRows + row]);
        const Channels weighed = load(sums[half][row]) * Channels{reciprocal, reciprocal};
        store(output + (pixels[half] + row) * kChannels, weighed);
      }
    }
  }

  const Attention& a_;
  const int depth_;        // blocks of 32 channels of a head
  const int key_columns_;  // pixels, rounded up to 32
  std::vector<Register> keys_, values_;
  std::vector<float> scores_;
  std::vector<bfloat16> probabilities_;
  float reciprocals_[2 * kRows];
};

}  // namespace

extern "C" void attend(const Attention* attention) {
#pragma omp parallel
  {
    TileRegisters registers;
    Attender attender(*attention);
#pragma omp for collapse(3) schedule(dynamic)
    for (int block = 0; block < attention->num_blocks; ++block) {
      for (int image = 0; image < kImages; ++image) {
        for (int head = 0; head < attention->num_heads; ++head) {
          attender.run(block, image, head);
        }
      }
    }
  }
}
