// What is done to the sums of a convolution on their way to the output.

#pragma once

#include "convolution.h"

// What the sums of two pixels have for an image: of each pixel, 16 images by 2 x 16 channels.
inline Channels image_sums(const Accumulators& sums, int pixel, int i) {
  const auto& halves = sums.values[pixel];
  return {_mm512_load_ps(halves[0] + kWords * i), _mm512_load_ps(halves[1] + kWords * i)};
}

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

  void operator()(const Accumulators& sums, const Place& place, int i, Moments& moments) const {
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
      Channels x = image_sums(sums, p, i) + shift;
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

  void operator()(const Accumulators& sums, const Place& place, int i, Moments& moments) const {
    const std::int64_t plane = std::int64_t(place.block) * c_.out_channel_blocks +
                               place.channel_block;
    bfloat16* output = c_.output + plane * c_.height * c_.width * kTile;
    const bfloat16* inputs = g_.activated.tile(place.block, place.channel_block, 0);
    Channels gradients[2], activated[2];
    for (int p = 0; p < place.num_pixels; ++p) {
      const std::int64_t index = place.pixels[p] * kTile + i * kChannels;
      activated[p] = load(inputs + index);
      gradients[p] = store(output + index, before_activation(image_sums(sums, p, i), activated[p],
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
  Accumulators& next(const Place& place) {
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
  Accumulators sums_;
  Place place_;
  int image_ = kImages;
};
