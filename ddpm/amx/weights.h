#pragma once

#include <cstdint>

// Weights in memory: how many, and how far apart, in elements.
struct WeightLayout {
  std::int32_t num_out, num_in, num_taps;
  std::int64_t out_stride, in_stride, tap_stride;
};
