"""A convolution with what lies before and behind it, as one layer with a gradient.

Group norm, SiLU and dropout make its input; bias, timestep embedding and residual are added to its
output, and the sums that the next group norm needs are taken of it. Between two convolutions every
value is read once and written once.
"""

from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ddpm.amx.convolution import convolve, convolve_gradient
from ddpm.amx.geometry import ConvolutionKind, forward_geometry, gradient_geometry, output_size
from ddpm.amx.maps import CHANNELS, Maps
from ddpm.amx.normalisation import GroupNorm, Normalised, image_sums, norm_gradient, normalise
from ddpm.amx.structs import ActivationStruct, DropoutStruct
from ddpm.amx.weights import packed_weights, transposed_weights, weight_gradient
from ddpm.dropout import Dropout


class Convolved(NamedTuple):
    """What a layer gave, and what it was given, for whatever else takes that.

    The gradient of other uses of `inputs` then comes back through the layer, which adds it to its
    own while it writes that. Left to autograd it would be three more ways through memory.
    """

    output: Maps
    inputs: tuple[Maps, ...]


class Layer:
    """A convolution of a model and its surroundings.

    Args:
        kind: Of convolution.
        module: Has its weight and bias; a linear layer is a "point".
        norm: What its input is normalised by, if anything.
        activated: Whether SiLU follows the group norm.
        dropout: What follows them, if anything.
        frozen: The weights never change, so they are packed once.
        overwrites_gradient: A backward pass writes the gradient of the weights over what their
            `grad` holds, instead of adding it.
    """

    def __init__(
        self,
        kind: ConvolutionKind,
        module: nn.Conv2d | nn.Linear,
        *,
        norm: nn.GroupNorm | None = None,
        activated: bool = True,
        dropout: Dropout | None = None,
        frozen: bool = False,
        overwrites_gradient: bool = False,
    ) -> None:
        self.kind = kind
        self.module = module
        self.norm = norm
        self.activated = activated
        self.dropout = dropout
        self.out_channels, self.in_channels = module.weight.shape[:2]
        self._overwrites_gradient = overwrites_gradient
        self._frozen = self._forward_weights() if frozen else None

    def __call__(
        self,
        *inputs: Maps,
        embedding: Tensor | None = None,
        residual: Tensor | None = None,
        by_image: bool = False,
        summed: bool = True,
    ) -> Convolved:
        """Convolve.

        Args:
            inputs: Maps, or two whose channels follow each other.
            embedding: (images, C_out) float32, added to all pixels of an image.
            residual: Added; like the values that come out.
            by_image: How these are laid out.
            summed: Whether a group norm follows, which needs their sums.
        """
        module, norm = self.module, self.norm
        sums, values = tuple(part.sums for part in inputs), tuple(part.values for part in inputs)
        if not torch.is_grad_enabled():
            computed = self.compute(sums, values, embedding, residual, by_image, summed)
            return Convolved(computed.output, inputs)
        y, y_sums, *same_values = _LayerFunction.apply(  # type: ignore[no-untyped-call]
            self,
            by_image,
            summed,
            module.weight,
            module.bias,
            embedding,
            residual,
            norm.weight if norm else None,
            norm.bias if norm else None,
            *sums,
            *values,
        )
        return Convolved(Maps(y, y_sums), tuple(map(Maps, same_values, sums)))

    def compute(
        self,
        sums: tuple[Tensor, ...],
        values: tuple[Tensor, ...],
        embedding: Tensor | None,
        residual: Tensor | None,
        by_image: bool,
        summed: bool,
    ) -> "_Computed":
        """Return the output and what its gradient needs; arguments as when called."""
        normalised = activation = None
        norm = self.group_norm()
        if norm is not None:
            normalised = normalise(norm, values[0], sums)
            activation = self.activation(normalised)
        weights, bias = self.forward_weights()
        output = convolve(
            values,
            weights,
            forward_geometry(self.kind),
            output_size(self.kind, *values[0].shape[2:4]),
            activation=activation,
            by_image=by_image,
            summed=summed,
            bias=bias,
            embedding=embedding,
            residual=residual,
        )
        return _Computed(Maps(*output), normalised, activation)

    def group_norm(self) -> GroupNorm | None:
        """Return what the input is normalised by; float32 parameters are not copied."""
        if self.norm is None:
            return None
        weight, bias = self.norm.weight.detach().float(), self.norm.bias.detach().float()
        return GroupNorm(self.norm.num_groups, self.norm.eps, weight, bias)

    def forward_weights(self) -> tuple[Tensor, Tensor]:
        """Return the packed weights, and the bias (C_out padded to 32s,) float32."""
        return self._frozen or self._forward_weights()

    def _forward_weights(self) -> tuple[Tensor, Tensor]:
        bias = cast(Tensor, self.module.bias).detach().float()
        bias = F.pad(bias, (0, -len(bias) % CHANNELS))
        return packed_weights(self.kind, self.module.weight.detach()), bias

    def weight_gradient(
        self, values: tuple[Tensor, ...], activation: ActivationStruct | None, grad_y: Tensor
    ) -> Tensor | None:
        """Return the gradient of the weights, or None where it was written over an earlier one."""
        weight = self.module.weight
        if self._overwrites_gradient:
            weight_gradient(self.kind, values, activation, grad_y, cast(Tensor, weight.grad))
            return None
        output = torch.empty_like(weight)
        weight_gradient(self.kind, values, activation, grad_y, output)
        return output

    def activation(self, normalised: Normalised) -> ActivationStruct:
        """Return what happens to the input now; `normalised` has to outlive it."""
        return ActivationStruct(
            scale=normalised.scale.data_ptr(),
            shift=normalised.shift.data_ptr(),
            has_silu=self.activated,
            dropout=_dropout(self.dropout),
        )


