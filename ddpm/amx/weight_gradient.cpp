// The gradient of the weights of a convolution.

#include <algorithm>
#include <vector>

#include "tiles.h"
#include "weights.h"

// One tap of a gradient of weights: gradient row r meets input row r * stride + row, and in it
// gradient column q meets input column q + column of one of the planes.
struct GradientTap {
  std::int32_t plane, row, column;
};

// Each output pixel's gradient meets what its taps lay on, in products that sum over pixels and
// images: two pixels of 16 images make the 32 rows that AMX sums over.
struct WeightGradient {
  Maps input;
  const Activation* activation;  // applied to the input before, or null
  const bfloat16* gradient;      // maps like the convolution's output
  std::int32_t num_blocks, in_height, in_width, height, width, gradient_blocks;
  // Input column w lies in plane w % num_planes at w / num_planes; with `doubled`, rows and columns
  // are counted in maps in which each pixel is repeated in both directions.
  std::int32_t num_planes, doubled, stride;
  std::int32_t kernel_height, kernel_width;
  const GradientTap* taps;     // [kernel_height][kernel_width]
  bfloat16* gradient_scratch;  // num_blocks * height * channels * 16 * even columns
  bfloat16* input_scratch;     // num_planes * num_blocks * rows * channels * 16 * (columns + 2)
  WeightLayout layout;
  float* weights;  // the gradient is added to what lies there
};

namespace {

constexpr int kHalfTile = kTile / 2;
constexpr int kStripColumns = 128;  // that are summed up in registers

// Writes a tile, 16 images by 32 channels, as 32 rows of 16 images: row c lies at c * 32 from `to`,
// and from row 16 on at `to_high`.
void transpose(const bfloat16* tile, bfloat16* to, bfloat16* to_high) {
  __m512i low[8], high[8];  // channels 8L..8L+3 and 8L+4..8L+7 of lane L, two images a word
  for (int i = 0; i < 8; ++i) {
    const __m512i even = _mm512_loadu_si512(tile + 2 * i * kChannels);
    const __m512i odd = _mm512_loadu_si512(tile + (2 * i + 1) * kChannels);
    low[i] = _mm512_unpacklo_epi16(even, odd);
    high[i] = _mm512_unpackhi_epi16(even, odd);
  }
  for (int half = 0; half < 2; ++half) {
    const __m512i* words = half ? high : low;
    for (int images = 0; images < 2; ++images, words += 4) {
      const __m512i a = _mm512_unpacklo_epi32(words[0], words[1]);
      const __m512i b = _mm512_unpackhi_epi32(words[0], words[1]);
      const __m512i c = _mm512_unpacklo_epi32(words[2], words[3]);
      const __m512i d = _mm512_unpackhi_epi32(words[2], words[3]);
      const __m512i rows[4] = {_mm512_unpacklo_epi64(a, c), _mm512_unpackhi_epi64(a, c),
                               _mm512_unpacklo_epi64(b, d), _mm512_unpackhi_epi64(b, d)};
      for (int q = 0; q < 4; ++q) {
        const int row = 4 * half + q, offset = 8 * images;
        auto* first = reinterpret_cast<__m128i*>(to + row * 32 + offset);
        auto* second = reinterpret_cast<__m128i*>(to + (row + 8) * 32 + offset);
        auto* third = reinterpret_cast<__m128i*>(to_high + row * 32 + offset);
        auto* fourth = reinterpret_cast<__m128i*>(to_high + (row + 8) * 32 + offset);
        _mm_storeu_si128(first, _mm512_extracti32x4_epi32(rows[q], 0));
        _mm_storeu_si128(second, _mm512_extracti32x4_epi32(rows[q], 1));
        _mm_storeu_si128(third, _mm512_extracti32x4_epi32(rows[q], 2));
        _mm_storeu_si128(fourth, _mm512_extracti32x4_epi32(rows[q], 3));
      }
    }
  }
}

// Writes a tile as two of 8 rows, a row for each two images: 16 channels, two images each.
void interleave(const bfloat16* tile, bfloat16* to, bfloat16* to_high) {
  for (int i = 0; i < 8; ++i) {
    const __m512i even = _mm512_loadu_si512(tile + 2 * i * kChannels);
    const __m512i odd = _mm512_loadu_si512(tile + (2 * i + 1) * kChannels);
    interleave_rows(even, odd, to + i * 32, to_high + i * 32);
  }
}

class WeightGradientTask {
 public:
  explicit WeightGradientTask(const WeightGradient& g) : g_(g) {
    in_blocks_ = g.input.num_channel_blocks();
    rows_ = g.doubled ? 2 * g.in_height : g.in_height;
    columns_ = g.width + g.width % 2;
    slots_ = columns_ + 2;
  }

