// Convolutions of tiles, and the gradient of what they convolve, which is a convolution too.
//
// A step multiplies the tiles of two pixels with two tiles of weights: 2 x 2 sums of 16 images by
// 16 channels stay in registers. Weights of 32 output channels and as many input channels as are
// 18 KB, all taps, stay in the first cache while they meet a strip of pixels; the sums of the strip
// wait in the second one meanwhile.

#include <algorithm>
#include <vector>

#include "tiles.h"

namespace {

constexpr int kMaxTaps = 36;
constexpr int kStripPixels = 16;  // a strip has at least so many, if the chunk has
constexpr int kStripTaps = 9;     // what stays in the first cache: so many taps of 32 channels

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
  const bfloat16* weights;  // [output block][input block][num_weights][2][16][16][2]
  const Geometry* geometry;
  std::int32_t num_blocks, in_height, in_width, height, width, out_channel_blocks;
  std::int32_t chunk_rows;  // rows that are summed up apart
  bfloat16* output;
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

  void operator()(const PairSums& sums, const Place& place, Moments& moments) const {
    const int channel = place.channel_block * kChannels;
    const int num_channels = kChannels * c_.out_channel_blocks;
    const std::int64_t plane = std::int64_t(place.block) * c_.out_channel_blocks +
                               place.channel_block;
    const std::int64_t offset = plane * c_.height * c_.width * kTile;
    Channels added = {_mm512_setzero_ps(), _mm512_setzero_ps()};
    if (c_.bias) added = load(c_.bias + channel);
    for (int i = 0; i < kImages; ++i) {
      Channels shift = added, outputs[2];
      if (c_.embedding) {
        const std::int64_t image = std::int64_t(place.block) * kImages + i;
        shift = shift + load(c_.embedding + image * num_channels + channel);
      }
      for (int p = 0; p < place.num_pixels; ++p) {
        const std::int64_t index = offset + place.pixels[p] * kTile + i * kChannels;
        Channels x = sums.image(p, i) + shift;
        if (c_.residual) x = x + load(c_.residual + index);
        outputs[p] = store(c_.output + index, x);
      }
      if (c_.sums) moments.add(i, outputs, outputs, place.num_pixels);
    }
  }

 private:
  const Convolution& c_;
};

class GradientEpilogue {
 public:
  GradientEpilogue(const Convolution& c, const ActivationGradient& g) : c_(c), g_(g) {}

  void operator()(const PairSums& sums, const Place& place, Moments& moments) const {
    const std::int64_t plane = std::int64_t(place.block) * c_.out_channel_blocks +
                               place.channel_block;
    bfloat16* output = c_.output + plane * c_.height * c_.width * kTile;
    const bfloat16* inputs = g_.activated.tile(place.block, place.channel_block, 0);
    for (int i = 0; i < kImages; ++i) {
      Channels gradients[2], activated[2];
      for (int p = 0; p < place.num_pixels; ++p) {
        const std::int64_t index = place.pixels[p] * kTile + i * kChannels;
        activated[p] = load(inputs + index);
        gradients[p] = store(output + index, before_activation(sums.image(p, i), activated[p],
                                                               place, place.pixels[p], i));
      }
      moments.add(i, gradients, activated, place.num_pixels);
    }
  }

 private:
  // Takes the gradient of an activated value back to that of x * scale + shift.
  Channels before_activation(Channels gradient, Channels x, const Place& place,
                             std::int64_t pixel, int i) const {
    const Activation& activation = g_.activation;
    const int channel = place.channel_block * kChannels;
    const int num_channels = kChannels * c_.out_channel_blocks;
    const std::int64_t image = std::int64_t(place.block) * kImages + i;
    if (activation.activated) {
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

inline void multiply_both(const bfloat16* left, const bfloat16* right, const bfloat16* weights) {
  _tile_loadd(4, left, 64);
  _tile_loadd(6, weights, 64);
  _tile_loadd(7, weights + kTile, 64);
  _tile_loadd(5, right, 64);
  _tile_dpbf16ps(0, 4, 6);
  _tile_dpbf16ps(1, 4, 7);
  _tile_dpbf16ps(2, 5, 6);
  _tile_dpbf16ps(3, 5, 7);
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
void multiply_taps(const Convolution& c, const bfloat16* plane, int h, int w,
                   const bfloat16* weights) {
  const Geometry& g = *c.geometry;
  const int phase = h % g.phases * g.phases + w % g.phases;
  const int row = h / g.phases * g.stride, column = w / g.phases * g.stride;
  const bool has_right = w + g.phases < c.width;
  for (int t = 0; t < g.num_taps[phase]; ++t) {
    const Tap& tap = g.taps[phase][t];
    const int y = row + tap.row, x = column + tap.column;
    if (y < 0 || y >= c.in_height) continue;
    const bfloat16* left = plane + (std::int64_t(y) * c.in_width + x) * kTile;
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
void convolve_strip(const Convolution& c, const Epilogue& epilogue, int block, int out_block,
                    int first, int last, std::vector<PairSums>& waiting, Moments& moments) {
  const Geometry& g = *c.geometry;
  const int num_in_blocks = c.input.num_channel_blocks();
  const std::int64_t kernel = std::int64_t(g.num_weights) * 2 * kTile;
  PairSums results;
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
            multiply_taps(c, c.input.tile(block, k, 0), h, w, weights + (k - in_block) * kernel);
          }
          if (in_end < num_in_blocks) {
            store_sums(*sums);
            continue;
          }
          store_sums(results);
          const std::int64_t pixel = std::int64_t(h) * c.width + w;
          const int num_pixels = w + g.phases < c.width ? 2 : 1;
          epilogue(results, {block, out_block, {pixel, pixel + g.phases}, num_pixels}, moments);
        }
      }
    }
  }
}

template <typename Epilogue>
void convolve(const Convolution& c, const Epilogue& epilogue) {
  const int num_chunks = (c.height + c.chunk_rows - 1) / c.chunk_rows;
  const int strip_rows = std::max(1, kStripPixels / c.width);
  const int channels = kChannels * c.out_channel_blocks;
  const std::size_t strip_pairs = std::size_t(strip_rows) * (c.width / 2 + 2);
#pragma omp parallel
  {
    TileRegisters registers;
    std::vector<PairSums> waiting(strip_pairs);
    // Each chunk's sums are its own, so who computes which changes no bit.
#pragma omp for collapse(3) schedule(dynamic)
    for (int block = 0; block < c.num_blocks; ++block) {
      for (int chunk = 0; chunk < num_chunks; ++chunk) {
        for (int out_block = 0; out_block < c.out_channel_blocks; ++out_block) {
          Moments moments;
          const int end = std::min(c.height, (chunk + 1) * c.chunk_rows);
          for (int first = chunk * c.chunk_rows; first < end; first += strip_rows) {
            const int last = std::min(end, first + strip_rows);
            convolve_strip(c, epilogue, block, out_block, first, last, waiting, moments);
          }
          if (!c.sums) continue;
          float* sums = c.sums + (std::int64_t(chunk) * c.num_blocks + block) * 2 * kImages *
                                     channels + out_block * kChannels;
          for (int i = 0; i < kImages; ++i) {
            store(sums + i * channels, load(moments.first + i * kChannels));
            store(sums + (kImages + i) * channels, load(moments.second + i * kChannels));
          }
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