class _Computed(NamedTuple):
    """What a layer gave, and what it made of its input; `activation` points into `normalised`."""

    output: Maps
    normalised: Normalised | None
    activation: ActivationStruct | None


class _LayerFunction(torch.autograd.Function):
    """What a `Layer` does; the activated input is computed anew for the gradient, not kept.

    The parameters are read again in the backward pass, and must be the same then.
    """

    @staticmethod
    def forward(
        ctx: Any,
        layer: Layer,
        by_image: bool,
        summed: bool,
        weight: Tensor,
        bias: Tensor,
        embedding: Tensor | None,
        residual: Tensor | None,
        norm_weight: Tensor | None,
        norm_bias: Tensor | None,
        *parts: Tensor,
    ) -> tuple[Tensor, ...]:
        if weight.dtype != torch.float32:
            raise TypeError(f"weights of {weight.dtype} have no gradient here: float32 ones have")
        sums, values = parts[: len(parts) // 2], parts[len(parts) // 2 :]
        computed = layer.compute(sums, values, embedding, residual, by_image, summed)
        y, y_sums = computed.output
        ctx.layer = layer
        ctx.normalised, ctx.activation = computed.normalised, computed.activation
        ctx.save_for_backward(*values)
        ctx.mark_non_differentiable(y_sums)
        ctx.set_materialize_grads(False)
        return y, y_sums, *values

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_y: Tensor, _: None, *others: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        layer, normalised, activation = ctx.layer, ctx.normalised, ctx.activation
        values = ctx.saved_tensors
        grad_y = grad_y.contiguous()
        sums = image_sums(grad_y)
        grad_weight = None
        if ctx.needs_input_grad[3]:
            grad_weight = layer.weight_gradient(values, activation, grad_y)
        grads_x: tuple[Tensor | None, ...] = (None,) * len(values)
        grad_norm_weight = grad_norm_bias = None
        norm = layer.group_norm()
        if norm is not None:
            grad_z, sums_z = convolve_gradient(
                grad_y,
                transposed_weights(layer.module.weight.detach()),
                gradient_geometry(layer.kind),
                values,
                activation,
            )
            grads_x, grad_norm_weight, grad_norm_bias = norm_gradient(
                norm, normalised, values, grad_z, sums_z, others
            )
        elif any(ctx.needs_input_grad[-len(values) :]):
            grads_x = _input_gradient(layer, values, grad_y, others)
        return (
            None,
            None,
            None,
            grad_weight,
            sums.sum(dim=0)[: layer.out_channels],
            sums if ctx.needs_input_grad[5] else None,
            grad_y if ctx.needs_input_grad[6] else None,
            grad_norm_weight,
            grad_norm_bias,
            *(None for _ in values),
            *grads_x,
        )


def _input_gradient(
    layer: Layer, values: tuple[Tensor, ...], grad_y: Tensor, others: tuple[Tensor | None, ...]
) -> tuple[Tensor, ...]:
    """Return the gradients of what is convolved as it comes, those of other uses included."""
    residual = None
    if any(other is not None for other in others):
        residual = torch.cat(
            [_or_zeros(other, part) for other, part in zip(others, values, strict=True)], dim=1
        )
    gradient, _ = convolve(
        (grad_y,),
        transposed_weights(layer.module.weight.detach()),
        gradient_geometry(layer.kind),
        (values[0].shape[2], values[0].shape[3]),
        summed=False,
        residual=residual,
    )
    if len(values) == 1:
        return (gradient,)
    parts = torch.split(gradient, [part.shape[1] for part in values], dim=1)
    return tuple(part.contiguous() for part in parts)


def _or_zeros(tensor: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if tensor is None else tensor.contiguous()


def _dropout(module: Dropout | None) -> DropoutStruct:
    """Return the masks that a dropout layer takes now."""
    if module is None or not module.training or module.probability == 0.0:
        return DropoutStruct()
    first_key, second_key, first_image = module.key.tolist()
    return DropoutStruct(
        key=(first_key, second_key),
        first_image=first_image,
        threshold=module.threshold,
        factor=1.0 / (1.0 - module.probability),
    )
