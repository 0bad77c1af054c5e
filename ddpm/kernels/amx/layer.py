"""A convolution with what lies before and behind it, as one layer with a gradient.

Group norm, SiLU and dropout make its input; bias, timestep embedding and residual are added to its
output, and the sums that the next group norm needs are taken of it. Between two convolutions every
value is read once and written once.
"""

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ddpm.kernels.amx.geometry import ConvolutionKind
from ddpm.kernels.amx.maps import Maps
from ddpm.kernels.amx.plan import Call, Computed, LayerPlan, Parameters
from ddpm.kernels.amx.structs import DropoutStruct
from ddpm.kernels.amx.weights import convolved_weights, packed_weights, weight_layout
from ddpm.network.dropout import Dropout


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
        self.out_channels = module.weight.shape[0]
        self.overwrites_gradient = overwrites_gradient
        self._frozen = self._packed_parameters() if frozen else None
        self._plans: dict[tuple[tuple[int, ...], ...], LayerPlan] = {}

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
        dropout = _dropout(self.dropout)
        if not torch.is_grad_enabled():
            call = Call(values, sums, embedding, residual, dropout, by_image, summed)
            return Convolved(Maps(*self.compute(call)[:2]), inputs)
        y, y_sums, *same_values = _LayerFunction.apply(  # type: ignore[no-untyped-call]
            self,
            dropout,
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

    def compute(self, call: Call, *, keeps_tables: bool = False) -> Computed:
        """Compute what comes out; see `LayerPlan.compute`."""
        parameters = self._frozen or self._convolved_parameters()
        return self.plan(call.values).compute(parameters, call, keeps_tables=keeps_tables)

    def plan(self, values: tuple[Tensor, ...]) -> LayerPlan:
        """Return what calls the kernels for maps of this size, and weights that lie as they do."""
        weight = self.module.weight.detach()
        key = (weight.stride(), *(part.shape for part in values))
        plan = self._plans.get(key)
        if plan is None:
            layout = weight_layout(convolved_weights(self.kind, weight))
            plan = LayerPlan(self.kind, weight, layout, self.norm, self.activated, values)
            self._plans[key] = plan
        return plan

    def own_parameters(self) -> Parameters:
        """Return the parameters as they are now, with the weights of the module itself."""
        return Parameters(self.module.weight.detach(), False, *self._vectors())

    def _convolved_parameters(self) -> Parameters:
        weights = convolved_weights(self.kind, self.module.weight.detach())
        return Parameters(weights, False, *self._vectors())

    def _packed_parameters(self) -> Parameters:
        packed = packed_weights(self.kind, self.module.weight.detach())
        return Parameters(packed, True, *self._vectors())

    def _vectors(self) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return the bias, and the norm's weight and bias, in float32: as they are, or copied."""
        bias = cast(Tensor, self.module.bias).detach().float()
        if self.norm is None:
            return bias, None, None
        return bias, self.norm.weight.detach().float(), self.norm.bias.detach().float()

    def empty_gradient(self) -> Tensor:
        """Return where the gradient of the weight is written."""
        weight = self.module.weight
        return cast(Tensor, weight.grad) if self.overwrites_gradient else torch.empty_like(weight)


class _LayerFunction(torch.autograd.Function):
    """What a `Layer` does; the activated input is computed anew for the gradient, not kept.

    The parameters are read again in the backward pass, and must be the same then.
    """

    @staticmethod
    def forward(  # noqa: PLR0913  # autograd gives each tensor it is handed a gradient
        ctx: Any,
        layer: Layer,
        dropout: DropoutStruct,
        by_image: bool,
        summed: bool,
        weight: Tensor,
        bias: Tensor,  # noqa: ARG004
        embedding: Tensor | None,
        residual: Tensor | None,
        norm_weight: Tensor | None,  # noqa: ARG004
        norm_bias: Tensor | None,  # noqa: ARG004
        *parts: Tensor,
    ) -> tuple[Tensor, ...]:
        if weight.dtype != torch.float32:
            raise TypeError(f"weights of {weight.dtype} have no gradient here: float32 ones have")
        sums, values = parts[: len(parts) // 2], parts[len(parts) // 2 :]
        call = Call(values, sums, embedding, residual, dropout, by_image, summed)
        computed = layer.compute(call, keeps_tables=True)
        ctx.layer, ctx.dropout, ctx.tables = layer, dropout, computed.tables
        ctx.save_for_backward(*values)
        ctx.mark_non_differentiable(computed.sums)
        ctx.set_materialize_grads(False)
        return computed.values, computed.sums, *values

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_y: Tensor, _: None, *others: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        layer, values = ctx.layer, ctx.saved_tensors
        _, _, _, _, weight_wanted, _, embedding_wanted, residual_wanted = ctx.needs_input_grad[:8]
        grad_y = grad_y.contiguous()
        grad_weight = layer.empty_gradient() if weight_wanted else None
        gradients = layer.plan(values).gradients(
            layer.own_parameters(),
            Call(values, (), None, None, ctx.dropout, False, False),
            ctx.tables,
            grad_y,
            others=tuple(None if other is None else other.contiguous() for other in others),
            wants_inputs=any(ctx.needs_input_grad[-len(values) :]),
            grad_weight=grad_weight,
        )
        return (
            *(None,) * 4,
            None if layer.overwrites_gradient else grad_weight,
            gradients.bias[: layer.out_channels],
            gradients.embedding if embedding_wanted else None,
            grad_y if residual_wanted else None,
            gradients.norm_weight,
            gradients.norm_bias,
            *(None for _ in values),
            *gradients.parts,
        )


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
