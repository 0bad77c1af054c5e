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

#include "tiles.h"

namespace {

constexpr int kMaxTaps = 36;
constexpr int kStripPixels = 16;  // a strip has at least so many, if the chunk has
constexpr int kImagesAtOnce = 2;  // that are finished after each tap
constexpr int kStripTaps = 9;     // what stays in the first cache: so many taps of 32 channels
constexpr int kWindowBytes = 1400 << 10;  // of activated rows, about; they stay in the second cache
constexpr int kItemsPerThread = 1;        // at least, so that threads end together
constexpr int kMinWindowRows = 2;         // of the output, that the rows of a window are enough for

}  // namespace

struct Tap {
  std::int32_t row, column;  // of the input pixel, from that of the output's own place
  std::int32_t weights;      // which of the kernel's tiles
};

// Where the taps of an output pixel lie. Pixels (h, w) differ in them by (h % phases, w % phases);
// their own place in the input is (h / phases * stride, w / phases * stride).
struct Geometry {
  std::int32_t phases, stride, num_weights;
  std::int32_t num_taps[4];
  Tap taps[4][kMaxTaps];
};

struct Convolution {
  Maps input;
  const Activation* activation;  // applied to the input before, or null
  const bfloat16* weights;  // [output block][input block][num_weights][2][16][16][2]
  const Geometry* geometry;
  std::int32_t num_blocks, in_height, in_width, height, width, out_channel_blocks;
  std::int32_t chunk_rows;  // rows that are summed up apart
  bfloat16* output;
  std::int32_t output_by_image;  // as in Maps
  float* sums;  // [chunk][block][2][16][channels]: of the output and its square, or null
  // Added to the output, or null: (channels,), (images, channels), and maps like the output.
  const float* bias;
  const float* embedding;
  const bfloat16* residual;
};

// The output is the gradient of what `activation` made of `activated`, and is taken back through
// SiLU and dropout; the second sums are those of its products with `activated`.
struct ActivationGradient {
  Maps activated;
  Activation activation;
};

namespace {

// The sums of two pixels as they come from the registers: of each, 16 images by 2 x 16 channels.
struct PairSums {
  alignas(64) float values[2][2][kAccumulator];

  Channels image(int pixel, int i) const {
    return {_mm512_load_ps(values[pixel][0] + 16 * i), _mm512_load_ps(values[pixel][1] + 16 * i)};
  }
};

// Which pixels of which maps a pair of sums belongs to.
struct Place {
  int block, channel_block;
  std::int64_t pixels[2];
  int num_pixels;  // 1 where a row ends
};

// Sums over pixels of an output, and of its products with what the epilogue pairs it with.
struct Moments {
  alignas(64) float first[kTile] = {};
  alignas(64) float second[kTile] = {};

  void add(int image, const Channels outputs[2], const Channels factors[2], int num_pixels) {
    float* sum = first + image * kChannels;
    float* product = second + image * kChannels;
    Channels sums = load(sum), products = load(product);
    for (int p = 0; p < num_pixels; ++p) {
      sums = sums + outputs[p];
      products = multiply_add(outputs[p], factors[p], products);
    }
    store(sum, sums);
    store(product, products);
  }
};

class ForwardEpilogue {
 public:
  explicit ForwardEpilogue(const Convolution& c) : c_(c) {}

  void operator()(const PairSums& sums, const Place& place, int i, Moments& moments) const {
    const int channel = place.channel_block * kChannels;
    const std::int64_t plane = std::int64_t(place.block) * c_.out_channel_blocks +
                               place.channel_block;
    const int num_pixels = c_.height * c_.width;
    const std::int64_t offset = plane * num_pixels * kTile;
    const std::int64_t pixel_stride = c_.output_by_image ? kChannels : kTile;
    const std::int64_t image_offset =
        std::int64_t(i) * kChannels * (c_.output_by_image ? num_pixels : 1);
    Channels shift = {_mm512_setzero_ps(), _mm512_setzero_ps()}, outputs[2];
    if (c_.bias) shift = load(c_.bias + channel);
    if (c_.embedding) {
      const std::int64_t image = std::int64_t(place.block) * kImages + i;
      shift = shift + load(c_.embedding + image * kChannels * c_.out_channel_blocks + channel);
    }
    for (int p = 0; p < place.num_pixels; ++p) {
      Channels x = sums.image(p, i) + shift;
      if (c_.residual) {
        x = x + load(c_.residual + offset + place.pixels[p] * kTile + i * kChannels);
      }
      const std::int64_t index = offset + place.pixels[p] * pixel_stride + image_offset;
      outputs[p] = store(c_.output + index, x);
    }
    if (c_.sums) moments.add(i, outputs, outputs, place.num_pixels);
  }

