"""The 3x3 convolution, with a gradient of its weights that is fast where feature maps are small.

AMX multiplies 32 pixels of a row at once, and the gradient of the weights takes its products along
rows: maps of 16, 8 and 4 pixels leave a half to seven eighths of each product empty. There all
maps of the batch are laid side by side, as one map with long rows.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# The longest rows, in pixels, that are laid side by side; longer ones fill the products themselves.
_MAX_WIDTH_LAID_SIDE_BY_SIDE = 16


class Conv2d(nn.Conv2d):
    """A convolution as torch's; its result has the same bits, the gradient of its weights not."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, H', W')."""
        if not self._takes_rows_side_by_side(x):
            return super().forward(x)
        y: Tensor = _SameConvolution.apply(  # type: ignore[no-untyped-call]
            *(tensor.to(torch.bfloat16) for tensor in (x, self.weight, cast(Tensor, self.bias)))
        )
        return y

    def _takes_rows_side_by_side(self, x: Tensor) -> bool:
        """Tell it from what was decided for the whole job, and from shapes: it changes bits."""
        return (
            x.device.type == "cpu"
            and torch.is_grad_enabled()
            and torch.is_autocast_enabled("cpu")
            and torch.get_autocast_dtype("cpu") == torch.bfloat16
            and (self.kernel_size, self.stride, self.padding) == ((3, 3), (1, 1), (1, 1))
            and x.shape[3] <= _MAX_WIDTH_LAID_SIDE_BY_SIDE
        )


class _SameConvolution(torch.autograd.Function):
    """A 3x3 convolution that keeps height and width."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, bias, padding=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = _backward(grad_y, x, weight, wanted=(True, False, False))[0]
        _, grad_weight, grad_bias = _backward(
            _side_by_side(grad_y), _side_by_side(x), weight, wanted=(False, True, True)
        )
        return grad_x, grad_weight, grad_bias


def _backward(
    grad_y: Tensor, x: Tensor, weight: Tensor, *, wanted: tuple[bool, bool, bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return those of the gradients of x, weight and bias that are wanted."""
    one, is_transposed = [1, 1], False
    grads: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        grad_y, x, weight, [len(weight)], one, one, one, is_transposed, [0, 0], 1, wanted
    )
    return grads


def _side_by_side(maps: Tensor) -> Tensor:
    """Lay maps (B, C, H, W) side by side as (1, C, H, B * (W + 1)), a column of zeros after each.

    A kernel of 3x3 then sees of a neighbouring map only its zeros.
    """
    rows = F.pad(maps.permute(2, 0, 3, 1), (0, 0, 0, 1))  # (H, B, W + 1, C)
    return rows.flatten(1, 2).permute(2, 0, 1)[None]
