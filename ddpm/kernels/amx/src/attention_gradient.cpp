// The gradient of attention (Dao et al. 2022, algorithm 4), for all keys and then all queries.
//
// With P the softmax and dO the output's gradient: dV = P^T dO; dK = dS^T Q; dQ = dS K, where
// dS = P (dO V^T - sum of dO O) / sqrt(D). P is computed anew, 32 keys at a time, with keys as its
// rows: so it and dS can be multiplied as they are.

#include "attention.h"
#include "sizes.h"

struct AttentionGradient {
  Attention attention;          // as it was computed, logarithms and all
  const bfloat16* grad_output;  // maps of num_channels, as tiles
  bfloat16* gradient;           // maps of 3 * num_channels, as tiles
};

EXPORT_SIZE(AttentionGradient)

namespace {

// One thread's way through images and heads.
class AttentionGradientTask {
 public:
  explicit AttentionGradientTask(const AttentionGradient& g)
      : g_(g),
        a_(g.attention),
        depth_(a_.head_blocks()),
        columns_(a_.columns()),
        transposed_queries_(std::size_t(a_.num_pixels / kRows) * depth_),
        transposed_grads_(transposed_queries_.size()),
        queries_(std::size_t(columns_ / kChannels) * depth_ * 2),
        keys_(queries_.size()),
        grads_(queries_.size()),
        slopes_by_query_(std::size_t(columns_ / kRows) * (columns_ / kChannels)),
        scores_(2 * kRows * columns_),
        products_(2 * kRows * columns_),
        probabilities_(2 * kRows * columns_, 0),
        slopes_(2 * kRows * columns_, 0),
        output_products_(a_.num_pixels) {}

  void run(const Head& head) {
    lay_out(head);
    const std::int64_t image = std::int64_t(head.block) * kImages + head.image;
    logarithms_ = a_.logarithms + (image * a_.num_heads + head.head) * a_.num_pixels;
    std::vector<PixelRows<const bfloat16*>> keys(depth_), values(depth_);
    for (int d = 0; d < depth_; ++d) {
      keys[d] = input_rows(a_, head, 1, d);
      values[d] = input_rows(a_, head, 2, d);
    }
    for (int key = 0; key < a_.num_pixels; key += kChannels) {
      const int pixels[2] = {key, std::min(key + kRows, a_.num_pixels - kRows)};
      multiply_with_all(keys.data(), pixels, transposed_queries_, depth_, a_.num_pixels, columns_,
                        scores_.data());
      multiply_with_all(values.data(), pixels, transposed_grads_, depth_, a_.num_pixels, columns_,
                        products_.data());
      for (int row = 0; row < kChannels; ++row) take_slopes(key, row);
      keep_slopes(key / kChannels);
      for (int d = 0; d < depth_; ++d) {
        multiply_rows(probabilities_, grads_, d, pixels, gradient_rows(head, 2, d));
        multiply_rows(slopes_, queries_, d, pixels, gradient_rows(head, 1, d));
      }
    }
    for (int query = 0; query < a_.num_pixels; query += kChannels) {
      const int pixels[2] = {query, std::min(query + kRows, a_.num_pixels - kRows)};
      for (int d = 0; d < depth_; ++d) {
        multiply_slopes(d, pixels, gradient_rows(head, 0, d));
      }
    }
  }

 private:
  PixelRows<bfloat16*> gradient_rows(const Head& head, int part, int d) const {
    return tile_rows(a_, g_.gradient, 3, head, part, d);
  }

  // Lays out what is multiplied with, and sums the products of outputs and their gradients.
  void lay_out(const Head& head) {
    std::fill(output_products_.begin(), output_products_.end(), 0.0f);
    for (int d = 0; d < depth_; ++d) {
      const auto queries = input_rows(a_, head, 0, d), keys = input_rows(a_, head, 1, d);
      const auto grads = tile_rows(a_, g_.grad_output, 1, head, 0, d);
      const auto outputs = tile_rows<const bfloat16*>(a_, a_.output, 1, head, 0, d);
      for (int j = 0; j < a_.num_pixels / kRows; ++j) {
        transpose_pixels(queries, j * kRows, transposed_queries_[j * depth_ + d]);
        transpose_pixels(grads, j * kRows, transposed_grads_[j * depth_ + d]);
      }
      for (int j = 0; j < columns_ / kChannels; ++j) {
        const int place = (j * depth_ + d) * 2;
        interleave_pixels(queries, j * kChannels, a_.num_pixels, &queries_[place]);
        interleave_pixels(keys, j * kChannels, a_.num_pixels, &keys_[place]);
        interleave_pixels(grads, j * kChannels, a_.num_pixels, &grads_[place]);
      }
      for (int pixel = 0; pixel < a_.num_pixels; ++pixel) {
        const Channels product = load(grads[pixel]) * load(outputs[pixel]);
        output_products_[pixel] += _mm512_reduce_add_ps(_mm512_add_ps(product.low, product.high));
      }
    }
  }