 private:
  const Convolution& c_;
};

class GradientEpilogue {
 public:
  GradientEpilogue(const Convolution& c, const ActivationGradient& g) : c_(c), g_(g) {}

  void operator()(const PairSums& sums, const Place& place, int i, Moments& moments) const {
    const std::int64_t plane = std::int64_t(place.block) * c_.out_channel_blocks +
                               place.channel_block;
    bfloat16* output = c_.output + plane * c_.height * c_.width * kTile;
    const bfloat16* inputs = g_.activated.tile(place.block, place.channel_block, 0);
    Channels gradients[2], activated[2];
    for (int p = 0; p < place.num_pixels; ++p) {
      const std::int64_t index = place.pixels[p] * kTile + i * kChannels;
      activated[p] = load(inputs + index);
      gradients[p] = store(output + index, before_activation(sums.image(p, i), activated[p],
                                                             place, place.pixels[p], i));
    }
    moments.add(i, gradients, activated, place.num_pixels);
  }

 private:
  // Takes the gradient of an activated value back to that of x * scale + shift.
  Channels before_activation(Channels gradient, Channels x, const Place& place,
                             std::int64_t pixel, int i) const {
    const Activation& activation = g_.activation;
    const int channel = place.channel_block * kChannels;
    const int num_channels = kChannels * c_.out_channel_blocks;
    const std::int64_t image = std::int64_t(place.block) * kImages + i;
    if (activation.has_silu) {
      const std::int64_t index = image * num_channels + channel;
      gradient = gradient * silu_slope(multiply_add(x, load(activation.scale + index),
                                                    load(activation.shift + index)));
    }
    const Dropout& dropout = activation.dropout;
    if (dropout.factor == 0.0f) return gradient;
    return gradient *
           dropout.factors(image, pixel, c_.height * c_.width, channel, num_channels);
  }

  const Convolution& c_;
  const ActivationGradient& g_;
};

// Takes finished sums through the epilogue, an image at a time between the products of the next
// pairs: what leaves the registers can be read only a while later, and the matrix unit goes on.
template <typename Epilogue>
class Finisher {
 public:
  Finisher(const Epilogue& epilogue, Moments& moments) : epilogue_(epilogue), moments_(moments) {}

  // Returns where the sums of a place are to be stored; those before are finished.
  PairSums& next(const Place& place) {
    advance(kImages);
    place_ = place;
    image_ = 0;
    return sums_;
  }

  void advance(int num_images) {
    for (; num_images > 0 && image_ < kImages; --num_images, ++image_) {
      epilogue_(sums_, place_, image_, moments_);
    }
  }

 private:
  const Epilogue& epilogue_;
  Moments& moments_;
  PairSums sums_;
  Place place_;
  int image_ = kImages;
};

inline void multiply_both(const bfloat16* left, const bfloat16* right, std::int64_t stride,
                          const bfloat16* weights) {
  _tile_loadd(4, left, stride);
  _tile_loadd(6, weights, 64);
  _tile_loadd(7, weights + kTile, 64);
  _tile_loadd(5, right, stride);
  _tile_dpbf16ps(0, 4, 6);
  _tile_dpbf16ps(1, 4, 7);
  _tile_dpbf16ps(2, 5, 6);
  _tile_dpbf16ps(3, 5, 7);
}

inline void multiply_left(const bfloat16* left, std::int64_t stride, const bfloat16* weights) {
  _tile_loadd(4, left, stride);
  _tile_loadd(6, weights, 64);
  _tile_loadd(7, weights + kTile, 64);
  _tile_dpbf16ps(0, 4, 6);
  _tile_dpbf16ps(1, 4, 7);
}

inline void multiply_right(const bfloat16* right, std::int64_t stride, const bfloat16* weights) {
  _tile_loadd(5, right, stride);
  _tile_loadd(6, weights, 64);
  _tile_loadd(7, weights + kTile, 64);
  _tile_dpbf16ps(2, 5, 6);
  _tile_dpbf16ps(3, 5, 7);
}

// The rows of a block of images that are convolved next: as they lie, or activated, in a ring.
class InputRows {
 public:
  // The first and the last input row that an output row needs, borders left out of account.
  static int first_row(const Geometry& g, int h) {
    int row = g.taps[0][0].row;
    for (int phase = 0; phase < g.phases * g.phases; ++phase) {
      for (int t = 0; t < g.num_taps[phase]; ++t) row = std::min(row, g.taps[phase][t].row);
    }
    return h / g.phases * g.stride + row;
  }

