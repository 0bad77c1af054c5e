// Group norm of tiles, from the sums that convolutions leave, and its gradient.

#pragma once

#include "tiles.h"

// The sums of one part of the maps as convolutions leave them: [chunk][block][2][16][channels].
struct PartSums {
  const float* sums;
  std::int32_t num_chunks, num_channels;
};

struct Norm {
  std::int32_t num_blocks, num_pixels, num_groups;
  float epsilon;
  const float* weight;  // (channels,)
  const float* bias;
};

// What a group norm is for each image and channel: (images, channels) each.
struct Normalised {
  float *means, *inverse_deviations, *scale, *shift;
};

// What makes the gradient of the norm's input, dx = scale dz + slope x + offset, and what each
// image gives to the gradients of weight and bias: (images, channels) each.
struct NormGradient {
  float *slopes, *offsets, *weight, *bias;
};

// The variance is that of the sums: it loses digits where a mean is hundreds of deviations.
void compute_norm(const Norm& norm, const PartSums parts[2], const Normalised& normalised);

// From the sums of the gradient dz of the normalised maps, and of dz x.
void compute_norm_gradient(const Norm& norm, const PartSums& sums, const Normalised& normalised,
                           const NormGradient& gradient);

// Writes dx, plus what a part has in `others` (or null), to as many parts as the maps have.
void apply_norm_gradient(const Maps& maps, const bfloat16* gradient, const float* scale,
                         const NormGradient& coefficients, int num_blocks,
                         const bfloat16* const others[2], bfloat16* const outputs[2]);

// Sums maps over pixels: (images, channels).
void sum_maps(const bfloat16* maps, int num_blocks, int num_pixels, int num_channel_blocks,
              float* sums);
