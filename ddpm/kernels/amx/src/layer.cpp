// A convolution with what lies before and behind it, and its gradient.

#include "convolution.h"
#include "normalisation.h"
#include "room.h"
#include "sizes.h"
#include "weight_gradient.h"

struct Layer {
  Maps input;
  PartSums input_sums[2];  // of its parts, for the norm
  Sizes sizes;
  std::int32_t chunk_rows;  // of the output, that are summed up apart
  // The group norm, or null weights; SiLU and dropout, which come only after one.
  std::int32_t num_groups;
  float epsilon;
  const float *norm_weight, *norm_bias;  // (channels,)
  std::int32_t has_silu;
  Dropout dropout;
  float* tables;  // (4, images, channels): what it is, as in Normalised; or null, if nobody asks
  // What is convolved with, as it is or packed: one of them is null.
  const float* weights;
  const bfloat16* packed;
  WeightLayout layout;
  const Geometry* geometry;
  // Added to the output: (channels,), and null or (images, channels), maps like the output.
  const float* bias;
  const float* embedding;
  const bfloat16* residual;
  bfloat16* output;
  std::int32_t output_by_image;
  float* output_sums;  // [chunk][block][2][16][channels], or null

  Norm norm() const {
    return {sizes.num_blocks, sizes.in_pixels(), num_groups, epsilon, norm_weight, norm_bias};
  }
  std::int64_t table_size() const {
    return std::int64_t(sizes.num_images()) * input.num_channels();
  }
  Normalised normalised() const {
    const std::int64_t size = table_size();
    return {tables, tables + size, tables + 2 * size, tables + 3 * size};
  }
  // What happens to the input, if there is a norm.
  Activation activation() const {
    if (!norm_weight) return {};
    const Normalised known = normalised();
    return {known.scale, known.shift, has_silu, dropout};
  }
};

struct LayerGradient {
  Layer layer;           // as it was computed
  const float* weights;  // of the kernel itself; what was convolved with may be sums of these
  WeightLayout layout;
  const Geometry* geometry;          // of the gradient of the input
  const bfloat16* grad_output;       // as tiles
  const bfloat16* other_gradients[2];  // of the input's parts, added to theirs; or null
  // As in WeightGradient.
  std::int32_t num_planes, doubled, stride, kernel_size;
  const GradientTap* taps;
  // What is written. The gradients of inputs and weights may be null, if they are not wanted.
  bfloat16* grad_inputs[2];
  float* grad_weights;
  WeightLayout grad_layout;
  float* grad_embedding;                    // (images, channels of the output)
  float* grad_bias;                         // (channels of the output,)
  float *grad_norm_weight, *grad_norm_bias;  // (channels,), if there is a norm

  std::int32_t out_blocks() const { return layout.out_blocks(); }
};

EXPORT_SIZE(Layer)
EXPORT_SIZE(LayerGradient)

