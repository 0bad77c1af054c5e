#include "weight_gradient.h"

#include <omp.h>

#include <algorithm>
#include <vector>

#include "registers.h"

namespace {

constexpr int kHalfTile = kTile / 2;
constexpr int kStripColumns = 128;  // that are summed up in registers
constexpr int kMaxOut = 2, kMaxIn = 4;  // blocks of channels that meet in the second cache

// Writes a tile as two of 8 rows, a row for each two images: 16 channels, two images each.
void interleave(const bfloat16* tile, bfloat16* to, bfloat16* to_high) {
  for (int i = 0; i < 8; ++i) {
    const __m512i even = _mm512_loadu_si512(tile + 2 * i * kChannels);
    const __m512i odd = _mm512_loadu_si512(tile + (2 * i + 1) * kChannels);
    interleave_rows(even, odd, to + i * 32, to_high + i * 32);
  }
}

// The gradient of the weights of 32 output and 32 input channels.
union Products {
  // What registers 0 to 5 hold, in memory: of 16 output channels and a row of the kernel, 2 x 16
  // input channels of each tap.
  struct alignas(64) Row {
    float taps[3][2][kAccumulator];
  };
  Row rows[2][3];
  Accumulators point;  // of a kernel of one tap
};

void clear_sums() {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
}

void load_sums(const Products::Row& from) {
  _tile_loadd(0, from.taps[0][0], 64);
  _tile_loadd(1, from.taps[0][1], 64);
  _tile_loadd(2, from.taps[1][0], 64);
  _tile_loadd(3, from.taps[1][1], 64);
  _tile_loadd(4, from.taps[2][0], 64);
  _tile_loadd(5, from.taps[2][1], 64);
}

void store_sums(Products::Row& to) {
  _tile_stored(0, to.taps[0][0], 64);
  _tile_stored(1, to.taps[0][1], 64);
  _tile_stored(2, to.taps[1][0], 64);
  _tile_stored(3, to.taps[1][1], 64);
  _tile_stored(4, to.taps[2][0], 64);
  _tile_stored(5, to.taps[2][1], 64);
}

class WeightGradientTask {
 public:
  explicit WeightGradientTask(const WeightGradient& g) : g_(g) {
    in_blocks_ = g.input.num_channel_blocks();
    rows_ = g.rows();
    columns_ = g.columns();
    slots_ = columns_ + 2;
    choose_together();
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
      std::vector<Products> products(kMaxOut * kMaxIn);
#pragma omp for collapse(2) schedule(dynamic)
      for (int out = 0; out < g_.gradient_blocks; out += out_together_) {
        for (int in = 0; in < in_blocks_; in += in_together_) multiply(out, in, products);
      }
    }
  }

 private:
  // Takes fewer blocks of channels at a time where threads would have nothing to do.
  void choose_together() {
    const int num_threads = omp_get_max_threads();
    while (in_together_ > 1 || out_together_ > 1) {
      const int num_tasks = ((g_.gradient_blocks + out_together_ - 1) / out_together_) *
                            ((in_blocks_ + in_together_ - 1) / in_together_);
      if (num_tasks % num_threads == 0 || num_tasks >= 4 * num_threads) return;
      int& larger = in_together_ > out_together_ ? in_together_ : out_together_;
      larger /= 2;
    }
  }

