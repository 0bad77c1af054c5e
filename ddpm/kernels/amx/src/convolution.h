// What a convolution is told, and the rows of input that it takes.

#pragma once

#include <algorithm>
#include <vector>

#include "activation.h"
#include "registers.h"
#include "room.h"

constexpr int kMaxTaps = 36;

struct Tap {
  std::int32_t row, column;  // of the input pixel, from that of the output's own place
  std::int32_t weights;      // which of the kernel's tiles
};

// Where the taps of an output pixel lie. Pixels (h, w) differ in them by (h % phases, w % phases);
// their own place in the input is (h / phases * stride, w / phases * stride).
struct Geometry {
  std::int32_t phases, stride, num_weights;
  std::int32_t num_taps[4];
  Tap taps[4][kMaxTaps];
};

struct Convolution : Sizes {
  Maps input;
  const Activation* activation;  // applied to the input before, or null
  const bfloat16* weights;  // [output block][input block][num_weights][2][16][16][2]
  const Geometry* geometry;
  std::int32_t out_channel_blocks;
  std::int32_t chunk_rows;  // rows that are summed up apart
  bfloat16* output;
  // [block][channels / 32][16][height][width] rows of 32 channels instead of tiles.
  std::int32_t output_by_image;
  float* sums;  // [chunk][block][2][16][channels]: of the output and its square, or null
  // Added to the output, or null: (channels,), (images, channels), and maps like the output.
  const float* bias;
  const float* embedding;
  const bfloat16* residual;
};

// The output is the gradient of what `activation` made of `activated`, and is taken back through
// SiLU and dropout; the second sums are those of its products with `activated`.
struct ActivationGradient {
  Maps activated;
  Activation activation;
};

// Computes the output, and its sums.
void convolve_maps(const Convolution& convolution);

// Does so, with the sums of an `ActivationGradient`.
void convolve_gradient(const Convolution& convolution, const ActivationGradient& gradient);

constexpr int kWindowBytes = 900 << 10;  // of activated rows, about; they stay in the second cache
constexpr int kMinWindowRows = 2;         // of the output, that the rows of a window are enough for

// The rows of a block of images that are convolved next: as they lie, or activated, in a ring.
class InputRows {
 public:
  // The first and the last input row that an output row needs, borders left out of account.
  static int first_row(const Geometry& g, int h) {
    int row = g.taps[0][0].row;
    for (int phase = 0; phase < g.phases * g.phases; ++phase) {
      for (int t = 0; t < g.num_taps[phase]; ++t) row = std::min(row, g.taps[phase][t].row);
    }
    return h / g.phases * g.stride + row;
  }

  static int last_row(const Geometry& g, int h) {
    int row = g.taps[0][0].row;
    for (int phase = 0; phase < g.phases * g.phases; ++phase) {
      for (int t = 0; t < g.num_taps[phase]; ++t) row = std::max(row, g.taps[phase][t].row);
    }
    return h / g.phases * g.stride + row;
  }

  explicit InputRows(const Convolution& c) : c_(c) {
    const std::int64_t row_bytes =
        std::int64_t(c.in_width) * c.input.num_channel_blocks() * kTile * sizeof(bfloat16);
    const int halo = last_row(*c.geometry, 0) - first_row(*c.geometry, 0);
    const int affordable = int(kWindowBytes / row_bytes) - halo;
    output_rows_ = std::clamp(affordable, kMinWindowRows, c.chunk_rows);
    if (!c.activation) {
      output_rows_ = c.chunk_rows;
      return;
    }
    ring_rows_ = last_row(*c.geometry, output_rows_ - 1) - first_row(*c.geometry, 0) + 1;
    // Where the first row of a window is not its phases' first, one more may be needed.
    ring_rows_ += c.geometry->phases - 1;
    static thread_local Room room;
    ring_ = room.of<Tile>(std::int64_t(ring_rows_) * c.in_width * c.input.num_channel_blocks());
  }

  // How many output rows a window is enough for.
  int output_rows() const { return output_rows_; }

  // Begins with another block or other rows.
  void restart(int block) {
    block_ = block;
    next_row_ = -1;
  }

  // Makes ready what output rows [first, last) need.
  void prepare(int first, int last) {
    if (!c_.activation) return;
    int row = std::max(0, first_row(*c_.geometry, first));
    row = std::max(row, next_row_);
    next_row_ = std::min(c_.in_height, last_row(*c_.geometry, last - 1) + 1);
    for (; row < next_row_; ++row) {
      for (int k = 0; k < c_.input.num_channel_blocks(); ++k) {
        Tile* to = &ring_[ring_index(k, row)];
        for (int x = 0; x < c_.in_width; ++x) {
          const std::int64_t pixel = std::int64_t(row) * c_.in_width + x;
          c_.activation->apply(c_.input, block_, k, pixel, to[x].values);
        }
      }
    }
  }

  // The tiles of a row in 32 channels.
  const bfloat16* row(int channel_block, int y) const {
    if (!c_.activation) {
      return c_.input.tile(block_, channel_block, std::int64_t(y) * c_.in_width);
    }
    return ring_[ring_index(channel_block, y)].values;
  }

 private:
  struct alignas(64) Tile {
    bfloat16 values[kTile];
  };

  std::size_t ring_index(int channel_block, int y) const {
    return (std::size_t(channel_block) * ring_rows_ + y % ring_rows_) * c_.in_width;
  }

  const Convolution& c_;
  Tile* ring_ = nullptr;
  int output_rows_, ring_rows_ = 0, block_ = 0, next_row_ = -1;
};