  // Computes P and dS of a key and all queries; zeros where there is no key.
  void take_slopes(int first_key, int row) {
    bfloat16* probabilities = &probabilities_[row * columns_];
    bfloat16* slopes = &slopes_[row * columns_];
    if (first_key + row >= a_.num_pixels) {
      std::fill(probabilities, probabilities + columns_, bfloat16(0));
      std::fill(slopes, slopes + columns_, bfloat16(0));
      return;
    }
    const float* scores = &scores_[row * columns_];
    const float* products = &products_[row * columns_];
    const __m512 scale = _mm512_set1_ps(a_.scale());
    const __m512 slope_scale = _mm512_set1_ps(a_.scale() / 1.44269504f);
    for (int j = 0; j < a_.num_pixels; j += kWords) {
      const __m512 p = power_of_two(_mm512_fmsub_ps(_mm512_loadu_ps(scores + j), scale,
                                                    _mm512_loadu_ps(logarithms_ + j)));
      const __m512 difference =
          _mm512_sub_ps(_mm512_loadu_ps(products + j), _mm512_loadu_ps(&output_products_[j]));
      const __m512 slope = _mm512_mul_ps(_mm512_mul_ps(p, slope_scale), difference);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(probabilities + j),
                          (__m256i)_mm512_cvtneps_pbh(p));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(slopes + j),
                          (__m256i)_mm512_cvtneps_pbh(slope));
    }
  }

  // Keeps dS of 32 keys with queries as its rows: [query / 16][key / 32].
  void keep_slopes(int key_block) {
    const int stride = columns_ / kChannels;
    for (int half = 0; half < 2; ++half) {
      for (int query = 0; query < columns_; query += kChannels) {
        Register* to = &slopes_by_query_[query / kRows * stride + key_block];
        transpose_tile(&slopes_[half * kRows * columns_ + query], columns_,
                       reinterpret_cast<bfloat16*>(to) + half * kRows,
                       reinterpret_cast<bfloat16*>(to + stride) + half * kRows);
      }
    }
  }

  // Multiplies rows of 32 keys with what all queries have in 32 channels.
  void multiply_rows(const std::vector<bfloat16>& rows, const std::vector<Register>& others, int d,
                     const int pixels[2], PixelRows<bfloat16*> to) const {
    const int row_bytes = columns_ * sizeof(bfloat16);
    fetch_rows(to, pixels);
    Accumulators::clear();
    for (int j = 0; j < columns_ / kChannels; ++j) {
      _tile_loadd(4, &rows[j * kChannels], row_bytes);
      _tile_loadd(5, &rows[kRows * columns_ + j * kChannels], row_bytes);
      _tile_loadd(6, others[(j * depth_ + d) * 2].words, 64);
      _tile_loadd(7, others[(j * depth_ + d) * 2 + 1].words, 64);
      Accumulators::multiply();
    }
    write(pixels, to);
  }

  // Multiplies dS of twice 16 queries with what all keys have in 32 channels.
  void multiply_slopes(int d, const int pixels[2], PixelRows<bfloat16*> to) const {
    const int stride = columns_ / kChannels;
    fetch_rows(to, pixels);
    Accumulators::clear();
    for (int j = 0; j < stride; ++j) {
      _tile_loadd(4, slopes_by_query_[pixels[0] / kRows * stride + j].words, 64);
      _tile_loadd(5, slopes_by_query_[pixels[1] / kRows * stride + j].words, 64);
      _tile_loadd(6, keys_[(j * depth_ + d) * 2].words, 64);
      _tile_loadd(7, keys_[(j * depth_ + d) * 2 + 1].words, 64);
      Accumulators::multiply();
    }
    write(pixels, to);
  }

  // Writes what is in the registers of sums. Where 16 pixels are there twice, the first are theirs.
  void write(const int pixels[2], PixelRows<bfloat16*> to) const {
    ProductRows sums;
    sums.store();
    for (int half = 0; half < (pixels[1] > pixels[0] ? 2 : 1); ++half) {
      for (int row = 0; row < kRows; ++row) {
        store(to[pixels[half] + row], load(sums.values[half][row]));
      }
    }
  }

  const AttentionGradient& g_;
  const Attention& a_;
  const int depth_;    // blocks of 32 channels of a head
  const int columns_;  // pixels, rounded up to 32
  std::vector<Register> transposed_queries_, transposed_grads_;  // [pixel / 16][depth]
  std::vector<Register> queries_, keys_, grads_;                 // [pixel / 32][depth][2]
  std::vector<Register> slopes_by_query_;
  std::vector<float> scores_, products_;             // q k and dO v: 32 keys by all queries
  std::vector<bfloat16> probabilities_, slopes_;     // P and dS, likewise
  std::vector<float> output_products_;               // of each query
  const float* logarithms_ = nullptr;
};

}  // namespace

extern "C" void attention_gradient(const AttentionGradient* gradient) {
  for_each_head<AttentionGradientTask>(gradient->attention, *gradient);
}
