#include "normalisation.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace {

// The two sums of each channel of an image, over all chunks.
class ImageSums {
 public:
  explicit ImageSums(int num_channels) : first(num_channels), second(num_channels) {}

  void read(const PartSums parts[2], const Norm& norm, int image) {
    std::fill(first.begin(), first.end(), 0.0);
    std::fill(second.begin(), second.end(), 0.0);
    for (int part = 0, channel = 0; part < 2; channel += parts[part++].num_channels) {
      const int num_channels = parts[part].num_channels;
      const std::int64_t plane = std::int64_t(kImages) * num_channels;
      const float* from = parts[part].sums + (image / kImages) * 2 * plane +
                          (image % kImages) * num_channels;
      for (int chunk = 0; chunk < parts[part].num_chunks; ++chunk) {
        for (int c = 0; c < num_channels; ++c) first[channel + c] += from[c];
        for (int c = 0; c < num_channels; ++c) second[channel + c] += from[plane + c];
        from += norm.num_blocks * 2 * plane;
      }
    }
  }

  std::vector<double> first, second;
};

// Where a group of an image begins in tables of (images, channels), and what belongs to it.
struct Group {
  std::int64_t row;  // of the image
  int first, end;    // channels
  double count;      // of values
};

// Calls body(sums of the image, group) for each group of each image.
template <typename Body>
void for_each_group(const Norm& norm, const PartSums parts[2], Body body) {
  const int num_channels = parts[0].num_channels + parts[1].num_channels;
  const int group_size = num_channels / norm.num_groups;
  const double count = double(norm.num_pixels) * group_size;
#pragma omp parallel
  {
    ImageSums sums(num_channels);
#pragma omp for schedule(static)
    for (int image = 0; image < norm.num_blocks * kImages; ++image) {
      sums.read(parts, norm, image);
      for (int first = 0; first < num_channels; first += group_size) {
        body(sums, Group{std::int64_t(image) * num_channels, first, first + group_size, count});
      }
    }
  }
}

}  // namespace

void compute_norm(const Norm& norm, const PartSums parts[2], const Normalised& to) {
  for_each_group(norm, parts, [&](const ImageSums& sums, const Group& group) {
    double sum = 0.0, squares = 0.0;
    for (int channel = group.first; channel < group.end; ++channel) {
      sum += sums.first[channel];
      squares += sums.second[channel];
    }
    const double mean = sum / group.count;
    const double variance = squares / group.count - mean * mean;
    // What has overflown is no number: with a finite result nobody would see it.
    const double spread = std::isfinite(variance) ? std::max(variance, 0.0) : NAN;
    const double inverse = 1.0 / std::sqrt(spread + norm.epsilon);
    for (int channel = group.first; channel < group.end; ++channel) {
      const std::int64_t place = group.row + channel;
      to.means[place] = float(mean);
      to.inverse_deviations[place] = float(inverse);
      to.scale[place] = float(inverse * norm.weight[channel]);
      to.shift[place] = float(norm.bias[channel] - mean * inverse * norm.weight[channel]);
    }
  });
}

void compute_norm_gradient(const Norm& norm, const PartSums& sums, const Normalised& normalised,
                           const NormGradient& to) {
  const PartSums parts[2] = {sums, {nullptr, 0, 0}};
  for_each_group(norm, parts, [&](const ImageSums& image_sums, const Group& group) {
    const double mean = normalised.means[group.row + group.first];
    const double inverse = normalised.inverse_deviations[group.row + group.first];
    double sum = 0.0, products = 0.0;  // of weight dz, and with the normalised x
    for (int channel = group.first; channel < group.end; ++channel) {
      const double channel_sum = image_sums.first[channel];
      const double product = (image_sums.second[channel] - mean * channel_sum) * inverse;
      to.weight[group.row + channel] = float(product);
      to.bias[group.row + channel] = float(channel_sum);
      sum += norm.weight[channel] * channel_sum;
      products += norm.weight[channel] * product;
    }
    const double slope = -inverse * inverse * products / group.count;
    const double offset = -inverse * sum / group.count - slope * mean;
    for (int channel = group.first; channel < group.end; ++channel) {
      to.slopes[group.row + channel] = float(slope);
      to.offsets[group.row + channel] = float(offset);
    }
  });
}

void apply_norm_gradient(const Maps& maps, const bfloat16* gradient, const float* scale,
                         const NormGradient& coefficients, int num_blocks,
                         const bfloat16* const others[2], bfloat16* const outputs[2]) {
  const int num_channel_blocks = maps.num_channel_blocks(), num_channels = maps.num_channels();
  const int num_pixels = maps.num_pixels;
#pragma omp parallel for collapse(3) schedule(dynamic, 32)
  for (int block = 0; block < num_blocks; ++block) {
    for (int k = 0; k < num_channel_blocks; ++k) {
      for (int pixel = 0; pixel < num_pixels; ++pixel) {
        const int part = maps.part(k);
        const std::int64_t place = maps.place(block, k, pixel);
        const bfloat16* x = maps.parts[part] + place;
        const bfloat16* other = others[part] ? others[part] + place : nullptr;
        const bfloat16* dz = gradient + ((std::int64_t(block) * num_channel_blocks + k) *
                                             num_pixels + pixel) * kTile;
        for (int i = 0; i < kTile; i += kChannels) {
          const std::int64_t image = std::int64_t(block) * kImages + i / kChannels;
          const std::int64_t index = image * num_channels + k * kChannels;
          Channels line = multiply_add(load(x + i), load(coefficients.slopes + index),
                                       load(coefficients.offsets + index));
          if (other) line = line + load(other + i);
          store(outputs[part] + place + i, multiply_add(load(dz + i), load(scale + index), line));
        }
      }
    }
  }
}

void sum_maps(const bfloat16* maps, int num_blocks, int num_pixels, int num_channel_blocks,
              float* sums) {
  const int num_channels = kChannels * num_channel_blocks;
#pragma omp parallel for collapse(2) schedule(dynamic)
  for (int block = 0; block < num_blocks; ++block) {
    for (int k = 0; k < num_channel_blocks; ++k) {
      alignas(64) float image_sums[kTile] = {};
      const bfloat16* tile =
          maps + (std::int64_t(block) * num_channel_blocks + k) * num_pixels * kTile;
      for (int pixel = 0; pixel < num_pixels; ++pixel, tile += kTile) {
        for (int i = 0; i < kTile; i += kChannels) {
          store(image_sums + i, load(image_sums + i) + load(tile + i));
        }
      }
      float* to = sums + std::int64_t(block) * kImages * num_channels + k * kChannels;
      for (int i = 0; i < kImages; ++i) {
        store(to + i * num_channels, load(image_sums + i * kChannels));
      }
    }
  }
}
