// The tile registers, and how values are laid out for them.

#pragma once

#include "tiles.h"

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

// Writes 16 rows of 32 bfloat16, `stride` apart, as 32 rows of 16: row c lies at c * 32 from `to`,
// and from row 16 on at `to_high`.
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