  // A row of 16 output channels of a block: tiles of two columns each.
  bfloat16* gradient_row(int block, int row, int half_block) const {
    const std::int64_t line = std::int64_t(block) * g_.height + row;
    const std::int64_t half_row = line * 2 * g_.gradient_blocks + half_block;
    return g_.gradient_scratch + half_row * columns_ * kHalfTile;
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
          transpose_tile(tiles + q * kTile, kChannels, low + offset, high + offset);
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

  // Computes all taps of a few blocks of output and input channels, a strip of lines after another:
  // what a strip takes stays in the second cache until all have met.
  void multiply(int first_out, int first_in, std::vector<Products>& products) const {
    const int num_lines = g_.num_blocks * g_.height;
    const int strip_lines = std::max(1, kStripColumns / columns_);
    const int last_out = std::min(g_.gradient_blocks, first_out + out_together_);
    const int last_in = std::min(in_blocks_, first_in + in_together_);
    for (int first = 0; first < num_lines; first += strip_lines) {
      const int last = std::min(num_lines, first + strip_lines);
      Products* sums = products.data();
      for (int out = first_out; out < last_out; ++out) {
        for (int in = first_in; in < last_in; ++in, ++sums) {
          for (int y = 0; y < g_.kernel_size; ++y) multiply_strip(out, in, y, first, last, *sums);
        }
      }
    }
    write(first_out, last_out, first_in, last_in, products);
  }

  void multiply_strip(int out, int in, int kernel_row, int first, int last,
                      Products& products) const {
    if (g_.kernel_size == 1) {
      multiply_points(out, in, first, last, products);
      return;
    }
    for (int half = 0; half < 2; ++half) {
      multiply_row(out, in, half, kernel_row, first, last, products.rows[half][kernel_row]);
    }
  }

  // Adds what lines [first, last) give to a kernel of one tap.
  void multiply_points(int out, int in, int first, int last, Products& products) const {
    Accumulators& sums = products.point;
    sums.load_left(first == 0);
    sums.load_right(first == 0);
    for (int line = first; line < last; ++line) {
      const int block = line / g_.height, row = line % g_.height;
      const bfloat16* low = gradient_row(block, row, 2 * out);
      const bfloat16* high = gradient_row(block, row, 2 * out + 1);
      const bfloat16* left = input_row(0, block, row, 2 * in) + kHalfTile;
      const bfloat16* right = input_row(0, block, row, 2 * in + 1) + kHalfTile;
      for (int q = 0; q < columns_; q += 2) {
        _tile_loadd(4, low + q * kHalfTile, 64);
        _tile_loadd(6, left + q * kHalfTile, 64);
        _tile_loadd(7, right + q * kHalfTile, 64);
        _tile_loadd(5, high + q * kHalfTile, 64);
        Accumulators::multiply();
      }
    }
    sums.store_left();
    sums.store_right();
  }

  // Adds what lines [first, last) give to a row of a kernel of 3 x 3, of 16 output channels.
  void multiply_row(int out, int in, int half, int kernel_row, int first, int last,
                    Products::Row& sums) const {
    if (first == 0) {
      clear_sums();
    } else {
      load_sums(sums);
    }
    const GradientTap* taps = g_.taps + kernel_row * 3;
    for (int line = first; line < last; ++line) {
      const int block = line / g_.height, row = line % g_.height;
      const int from_row = row * g_.stride + taps[0].row;
      if (from_row < 0 || from_row >= rows_) continue;
      const bfloat16* gradient = gradient_row(block, row, 2 * out + half);
      const bfloat16 *low[3], *high[3];
      for (int x = 0; x < 3; ++x) {
        const int offset = (1 + taps[x].column) * kHalfTile;
        low[x] = input_row(taps[x].plane, block, from_row, 2 * in) + offset;
        high[x] = input_row(taps[x].plane, block, from_row, 2 * in + 1) + offset;
      }
      for (int q = 0; q < columns_; q += 2) {
        const int offset = q * kHalfTile;
        _tile_loadd(6, gradient + offset, 64);
        _tile_loadd(7, low[0] + offset, 64);
        _tile_dpbf16ps(0, 6, 7);
        _tile_loadd(7, high[0] + offset, 64);
        _tile_dpbf16ps(1, 6, 7);
        _tile_loadd(7, low[1] + offset, 64);
        _tile_dpbf16ps(2, 6, 7);
        _tile_loadd(7, high[1] + offset, 64);
        _tile_dpbf16ps(3, 6, 7);
        _tile_loadd(7, low[2] + offset, 64);
        _tile_dpbf16ps(4, 6, 7);
        _tile_loadd(7, high[2] + offset, 64);
        _tile_dpbf16ps(5, 6, 7);
      }
    }
    store_sums(sums);
  }

  // Writes what was computed, in the order of memory where channels of the input lie side by side.
  void write(int first_out, int last_out, int first_in, int last_in,
             const std::vector<Products>& products) const {
    const WeightLayout& layout = g_.layout;
    const int num_out = std::min(layout.num_out, last_out * kChannels);
    for (int out = first_out * kChannels; out < num_out; ++out) {
      const int first_product = (out / kChannels - first_out) * (last_in - first_in);
      for (int tap = 0; tap < g_.kernel_size * g_.kernel_size; ++tap) {
        float* to = g_.weights + out * layout.out_stride + tap * layout.tap_stride;
        for (int in = first_in; in < last_in; ++in) {
          const Products& sums = products[first_product + in - first_in];
          write_row(sums, out % kChannels, in, tap, to + in * kChannels * layout.in_stride);
        }
      }
    }
  }

  void write_row(const Products& products, int out, int in_block, int tap, float* to) const {
    const auto& sums = g_.kernel_size == 1 ? products.point.values[out / kRows]
                                           : products.rows[out / kRows][tap / 3].taps[tap % 3];
    const float* low = sums[0] + out % kRows * kWords;
    const float* high = sums[1] + out % kRows * kWords;
    const WeightLayout& layout = g_.layout;
    const int num_in = std::min(kChannels, layout.num_in - in_block * kChannels);
    if (layout.in_stride == 1 && num_in == kChannels) {
      store(to, Channels{_mm512_load_ps(low), _mm512_load_ps(high)});
      return;
    }
    for (int in = 0; in < num_in; ++in) {
      to[in * layout.in_stride] = in < kWords ? low[in] : high[in - kWords];
    }
  }

  const WeightGradient& g_;
  int in_blocks_, rows_, columns_, slots_;
  int out_together_ = kMaxOut, in_together_ = kMaxIn;
};

}  // namespace

void compute_weight_gradient(const WeightGradient& gradient) {
  WeightGradientTask(gradient).run();
}