  static int last_row(const Geometry& g, int h) {
    int row = g.taps[0][0].row;
    for (int phase = 0; phase < g.phases * g.phases; ++phase) {
      for (int t = 0; t < g.num_taps[phase]; ++t) row = std::max(row, g.taps[phase][t].row);
    }
    return h / g.phases * g.stride + row;
  }

  explicit InputRows(const Convolution& c) : c_(c) {
    const std::int64_t row_bytes =
        std::int64_t(c.in_width) * c.input.num_channel_blocks() * kTile * sizeof(bfloat16);
    const int halo = last_row(*c.geometry, 0) - first_row(*c.geometry, 0);
    const int affordable = int(kWindowBytes / row_bytes) - halo;
    output_rows_ = std::clamp(affordable, kMinWindowRows, c.chunk_rows);
    if (!c.activation) {
      output_rows_ = c.chunk_rows;
      return;
    }
    ring_rows_ = last_row(*c.geometry, output_rows_ - 1) - first_row(*c.geometry, 0) + 1;
    // Where the first row of a window is not its phases' first, one more may be needed.
    ring_rows_ += c.geometry->phases - 1;
    ring_.resize(std::size_t(ring_rows_) * c.in_width * c.input.num_channel_blocks());
  }

  // How many output rows a window is enough for.
  int output_rows() const { return output_rows_; }

  // Begins with another block or other rows.
  void restart(int block) {
    block_ = block;
    next_row_ = -1;
  }

  // Makes ready what output rows [first, last) need.
  void prepare(int first, int last) {
    if (!c_.activation) return;
    int row = std::max(0, first_row(*c_.geometry, first));
    row = std::max(row, next_row_);
    next_row_ = std::min(c_.in_height, last_row(*c_.geometry, last - 1) + 1);
    for (; row < next_row_; ++row) {
      for (int k = 0; k < c_.input.num_channel_blocks(); ++k) {
        Tile* to = &ring_[ring_index(k, row)];
        for (int x = 0; x < c_.in_width; ++x) {
          const std::int64_t pixel = std::int64_t(row) * c_.in_width + x;
          c_.activation->apply(c_.input, block_, k, pixel, to[x].values);
        }
      }
    }
  }

  // As those of Maps: activated rows lie as tiles.
  std::int64_t image_stride() const { return c_.activation ? kChannels : c_.input.image_stride(); }
  std::int64_t pixel_stride() const { return c_.activation ? kTile : c_.input.pixel_stride(); }

  // The tiles of a row in 32 channels.
  const bfloat16* row(int channel_block, int y) const {
    if (!c_.activation) {
      return c_.input.tile(block_, channel_block, std::int64_t(y) * c_.in_width);
    }
    return ring_[ring_index(channel_block, y)].values;
  }

 private:
  struct alignas(64) Tile {
    bfloat16 values[kTile];
  };

  std::size_t ring_index(int channel_block, int y) const {
    return (std::size_t(channel_block) * ring_rows_ + y % ring_rows_) * c_.in_width;
  }

