// Convolutions of tiles, and the gradient of what they convolve, which is a convolution too.
//
// What a layer does to its input first is done a few rows at a time, just before they are needed,
// so that the activated rows never leave the second cache.
//
// A step multiplies the tiles of two pixels with two tiles of weights: 2 x 2 sums of 16 images by
// 16 channels stay in registers. Weights of 32 output channels and as many input channels as are
// 18 KB, all taps, stay in the first cache while they meet a strip of pixels; the sums of the strip
// wait in the second one meanwhile.

#include <omp.h>

#include <algorithm>
#include <vector>

#include "convolution.h"
#include "epilogue.h"

namespace {

constexpr int kStripPixels = 16;  // a strip has at least so many, if the chunk has
constexpr int kImagesAtOnce = 2;  // that are finished after each tap
constexpr int kStripTaps = 9;     // what stays in the first cache: so many taps of 32 channels

inline void multiply_both(const bfloat16* left, const bfloat16* right,
                          const bfloat16* weights) {
  _tile_loadd(4, left, 64);
  _tile_loadd(6, weights, 64);
  _tile_loadd(7, weights + kTile, 64);
  _tile_loadd(5, right, 64);
  Accumulators::multiply();
}

inline void multiply_left(const bfloat16* left, const bfloat16* weights) {
  _tile_loadd(4, left, 64);
  _tile_loadd(6, weights, 64);
  _tile_loadd(7, weights + kTile, 64);
  _tile_dpbf16ps(0, 4, 6);
  _tile_dpbf16ps(1, 4, 7);
}

inline void multiply_right(const bfloat16* right, const bfloat16* weights) {
  _tile_loadd(5, right, 64);
  _tile_loadd(6, weights, 64);
  _tile_loadd(7, weights + kTile, 64);
  _tile_dpbf16ps(2, 5, 6);
  _tile_dpbf16ps(3, 5, 7);
}

// The taps of a row of pixels that lie in the input, for some blocks of input channels.
//
// Sums that leave their registers are waited for, and so are those that come back. So the two
// pixels that are multiplied at a time take turns with it: when the left one leaves, the right one
// has a tap to go, and when the right one leaves, the next left one has begun.
class RowTaps {
 public:
  // Finds those of pixels (h, phase), (h, phase + phases) and so on, in input blocks [first, last).
  RowTaps(const Convolution& c, const InputRows& input, int h, int phase, int first, int last,
          const bfloat16* weights)
      : stride_(c.geometry->stride), in_width_(c.in_width) {
    const Geometry& g = *c.geometry;
    const int kind = h % g.phases * g.phases + phase;
    for (int k = first; k < last; ++k, weights += std::int64_t(g.num_weights) * 2 * kTile) {
      for (int t = 0; t < g.num_taps[kind]; ++t) {
        const Tap& tap = g.taps[kind][t];
        const int y = h / g.phases * g.stride + tap.row;
        if (y < 0 || y >= c.in_height) continue;
        taps_[count_++] = {input.row(k, y) + tap.column * kTile, weights + tap.weights * 2 * kTile,
                           tap.column};
        first_column_ = std::min(first_column_, tap.column);
        last_column_ = std::max(last_column_, tap.column);
      }
    }
  }

  // Adds what the first or last tap gives to the left or the right of two pixels; the place of the
  // left one in the input is `column`.
  void multiply_first_left(int column) const {
    if (count_ > 0) multiply_alone<false>(0, column);
  }
  void multiply_first_right(int column) const {
    if (count_ > 0) multiply_alone<true>(0, column);
  }
  void multiply_last_left(int column) const {
    if (count_ > 1) multiply_alone<false>(count_ - 1, column);
  }
  void multiply_last_right(int column) const {
    if (count_ > 1) multiply_alone<true>(count_ - 1, column);
  }

