// What a layer does to its input.

#pragma once

#include "tiles.h"

// Dropout as in ddpm/dropout.py: a hash of a key and an element's place in the batch.
struct Dropout {
  std::int32_t key[2];
  std::int32_t first_image;
  std::int32_t threshold;  // smaller hashes are dropped
  float factor;            // of what is kept; 0 where nothing is dropped

  // The factors of 32 channels that begin at `channel`.
  Channels factors(std::int64_t image, std::int64_t pixel, int num_pixels, int channel,
                   int num_channels) const {
    const std::uint64_t place =
        ((first_image + image) * num_pixels + pixel) * num_channels + channel;
    return {kept(std::uint32_t(place)), kept(std::uint32_t(place) + 16)};
  }

 private:
  static __m512i folded(__m512i bits, int shift) {
    return _mm512_xor_si512(bits, _mm512_srli_epi32(bits, shift));
  }

  __m512 kept(std::uint32_t place) const {
    const __m512i steps = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m512i bits = _mm512_add_epi32(steps, _mm512_set1_epi32(int(place + std::uint32_t(key[0]))));
    bits = _mm512_mullo_epi32(folded(bits, 16), _mm512_set1_epi32(int(0x85EBCA6Bu)));
    bits = folded(_mm512_xor_si512(bits, _mm512_set1_epi32(key[1])), 13);
    bits = folded(_mm512_mullo_epi32(bits, _mm512_set1_epi32(int(0xC2B2AE35u))), 16);
    const __mmask16 mask = _mm512_cmpge_epi32_mask(bits, _mm512_set1_epi32(threshold));
    return _mm512_maskz_mov_ps(mask, _mm512_set1_ps(factor));
  }
};

// What a layer does to its input before it convolves: x * scale + shift of each image and channel,
// in which group norm is contained; SiLU; dropout.
struct Activation {
  const float* scale;  // (images, channels)
  const float* shift;
  std::int32_t has_silu;
  Dropout dropout;

  // Writes what this makes of a tile of maps.
  void apply(const Maps& maps, int block, int channel_block, std::int64_t pixel,
             bfloat16* to) const {
    const bfloat16* from = maps.tile(block, channel_block, pixel);
    const int num_channels = maps.num_channels(), channel = channel_block * kChannels;
    for (int i = 0; i < kImages; ++i) {
      const std::int64_t image = std::int64_t(block) * kImages + i;
      const std::int64_t index = image * num_channels + channel;
      Channels x =
          multiply_add(load(from + i * kChannels), load(scale + index), load(shift + index));
      if (has_silu) x = silu(x);
      if (dropout.factor != 0.0f) {
        x = x * dropout.factors(image, pixel, maps.num_pixels, channel, num_channels);
      }
      store(to + i * kChannels, x);
    }
  }
};