namespace {

const bfloat16* packed(const float* weights, const WeightLayout& layout) {
  static thread_local Room room;
  bfloat16* to = room.of<bfloat16>(layout.packed_size());
  pack_weights(weights, &layout, to);
  return to;
}

// The bias with zeros for the channels that a last block lacks.
const float* padded_bias(const Layer& layer) {
  static thread_local std::vector<float> bias;
  bias.assign(layer.layout.out_blocks() * kChannels, 0.0f);
  std::copy(layer.bias, layer.bias + layer.layout.num_out, bias.begin());
  return bias.data();
}

// (channels,) sums of what images have, (images, channels).
void sum_images(const float* values, int num_images, int num_channels, float* sums) {
  std::fill(sums, sums + num_channels, 0.0f);
  for (int image = 0; image < num_images; ++image, values += num_channels) {
    for (int channel = 0; channel < num_channels; ++channel) sums[channel] += values[channel];
  }
}

void take_weight_gradient(const LayerGradient& g) {
  static thread_local Room gradient_room, input_room;
  const Layer& layer = g.layer;
  const Activation activation = layer.activation();
  WeightGradient gradient = {layer.sizes};
  gradient.input = layer.input;
  gradient.activation = layer.norm_weight ? &activation : nullptr;
  gradient.gradient = g.grad_output;
  gradient.gradient_blocks = g.out_blocks();
  gradient.num_planes = g.num_planes;
  gradient.doubled = g.doubled;
  gradient.stride = g.stride;
  gradient.kernel_size = g.kernel_size;
  gradient.taps = g.taps;
  gradient.layout = g.grad_layout;
  gradient.weights = g.grad_weights;
  gradient.gradient_scratch = gradient_room.of<bfloat16>(gradient.gradient_scratch_size());
  gradient.input_scratch = input_room.of<bfloat16>(gradient.input_scratch_size());
  compute_weight_gradient(gradient);
}

// The gradient of what is convolved, as a convolution that lacks its output.
Convolution input_gradient(const LayerGradient& g, const bfloat16* weights) {
  const Layer& layer = g.layer;
  const Sizes& s = layer.sizes;
  Convolution c = {{s.num_blocks, s.height, s.width, s.in_height, s.in_width}};
  c.input = {{g.grad_output, nullptr}, {g.out_blocks(), 0}, s.out_pixels()};
  c.weights = weights;
  c.geometry = g.geometry;
  c.out_channel_blocks = layer.input.num_channel_blocks();
  c.chunk_rows = layer.chunk_rows;
  return c;
}

// Takes the gradient back through the convolution, dropout, SiLU and the group norm.
void take_activated_gradient(const LayerGradient& g, const bfloat16* weights) {
  static thread_local Room gradient_room, sums_room, tables_room;
  const Layer& layer = g.layer;
  const std::int64_t size = layer.table_size();
  const int num_channels = layer.input.num_channels();
  const int num_chunks = (layer.sizes.in_height + layer.chunk_rows - 1) / layer.chunk_rows;
  Convolution c = input_gradient(g, weights);
  c.output = gradient_room.of<bfloat16>(size * layer.sizes.in_pixels());
  c.sums = sums_room.of<float>(num_chunks * 2 * size);
  convolve_gradient(c, {layer.input, layer.activation()});
  float* tables = tables_room.of<float>(4 * size);
  const NormGradient gradient = {tables, tables + size, tables + 2 * size, tables + 3 * size};
  const PartSums sums = {c.sums, num_chunks, num_channels};
  compute_norm_gradient(layer.norm(), sums, layer.normalised(), gradient);
  apply_norm_gradient(layer.input, c.output, layer.normalised().scale, gradient,
                      layer.sizes.num_blocks, g.other_gradients, g.grad_inputs);
  sum_images(gradient.weight, layer.sizes.num_images(), num_channels, g.grad_norm_weight);
  sum_images(gradient.bias, layer.sizes.num_images(), num_channels, g.grad_norm_bias);
}

// Takes the gradient back to what is convolved as it comes, a part after another.
void take_plain_gradient(const LayerGradient& g, const bfloat16* weights) {
  Convolution c = input_gradient(g, weights);
  const Maps& input = g.layer.input;
  const std::int64_t block_size =
      std::int64_t(g.out_blocks()) * g.layout.num_taps * 2 * kTile;
  for (int part = 0; part < 2; ++part) {
    c.out_channel_blocks = input.channel_blocks[part];
    c.output = g.grad_inputs[part];
    c.residual = g.other_gradients[part];
    if (c.out_channel_blocks > 0) convolve_maps(c);
    c.weights += c.out_channel_blocks * block_size;
  }
}

}  // namespace

extern "C" void compute_layer(const Layer* layer) {
  static thread_local Room tables_room;
  Layer l = *layer;
  if (!l.tables) l.tables = tables_room.of<float>(4 * l.table_size());
  const Activation activation = l.activation();
  if (l.norm_weight) compute_norm(l.norm(), l.input_sums, l.normalised());
  Convolution c = {l.sizes};
  c.input = l.input;
  c.activation = l.norm_weight ? &activation : nullptr;
  c.weights = l.packed ? l.packed : packed(l.weights, l.layout);
  c.geometry = l.geometry;
  c.out_channel_blocks = l.layout.out_blocks();
  c.chunk_rows = l.chunk_rows;
  c.output = l.output;
  c.output_by_image = l.output_by_image;
  c.sums = l.output_sums;
  c.bias = padded_bias(l);
  c.embedding = l.embedding;
  c.residual = l.residual;
  convolve_maps(c);
}

extern "C" void compute_layer_gradient(const LayerGradient* gradient) {
  const LayerGradient& g = *gradient;
  const Layer& layer = g.layer;
  sum_maps(g.grad_output, layer.sizes.num_blocks, layer.sizes.out_pixels(), g.out_blocks(),
           g.grad_embedding);
  sum_images(g.grad_embedding, layer.sizes.num_images(), g.out_blocks() * kChannels,
             g.grad_bias);
  if (g.grad_weights) take_weight_gradient(g);
  if (!g.grad_inputs[0]) return;
  const bfloat16* weights = packed(g.weights, g.layout.transposed());
  if (layer.norm_weight) {
    take_activated_gradient(g, weights);
  } else {
    take_plain_gradient(g, weights);
  }
}
