// Convolutions of tiles, and the gradient of what they convolve, which is a convolution too.
//
// What a layer does to its input first is done a few rows at a time, just before they are needed, so
// that the activated rows never leave the second cache.
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

// Adds what the taps of pixels (h, w) and (h, w + phases) give in 32 input channels.
template <typename Epilogue>
void multiply_taps(const Convolution& c, const InputRows& input, int in_block, int h, int w,
                   const bfloat16* weights, Finisher<Epilogue>& finisher) {
  const Geometry& g = *c.geometry;
  const int phase = h % g.phases * g.phases + w % g.phases;
  const int row = h / g.phases * g.stride, column = w / g.phases * g.stride;
  const bool has_right = w + g.phases < c.width;
  for (int t = 0; t < g.num_taps[phase]; ++t) {
    const Tap& tap = g.taps[phase][t];
    const int y = row + tap.row, x = column + tap.column;
    if (y < 0 || y >= c.in_height) continue;
    const bfloat16* left = input.row(in_block, y) + x * kTile;
    const bfloat16* right = left + g.stride * kTile;
    const bfloat16* tap_weights = weights + tap.weights * 2 * kTile;
    const bool has_left_input = x >= 0 && x < c.in_width;
    const bool has_right_input = has_right && x + g.stride >= 0 && x + g.stride < c.in_width;
    if (has_left_input && has_right_input) {
      multiply_both(left, right, tap_weights);
    } else if (has_left_input) {
      multiply_left(left, tap_weights);
    } else if (has_right_input) {
      multiply_right(right, tap_weights);
    }
    finisher.advance(kImagesAtOnce);
  }
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
        for (int w = phase; w < c.width; w += 2 * g.phases, ++sums) {
          if (in_block == 0) {
            Accumulators::clear();
          } else {
            sums->load();
          }
          for (int k = in_block; k < in_end; ++k) {
            multiply_taps(c, input, k, h, w, weights + (k - in_block) * kernel, finisher);
          }
          if (in_end < num_in_blocks) {
            sums->store();
            continue;
          }
          const std::int64_t pixel = std::int64_t(h) * c.width + w;
          const int num_pixels = w + g.phases < c.width ? 2 : 1;
          finisher.next({block, out_block, {pixel, pixel + g.phases}, num_pixels}).store();
        }
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