  void run() const {
#pragma omp parallel
    {
#pragma omp for collapse(2) schedule(dynamic)
      for (int block = 0; block < g_.num_blocks; ++block) {
        for (int row = 0; row < rows_; ++row) interleave_row(block, row);
      }
#pragma omp for collapse(2) schedule(dynamic)
      for (int block = 0; block < g_.num_blocks; ++block) {
        for (int row = 0; row < g_.height; ++row) transpose_row(block, row);
      }
      TileRegisters registers;
      std::vector<Accumulators> products(g_.kernel_width);
#pragma omp for collapse(3) schedule(dynamic)
      for (int out = 0; out < g_.gradient_blocks; ++out) {
        for (int in = 0; in < in_blocks_; ++in) {
          for (int kernel_row = 0; kernel_row < g_.kernel_height; ++kernel_row) {
            multiply(out, in, kernel_row, products);
            for (int x = 0; x < g_.kernel_width; ++x) {
              add(products[x], out, in, kernel_row * g_.kernel_width + x);
            }
          }
        }
      }
    }
  }

 private:
  // A row of 16 output channels of a block: tiles of two columns each.
  bfloat16* gradient_row(int block, int row, int half_block) const {
    const std::int64_t line = std::int64_t(block) * g_.height + row;
    return g_.gradient_scratch + (line * 2 * g_.gradient_blocks + half_block) * columns_ * kHalfTile;
  }

  // A row of 16 input channels of a block: half tiles, the first for column -1.
  bfloat16* input_row(int plane, int block, int row, int half_block) const {
    const std::int64_t line = (std::int64_t(plane) * g_.num_blocks + block) * rows_ + row;
    return g_.input_scratch + (line * 2 * in_blocks_ + half_block) * slots_ * kHalfTile;
  }

  void transpose_row(int block, int row) const {
    for (int k = 0; k < g_.gradient_blocks; ++k) {
      const std::int64_t plane = std::int64_t(block) * g_.gradient_blocks + k;
      const bfloat16* tiles = g_.gradient + (plane * g_.height + row) * g_.width * kTile;
      bfloat16* low = gradient_row(block, row, 2 * k);
      bfloat16* high = gradient_row(block, row, 2 * k + 1);
      for (int q = 0; q < columns_; ++q) {
        const int offset = q / 2 * kTile + q % 2 * kImages;
        if (q < g_.width) {
          transpose(tiles + q * kTile, low + offset, high + offset);
        } else {
          clear_column(low + offset);
          clear_column(high + offset);
        }
      }
    }
  }

  static void clear_column(bfloat16* column) {
    for (int row = 0; row < kRows; ++row) std::memset(column + row * 32, 0, 32);
  }

