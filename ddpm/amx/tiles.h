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

// 2^x to a relative error of 1e-5: the power of the whole part times a polynomial of the rest, which
// lies in [0, 1).
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

// The tile registers of a thread: all eight hold 16 rows of 64 bytes.
class TileRegisters {
 public:
  TileRegisters() { _tile_loadconfig(kLayout); }
  ~TileRegisters() { _tile_release(); }

 private:
  alignas(64) static constexpr std::uint8_t kLayout[64] = {
      1,  0, 0,  0, 0,  0, 0,  0, 0,  0, 0,  0, 0,  0, 0,  0, 64, 0, 64, 0, 64, 0, 64, 0,
      64, 0, 64, 0, 64, 0, 64, 0, 0,  0, 0,  0, 0,  0, 0,  0, 0,  0, 0,  0, 0,  0, 0,  0,
      16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0};
};

// What a tile register holds, in memory.
struct alignas(64) Register {
  std::uint32_t words[kRows][kWords];
};

// Transposes 16 rows of 16 words.
inline void transpose_words(__m512i a[16], Register& to) {
  __m512i b[16];
  for (int i = 0; i < 16; i += 2) {
    b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
    b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
    a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
    a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
    a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
  }
  for (int i = 0; i < 4; ++i) {  // lane L of a[i + 4 j] has column 4 L + i of rows 4 j to 4 j + 3
    b[i] = _mm512_shuffle_i32x4(a[i], a[i + 4], 0x88);
    b[i + 4] = _mm512_shuffle_i32x4(a[i], a[i + 4], 0xdd);
    b[i + 8] = _mm512_shuffle_i32x4(a[i + 8], a[i + 12], 0x88);
    b[i + 12] = _mm512_shuffle_i32x4(a[i + 8], a[i + 12], 0xdd);
  }
  for (int i = 0; i < 4; ++i) {
    _mm512_store_si512(to.words[i], _mm512_shuffle_i32x4(b[i], b[i + 8], 0x88));
    _mm512_store_si512(to.words[i + 8], _mm512_shuffle_i32x4(b[i], b[i + 8], 0xdd));
    _mm512_store_si512(to.words[i + 4], _mm512_shuffle_i32x4(b[i + 4], b[i + 12], 0x88));
    _mm512_store_si512(to.words[i + 12], _mm512_shuffle_i32x4(b[i + 4], b[i + 12], 0xdd));
  }
}

// Two by two registers of sums, 0 to 3, of the products of registers 4 and 5 with 6 and 7; and what
// they hold, in memory.
struct alignas(64) Accumulators {
  float values[2][2][kAccumulator];

  static void clear() {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }

  static void multiply() {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }

  // Take half of them back, or begin with zeros.
  void load_left(bool is_first) const {
    if (is_first) {
      _tile_zero(0);
      _tile_zero(1);
    } else {
      _tile_loadd(0, values[0][0], 64);
      _tile_loadd(1, values[0][1], 64);
    }
  }

  void load_right(bool is_first) const {
    if (is_first) {
      _tile_zero(2);
      _tile_zero(3);
    } else {
      _tile_loadd(2, values[1][0], 64);
      _tile_loadd(3, values[1][1], 64);
    }
  }

  void store_left() {
    _tile_stored(0, values[0][0], 64);
    _tile_stored(1, values[0][1], 64);
  }

  void store_right() {
    _tile_stored(2, values[1][0], 64);
    _tile_stored(3, values[1][1], 64);
  }

  void load() const {
    _tile_loadd(0, values[0][0], 64);
    _tile_loadd(1, values[0][1], 64);
    _tile_loadd(2, values[1][0], 64);
    _tile_loadd(3, values[1][1], 64);
  }

  void store() {
    _tile_stored(0, values[0][0], 64);
    _tile_stored(1, values[0][1], 64);
    _tile_stored(2, values[1][0], 64);
    _tile_stored(3, values[1][1], 64);
  }
};

// Interleaves two rows of 32 bfloat16: words of both, for the first 16 columns and for the others.
inline void interleave_rows(__m512i even, __m512i odd, void* low, void* high) {
  const __m512i first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
  const __m512i second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
  const __m512i words = _mm512_unpacklo_epi16(even, odd);
  const __m512i others = _mm512_unpackhi_epi16(even, odd);
  _mm512_storeu_si512(low, _mm512_permutex2var_epi64(words, first, others));
  _mm512_storeu_si512(high, _mm512_permutex2var_epi64(words, second, others));
}

// Writes 16 rows of 32 bfloat16, `stride` apart, as 32 rows of 16: row c lies at c * 32 from `to`, and
// from row 16 on at `to_high`.
inline void transpose_tile(const bfloat16* tile, std::int64_t stride, bfloat16* to,
                           bfloat16* to_high) {
  __m512i low[8], high[8];  // columns 8L..8L+3 and 8L+4..8L+7 of lane L, two rows a word
  for (int i = 0; i < 8; ++i) {
    const __m512i even = _mm512_loadu_si512(tile + 2 * i * stride);
    const __m512i odd = _mm512_loadu_si512(tile + (2 * i + 1) * stride);
    low[i] = _mm512_unpacklo_epi16(even, odd);
    high[i] = _mm512_unpackhi_epi16(even, odd);
  }
  for (int half = 0; half < 2; ++half) {
    const __m512i* words = half ? high : low;
    for (int rows_half = 0; rows_half < 2; ++rows_half, words += 4) {
      const __m512i a = _mm512_unpacklo_epi32(words[0], words[1]);
      const __m512i b = _mm512_unpackhi_epi32(words[0], words[1]);
      const __m512i c = _mm512_unpacklo_epi32(words[2], words[3]);
      const __m512i d = _mm512_unpackhi_epi32(words[2], words[3]);
      const __m512i rows[4] = {_mm512_unpacklo_epi64(a, c), _mm512_unpackhi_epi64(a, c),
                               _mm512_unpacklo_epi64(b, d), _mm512_unpackhi_epi64(b, d)};
      for (int q = 0; q < 4; ++q) {
        const int row = 4 * half + q, offset = 8 * rows_half;
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