  const Convolution& c_;
  std::vector<Tile> ring_;
  int output_rows_, ring_rows_ = 0, block_ = 0, next_row_ = -1;
};

// Adds what the taps of pixels (h, w) and (h, w + phases) give in 32 input channels.
template <typename Epilogue>
void multiply_taps(const Convolution& c, const InputRows& input, int in_block, int h, int w,
                   const bfloat16* weights, Finisher<Epilogue>& finisher) {
  const Geometry& g = *c.geometry;
  const int phase = h % g.phases * g.phases + w % g.phases;
  const int row = h / g.phases * g.stride, column = w / g.phases * g.stride;
  const bool has_right = w + g.phases < c.width;
  const std::int64_t row_bytes = input.image_stride() * sizeof(bfloat16);
  for (int t = 0; t < g.num_taps[phase]; ++t) {
    const Tap& tap = g.taps[phase][t];
    const int y = row + tap.row, x = column + tap.column;
    if (y < 0 || y >= c.in_height) continue;
    const bfloat16* left = input.row(in_block, y) + x * input.pixel_stride();
    const bfloat16* right = left + g.stride * input.pixel_stride();
    const bfloat16* tap_weights = weights + tap.weights * 2 * kTile;
    const bool has_left_input = x >= 0 && x < c.in_width;
    const bool has_right_input = has_right && x + g.stride >= 0 && x + g.stride < c.in_width;
    if (has_left_input && has_right_input) {
      multiply_both(left, right, row_bytes, tap_weights);
    } else if (has_left_input) {
      multiply_left(left, row_bytes, tap_weights);
    } else if (has_right_input) {
      multiply_right(right, row_bytes, tap_weights);
    }
    finisher.advance(kImagesAtOnce);
  }
}

inline void load_sums(const PairSums& from) {
  _tile_loadd(0, from.values[0][0], 64);
  _tile_loadd(1, from.values[0][1], 64);
  _tile_loadd(2, from.values[1][0], 64);
  _tile_loadd(3, from.values[1][1], 64);
}

inline void zero_sums() {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
}

inline void store_sums(PairSums& to) {
  _tile_stored(0, to.values[0][0], 64);
  _tile_stored(1, to.values[0][1], 64);
  _tile_stored(2, to.values[1][0], 64);
  _tile_stored(3, to.values[1][1], 64);
}

// Convolves rows [first, last) of a block of images to 32 output channels.
template <typename Epilogue>
void convolve_strip(const Convolution& c, const InputRows& input, int block, int out_block,
                    int first, int last, std::vector<PairSums>& waiting,
                    Finisher<Epilogue>& finisher) {
  const Geometry& g = *c.geometry;
  const int num_in_blocks = c.input.num_channel_blocks();
  const std::int64_t kernel = std::int64_t(g.num_weights) * 2 * kTile;
  const int together = std::max(1, kStripTaps / g.num_taps[0]);
  for (int in_block = 0; in_block < num_in_blocks; in_block += together) {
    const int in_end = std::min(num_in_blocks, in_block + together);
    const bfloat16* weights =
        c.weights + (std::int64_t(out_block) * num_in_blocks + in_block) * kernel;
    PairSums* sums = waiting.data();
    for (int h = first; h < last; ++h) {
      for (int phase = 0; phase < g.phases; ++phase) {
        for (int w = phase; w < c.width; w += 2 * g.phases, ++sums) {
          if (in_block == 0) {
            zero_sums();
          } else {
            load_sums(*sums);
          }
          for (int k = in_block; k < in_end; ++k) {
            multiply_taps(c, input, k, h, w, weights + (k - in_block) * kernel, finisher);
          }
          if (in_end < num_in_blocks) {
            store_sums(*sums);
            continue;
          }
          const std::int64_t pixel = std::int64_t(h) * c.width + w;
          const int num_pixels = w + g.phases < c.width ? 2 : 1;
          store_sums(finisher.next({block, out_block, {pixel, pixel + g.phases}, num_pixels}));
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
  std::vector<PairSums> waiting_;
  std::vector<Moments> moments_;
};

// Chunks are shared out, and their output channels too where there are too few of them. Each
// chunk's sums are its own, so who computes which changes no bit.
template <typename Epilogue>
void convolve(const Convolution& c, const Epilogue& epilogue) {
  const int num_chunks = (c.height + c.chunk_rows - 1) / c.chunk_rows;
  const int num_items = c.num_blocks * num_chunks;
  const int wanted = (kItemsPerThread * omp_get_max_threads() + num_items - 1) / num_items;
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

extern "C" void convolve_maps(const Convolution* convolution) {
  convolve(*convolution, ForwardEpilogue(*convolution));
}

extern "C" void convolve_gradient(const Convolution* convolution,
                                  const ActivationGradient* gradient) {
  convolve(*convolution, GradientEpilogue(*convolution, *gradient));
}
