// Weights in memory, and as tiles for a convolution.

#pragma once

#include <cstdint>

#include "tiles.h"

// How many weights there are, and how far apart, in elements.
struct WeightLayout {
  std::int32_t num_out, num_in, num_taps;
  std::int64_t out_stride, in_stride, tap_stride;

  int out_blocks() const { return (num_out + kChannels - 1) / kChannels; }
  int in_blocks() const { return (num_in + kChannels - 1) / kChannels; }
  std::int64_t packed_size() const {
    return std::int64_t(out_blocks()) * in_blocks() * num_taps * 2 * kTile;
  }
  // With inputs and outputs exchanged: for the gradient of the input.
  WeightLayout transposed() const {
    return {num_in, num_out, num_taps, in_stride, out_stride, tap_stride};
  }
};

// Writes weights as [out / 32][in / 32][tap][2][16][16][2]: a register for each 16 output channels,
// in it a row for each two input channels. Channels beyond those that there are get zeros.
extern "C" void pack_weights(const float* weights, const WeightLayout* layout, bfloat16* packed);
