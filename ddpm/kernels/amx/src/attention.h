// What attention and its gradient share: where an image's rows lie, and how AMX takes them.
//
// Queries, keys and values are laid out by image: an image's pixels in 32 channels follow each
// other, and 16 of them are what AMX loads. What comes out, and its gradient, lies as tiles.

#pragma once

#include <algorithm>
#include <vector>

#include "registers.h"

// num_pixels is a multiple of 16, num_channels of 32 times num_heads.
struct Attention {
  const bfloat16* queries_keys_values;  // maps of 3 * num_channels, by image
  bfloat16* output;                     // maps of num_channels, as tiles
  // Of each softmax's sum, [block][image][head][pixel]: log2(sum of 2^x), or null.
  float* logarithms;
  std::int32_t num_blocks, num_pixels, num_heads, num_channels;

  int head_blocks() const { return num_channels / num_heads / kChannels; }
  // Pixels, rounded up to 32.
  int columns() const { return (num_pixels + kChannels - 1) / kChannels * kChannels; }
  // What the exponents of 2 are multiples of: log2(e) / sqrt(D).
  float scale() const;
};

// One head of one image.
struct Head {
  int block, image, head;
};

// 32 channels of one image: rows of 32, one a pixel.
template <typename Pointer>
struct PixelRows {
  Pointer first;
  std::int64_t stride;

  Pointer operator[](int pixel) const { return first + pixel * stride; }
};

// The rows of queries (part 0), keys (1) or values (2) in a head's channel block d.
inline PixelRows<const bfloat16*> input_rows(const Attention& a, const Head& h, int part, int d) {
  const int blocks = a.num_channels / kChannels;
  const std::int64_t plane =
      std::int64_t(h.block) * 3 * blocks + part * blocks + h.head * a.head_blocks() + d;
  return {a.queries_keys_values + (plane * kImages + h.image) * a.num_pixels * kChannels,
          kChannels};
}

// The same of maps as tiles that have one part or three.
template <typename Pointer>
PixelRows<Pointer> tile_rows(const Attention& a, Pointer maps, int num_parts, const Head& h,
                             int part, int d) {
  const int blocks = a.num_channels / kChannels;
  const std::int64_t plane =
      std::int64_t(h.block) * num_parts * blocks + part * blocks + h.head * a.head_blocks() + d;
  return {maps + plane * a.num_pixels * kTile + h.image * kChannels, kTile};
}

// Lays 16 pixels out with a row for each two channels: what is multiplied by rows of pixels.
inline void transpose_pixels(PixelRows<const bfloat16*> rows, int first, Register& to) {
  __m512i words[kRows];
  for (int row = 0; row < kRows; ++row) words[row] = _mm512_loadu_si512(rows[first + row]);
  transpose_words(words, to);
}

// Lays 32 pixels out with a row for each two of them, in two registers of 16 channels; zeros where
// there are no more pixels.
inline void interleave_pixels(PixelRows<const bfloat16*> rows, int first, int num_pixels,
                              Register to[2]) {
  for (int row = 0; row < kRows; ++row) {
    const int pixel = first + 2 * row;
    __m512i even = _mm512_setzero_si512(), odd = even;
    if (pixel < num_pixels) {
      even = _mm512_loadu_si512(rows[pixel]);
      odd = _mm512_loadu_si512(rows[pixel + 1]);
    }
    interleave_rows(even, odd, to[0].words[row], to[1].words[row]);
  }
}

// Has the caches fetch the rows of twice 16 pixels, which are written after the products that they
// wait for: each is a line of its own, a tile apart from the next.
inline void fetch_rows(PixelRows<bfloat16*> rows, const int pixels[2]) {
  for (int half = 0; half < 2; ++half) {
    for (int row = 0; row < kRows; ++row) __builtin_prefetch(rows[pixels[half] + row], 1);
  }
}

// The products of twice 16 rows with 32 columns, in float32.
struct alignas(64) ProductRows {
  float values[2][kRows][kChannels];

  // Takes them out of the registers of sums.
  void store() {
    _tile_stored(0, values[0][0], sizeof(values[0][0]));
    _tile_stored(1, values[0][0] + kWords, sizeof(values[0][0]));
    _tile_stored(2, values[1][0], sizeof(values[0][0]));
    _tile_stored(3, values[1][0] + kWords, sizeof(values[0][0]));
  }
};

// Computes the products of the rows of twice 16 pixels with those of all pixels, which are given in
// `others` as [pixel / 16][depth]; they become rows of `columns` numbers.
inline void multiply_with_all(const PixelRows<const bfloat16*>* rows, const int pixels[2],
                              const std::vector<Register>& others, int depth, int num_pixels,
                              int columns, float* products) {
  const int row_bytes = columns * int(sizeof(float));
  for (int other = 0; other < num_pixels; other += 2 * kRows) {
    const int pair[2] = {other, std::min(other + kRows, num_pixels - kRows)};
    Accumulators::clear();
    for (int d = 0; d < depth; ++d) {
      const std::int64_t stride = rows[d].stride * std::int64_t(sizeof(bfloat16));
      _tile_loadd(4, rows[d][pixels[0]], stride);
      _tile_loadd(5, rows[d][pixels[1]], stride);
      _tile_loadd(6, others[pair[0] / kRows * depth + d].words, 64);
      _tile_loadd(7, others[pair[1] / kRows * depth + d].words, 64);
      Accumulators::multiply();
    }
    _tile_stored(0, products + pair[0], row_bytes);
    _tile_stored(1, products + pair[1], row_bytes);
    _tile_stored(2, products + kRows * columns + pair[0], row_bytes);
    _tile_stored(3, products + kRows * columns + pair[1], row_bytes);
  }
}

// Calls run(head) for every head of every image with an object of each thread's own.
template <typename Worker, typename Arguments>
void for_each_head(const Attention& a, const Arguments& arguments) {
#pragma omp parallel
  {
    TileRegisters registers;
    Worker worker(arguments);
#pragma omp for collapse(3) schedule(dynamic)
    for (int block = 0; block < a.num_blocks; ++block) {
      for (int image = 0; image < kImages; ++image) {
        for (int head = 0; head < a.num_heads; ++head) worker.run({block, image, head});
      }
    }
  }
}
