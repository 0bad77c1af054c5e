// The gradient of the weights of a convolution.

#pragma once

#include "activation.h"
#include "weights.h"

// One tap of a gradient of weights: gradient row r meets input row r * stride + row, and in it
// gradient column q meets input column q + column of one of the planes.
struct GradientTap {
  std::int32_t plane, row, column;
};

// Each output pixel's gradient meets what its taps lay on, in products that sum over pixels and
// images: two pixels of 16 images make the 32 rows that AMX sums over.
struct WeightGradient : Sizes {
  Maps input;
  const Activation* activation;  // applied to the input before, or null
  const bfloat16* gradient;      // maps like the convolution's output
  std::int32_t gradient_blocks;
  // Input column w lies in plane w % num_planes at w / num_planes; with `doubled`, rows and columns
  // are counted in maps in which each pixel is repeated in both directions.
  std::int32_t num_planes, doubled, stride;
  std::int32_t kernel_size;    // 1 or 3
  const GradientTap* taps;     // [kernel_size][kernel_size]
  bfloat16* gradient_scratch;
  bfloat16* input_scratch;
  WeightLayout layout;
  float* weights;  // the gradient is written there

  // Columns of the gradient as they are laid out to be multiplied, an even number; rows of the
  // input.
  int columns() const { return width + width % 2; }
  int rows() const { return doubled ? 2 * in_height : in_height; }
  std::int64_t gradient_scratch_size() const {
    return std::int64_t(num_blocks) * height * gradient_blocks * columns() * kTile;
  }
  std::int64_t input_scratch_size() const {
    return std::int64_t(num_planes) * num_blocks * rows() * input.num_channel_blocks() *
           (columns() + 2) * kTile;
  }
};

void compute_weight_gradient(const WeightGradient& gradient);