  // Adds what the other taps give to both.
  template <typename Epilogue>
  void multiply_others(int column, bool has_right, Finisher<Epilogue>& finisher) const {
    const std::int64_t step = stride_ * kTile;
    if (has_right && column + first_column_ >= 0 && column + stride_ + last_column_ < in_width_) {
      for (int t = 1; t < count_ - 1; ++t) {
        const bfloat16* left = taps_[t].input + column * kTile;
        multiply_both(left, left + step, taps_[t].weights);
        finisher.advance(kImagesAtOnce);
      }
      return;
    }
    for (int t = 1; t < count_ - 1; ++t) {
      const int x = column + taps_[t].column;
      const bool has_left = lies_inside(x);
      const bool has_both = has_left && has_right && lies_inside(x + stride_);
      if (has_both) {
        const bfloat16* left = taps_[t].input + column * kTile;
        multiply_both(left, left + step, taps_[t].weights);
      } else if (has_left) {
        multiply_alone<false>(t, column);
      } else if (has_right) {
        multiply_alone<true>(t, column);
      }
      finisher.advance(kImagesAtOnce);
    }
  }

 private:
  struct Found {
    const bfloat16* input;  // of the pixel that column 0 meets
    const bfloat16* weights;
    int column;
  };

  bool lies_inside(int x) const { return x >= 0 && x < in_width_; }

  template <bool is_right>
  void multiply_alone(int t, int column) const {
    const int place = is_right ? column + stride_ : column;
    if (!lies_inside(place + taps_[t].column)) return;
    const bfloat16* input = taps_[t].input + place * kTile;
    if (is_right) {
      multiply_right(input, taps_[t].weights);
    } else {
      multiply_left(input, taps_[t].weights);
    }
  }

  Found taps_[kMaxTaps];
  int count_ = 0, first_column_ = 0, last_column_ = 0;
  int stride_, in_width_;
};

// Adds what some blocks of input channels give to a row's pixels of one phase, in 32 output
// channels. Sums of blocks before wait in `waiting`, unless these are the first, and go back there,
// unless they are the last.
template <typename Epilogue>
void convolve_row(const Convolution& c, const RowTaps& taps, Place place, int phase, bool is_first,
                  bool is_last, Accumulators*& waiting, Finisher<Epilogue>& finisher) {
  const Geometry& g = *c.geometry;
  const std::int64_t row = place.pixels[0];
  Accumulators* leaving = nullptr;  // whose right pixel is still in registers
  for (int w = phase; w < c.width; w += 2 * g.phases, ++waiting) {
    const int column = w / g.phases * g.stride;
    const bool has_right = w + g.phases < c.width;
    waiting->load_left(is_first);
    taps.multiply_first_left(column);
    if (leaving) leaving->store_right();
    waiting->load_right(is_first);
    if (has_right) taps.multiply_first_right(column);
    taps.multiply_others(column, has_right, finisher);
    taps.multiply_last_left(column);
    leaving = waiting;
    if (is_last) {
      place.pixels[0] = row + w;
      place.pixels[1] = row + w + g.phases;
      place.num_pixels = has_right ? 2 : 1;
      leaving = &finisher.next(place);
    }
    leaving->store_left();
    if (has_right) taps.multiply_last_right(column);
  }
  if (leaving) leaving->store_right();
}

// Convolves rows [first, last) of a block of images to 32 output channels.
template <typename Epilogue>
void convolve_strip(const Convolution& c, const InputRows& input, int block, int out_block,
                    int first, int last, std::vector<Accumulators>& waiting,
                    Finisher<Epilogue>& finisher) {
  const Geometry& g = *c.geometry;
  const int num_in_blocks = c.input.num_channel_blocks();
  const std::int64_t kernel = std::int64_t(g.num_weights) * 2 * kTile;
  const int together = std::max(1, kStripTaps / g.num_taps[0]);
  for (int in_block = 0; in_block < num_in_blocks; in_block += together) {
    const int in_end = std::min(num_in_blocks, in_block + together);
    const bfloat16* weights =
        c.weights + (std::int64_t(out_block) * num_in_blocks + in_block) * kernel;
    Accumulators* sums = waiting.data();
    for (int h = first; h < last; ++h) {
      for (int phase = 0; phase < g.phases; ++phase) {
        const RowTaps taps(c, input, h, phase, in_block, in_end, weights);
        const Place place = {block, out_block, {std::int64_t(h) * c.width, 0}, 0};
        convolve_row(c, taps, place, phase, in_block == 0, in_end == num_in_blocks, sums,
                     finisher);
      }
    }
  }
}

// One thread's way through chunks of rows.
template <typename Epilogue>
class ChunkConvolver {
 public:
  ChunkConvolver(const Convolution& c, const Epilogue& epilogue)
      : c_(c),
        epilogue_(epilogue),
        strip_rows_(std::max(1, kStripPixels / c.width)),
        input_(c),
        waiting_(std::size_t(strip_rows_) * (c.width / 2 + 2)),
        moments_(c.out_channel_blocks) {}

