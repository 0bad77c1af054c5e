// Feature maps as tiles: what 16 images have at one pixel in 32 channels, 16 rows of 32 bfloat16.
//
// A tile is 1 KB without gaps, and just what AMX multiplies. As the rows of a tile are images, a
// convolution reads any pixel's tile as it lies, whatever the size of the maps, their borders and
// strides. Maps are [block of images][channels / 32][height][width] tiles: those of neighbouring
// pixels follow each other, and do not push each other out of the same lines of the cache.

#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

using bfloat16 = std::uint16_t;

constexpr int kImages = 16;
constexpr int kChannels = 32;
constexpr int kTile = kImages * kChannels;
constexpr int kRows = 16;  // of a tile register
constexpr int kWords = 16;  // of a row: two bfloat16 or a float32 each
constexpr int kAccumulator = kRows * kWords;

// 32 channels of one image in float32.
struct Channels {
  __m512 low, high;
};

inline __m512 widened(__m256i values) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(values), 16));
}

inline Channels load(const bfloat16* from) {
  const __m512i values = _mm512_loadu_si512(from);
  return {widened(_mm512_castsi512_si256(values)), widened(_mm512_extracti64x4_epi64(values, 1))};
}

inline Channels load(const float* from) {
  return {_mm512_loadu_ps(from), _mm512_loadu_ps(from + 16)};
}

// Stores rounded values and returns them as they were rounded.
inline Channels store(bfloat16* to, Channels x) {
  const __m512i rounded = (__m512i)_mm512_cvtne2ps_pbh(x.high, x.low);
  _mm512_storeu_si512(to, rounded);
  return {widened(_mm512_castsi512_si256(rounded)),
          widened(_mm512_extracti64x4_epi64(rounded, 1))};
}

inline void store(float* to, Channels x) {
  _mm512_storeu_ps(to, x.low);
  _mm512_storeu_ps(to + 16, x.high);
}

inline Channels operator+(Channels a, Channels b) {
  return {_mm512_add_ps(a.low, b.low), _mm512_add_ps(a.high, b.high)};
}

inline Channels operator*(Channels a, Channels b) {
  return {_mm512_mul_ps(a.low, b.low), _mm512_mul_ps(a.high, b.high)};
}

// a * b + c, rounded once.
inline Channels multiply_add(Channels a, Channels b, Channels c) {
  return {_mm512_fmadd_ps(a.low, b.low, c.low), _mm512_fmadd_ps(a.high, b.high, c.high)};
}

// 2^x to a relative error of 1e-5: the power of the whole part times a polynomial of the rest,
// which lies in [0, 1).
inline __m512 power_of_two(__m512 x) {
  constexpr int kRoundDown = 0x09;
  const __m512 rest = _mm512_reduce_ps(x, kRoundDown);
  __m512 power = _mm512_set1_ps(1.342662e-2f);
  power = _mm512_fmadd_ps(power, rest, _mm512_set1_ps(5.224257e-2f));
  power = _mm512_fmadd_ps(power, rest, _mm512_set1_ps(2.4128016e-1f));
  power = _mm512_fmadd_ps(power, rest, _mm512_set1_ps(6.9304485e-1f));
  power = _mm512_fmadd_ps(power, rest, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(power, x);
}

// 1 / (1 + exp(-x)) to a relative error of 1e-4, a twentieth of bfloat16's own.
inline __m512 sigmoid(__m512 x) {
  const __m512 power = power_of_two(_mm512_mul_ps(x, _mm512_set1_ps(-1.44269504f)));
  return _mm512_rcp14_ps(_mm512_add_ps(_mm512_set1_ps(1.0f), power));
}

inline Channels silu(Channels x) {
  return {_mm512_mul_ps(x.low, sigmoid(x.low)), _mm512_mul_ps(x.high, sigmoid(x.high))};
}

// The derivative s (1 + x (1 - s)) of x s, where s is the sigmoid of x.
inline __m512 silu_slope(__m512 x) {
  const __m512 s = sigmoid(x);
  return _mm512_fmadd_ps(_mm512_fnmadd_ps(x, s, x), s, s);
}

inline Channels silu_slope(Channels x) { return {silu_slope(x.low), silu_slope(x.high)}; }

// How many blocks of images there are, and how large the maps are that go in and come out.
struct Sizes {
  std::int32_t num_blocks, in_height, in_width, height, width;

  int num_images() const { return num_blocks * kImages; }
  int in_pixels() const { return in_height * in_width; }
  int out_pixels() const { return height * width; }
};

// Maps, or two of them whose channels follow each other.
struct Maps {
  const bfloat16* parts[2];
  std::int32_t channel_blocks[2];
  std::int32_t num_pixels;

  int num_channel_blocks() const { return channel_blocks[0] + channel_blocks[1]; }
  int num_channels() const { return kChannels * num_channel_blocks(); }

  // Which part has a block of channels.
  int part(int channel_block) const { return channel_block >= channel_blocks[0]; }

  // Where in that part the tile of a block of images in 32 channels at a pixel begins.
  std::int64_t place(std::int64_t block, int channel_block, std::int64_t pixel) const {
    const int owner = part(channel_block);
    const int within = owner ? channel_block - channel_blocks[0] : channel_block;
    const std::int64_t plane = (block * channel_blocks[owner] + within) * num_pixels * kTile;
    return plane + pixel * kTile;
  }

  const bfloat16* tile(std::int64_t block, int channel_block, std::int64_t pixel) const {
    return parts[part(channel_block)] + place(block, channel_block, pixel);
  }
};