  void interleave_row(int block, int row) const {
    const int source_row = g_.doubled ? row / 2 : row;
    const std::int64_t line = std::int64_t(source_row) * g_.in_width;
    alignas(64) bfloat16 activated[kTile];
    for (int k = 0; k < in_blocks_; ++k) {
      for (int plane = 0; plane < g_.num_planes; ++plane) {
        bfloat16* low = input_row(plane, block, row, 2 * k);
        bfloat16* high = input_row(plane, block, row, 2 * k + 1);
        for (int slot = 0; slot < slots_; ++slot, low += kHalfTile, high += kHalfTile) {
          const int column = g_.doubled ? (slot + 1) / 2 - 1 : (slot - 1) * g_.num_planes + plane;
          if (slot >= 1 && column < g_.in_width) {
            interleave(input_tile(block, k, line + column, activated), low, high);
          } else {
            std::memset(low, 0, kHalfTile * sizeof(bfloat16));
            std::memset(high, 0, kHalfTile * sizeof(bfloat16));
          }
        }
      }
    }
  }

  const bfloat16* input_tile(int block, int k, std::int64_t pixel, bfloat16* activated) const {
    if (!g_.activation) return g_.input.tile(block, k, pixel);
    g_.activation->apply(g_.input, block, k, pixel, activated);
    return activated;
  }

  // Computes one row of the kernel for two tiles of output channels by two of input channels.
  void multiply(int out, int in, int kernel_row, std::vector<Accumulators>& products) const {
    const int strip_rows = std::max(1, kStripColumns / columns_);
    bool is_first = true;
    for (int block = 0; block < g_.num_blocks; ++block) {
      for (int first = 0; first < g_.height; first += strip_rows, is_first = false) {
        const int last = std::min(g_.height, first + strip_rows);
        for (int x = 0; x < g_.kernel_width; ++x) {
          if (is_first) {
            Accumulators::clear();
          } else {
            products[x].load();
          }
          const GradientTap& tap = g_.taps[kernel_row * g_.kernel_width + x];
          for (int row = first; row < last; ++row) multiply_row(tap, block, row, out, in);
          products[x].store();
        }
      }
    }
  }

  void multiply_row(const GradientTap& tap, int block, int row, int out, int in) const {
    const int from_row = row * g_.stride + tap.row;
    if (from_row < 0 || from_row >= rows_) return;
    const bfloat16* low = gradient_row(block, row, 2 * out);
    const bfloat16* high = gradient_row(block, row, 2 * out + 1);
    const int offset = (1 + tap.column) * kHalfTile;
    const bfloat16* left = input_row(tap.plane, block, from_row, 2 * in) + offset;
    const bfloat16* right = input_row(tap.plane, block, from_row, 2 * in + 1) + offset;
    for (int q = 0; q < columns_; q += 2) {
      _tile_loadd(4, low + q * kHalfTile, 64);
      _tile_loadd(6, left + q * kHalfTile, 64);
      _tile_loadd(7, right + q * kHalfTile, 64);
      _tile_loadd(5, high + q * kHalfTile, 64);
      Accumulators::multiply();
    }
  }

  void add(const Accumulators& products, int out_block, int in_block, int tap) const {
    const WeightLayout& layout = g_.layout;
    const int num_out = std::min(kChannels, layout.num_out - out_block * kChannels);
    const int num_in = std::min(kChannels, layout.num_in - in_block * kChannels);
    float* to = g_.weights + out_block * kChannels * layout.out_stride +
                in_block * kChannels * layout.in_stride + tap * layout.tap_stride;
    for (int out = 0; out < num_out; ++out, to += layout.out_stride) {
      const float* low = products.values[out / 16][0] + out % 16 * kWords;
      const float* high = products.values[out / 16][1] + out % 16 * kWords;
      if (layout.in_stride == 1 && num_in == kChannels) {
        store(to, load(to) + Channels{_mm512_load_ps(low), _mm512_load_ps(high)});
        continue;
      }
      for (int in = 0; in < num_in; ++in) {
        to[in * layout.in_stride] += in < kWords ? low[in] : high[in - kWords];
      }
    }
  }

  const WeightGradient& g_;
  int in_blocks_, rows_, columns_, slots_;
};

}  // namespace

extern "C" void add_weight_gradient(const WeightGradient* gradient) {
  WeightGradientTask(*gradient).run();
}