  // Convolves a chunk of rows of a block of images to output channel blocks [first, last).
  void run(int block, int chunk, int first_channels, int last_channels) {
    const int end = std::min(c_.height, (chunk + 1) * c_.chunk_rows);
    input_.restart(block);
    for (int k = first_channels; k < last_channels; ++k) moments_[k] = Moments();
    for (int row = chunk * c_.chunk_rows; row < end; row += input_.output_rows()) {
      const int window_end = std::min(end, row + input_.output_rows());
      input_.prepare(row, window_end);
      for (int k = first_channels; k < last_channels; ++k) {
        Finisher<Epilogue> finisher(epilogue_, moments_[k]);
        for (int first = row; first < window_end; first += strip_rows_) {
          const int last = std::min(window_end, first + strip_rows_);
          convolve_strip(c_, input_, block, k, first, last, waiting_, finisher);
        }
        finisher.advance(kImages);
      }
    }
    if (!c_.sums) return;
    for (int k = first_channels; k < last_channels; ++k) write_sums(block, chunk, k);
  }

 private:
  void write_sums(int block, int chunk, int channel_block) const {
    const int channels = kChannels * c_.out_channel_blocks;
    const std::int64_t plane = std::int64_t(chunk) * c_.num_blocks + block;
    float* sums = c_.sums + plane * 2 * kImages * channels + channel_block * kChannels;
    const Moments& moments = moments_[channel_block];
    for (int i = 0; i < kImages; ++i) {
      store(sums + i * channels, load(moments.first + i * kChannels));
      store(sums + (kImages + i) * channels, load(moments.second + i * kChannels));
    }
  }

  const Convolution& c_;
  const Epilogue& epilogue_;
  const int strip_rows_;
  InputRows input_;
  std::vector<Accumulators> waiting_;
  std::vector<Moments> moments_;
};

// Chunks are shared out, and their output channels too where there are too few of them. Each
// chunk's sums are its own, so who computes which changes no bit.
template <typename Epilogue>
void convolve(const Convolution& c, const Epilogue& epilogue) {
  const int num_chunks = (c.height + c.chunk_rows - 1) / c.chunk_rows;
  const int num_items = c.num_blocks * num_chunks;
  const int wanted = (omp_get_max_threads() + num_items - 1) / num_items;
  const int num_groups = std::min(wanted, c.out_channel_blocks);
#pragma omp parallel
  {
    TileRegisters registers;
    ChunkConvolver<Epilogue> convolver(c, epilogue);
#pragma omp for collapse(3) schedule(dynamic)
    for (int block = 0; block < c.num_blocks; ++block) {
      for (int chunk = 0; chunk < num_chunks; ++chunk) {
        for (int group = 0; group < num_groups; ++group) {
          convolver.run(block, chunk, group * c.out_channel_blocks / num_groups,
                        (group + 1) * c.out_channel_blocks / num_groups);
        }
      }
    }
  }
}

}  // namespace

void convolve_maps(const Convolution& convolution) {
  convolve(convolution, ForwardEpilogue(convolution));
}

void convolve_gradient(const Convolution& convolution, const ActivationGradient& gradient) {
  convolve(convolution, GradientEpilogue(convolution, gradient));
}
