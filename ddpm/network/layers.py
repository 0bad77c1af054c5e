"""Group normalisation with SiLU, and attention, in the form that is fast where they run.

On a CPU, torch's own group norm is 5 to 20 times slower in channels_last than these few passes,
and the backward pass of its bfloat16 attention is 3 to 7 times slower than two matrix products.
Compiled for a CPU, it becomes loops over the few channels of a group that are not vectorised, and
for a GPU it is computed in the other layout; the form taken there has neither. On a GPU that
compiles nothing torch's own operators are taken.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# Up to this many pixels the scores of all pairs fit in memory while gradients are kept.
_MAX_PIXELS_OF_EXPLICIT_ATTENTION = 1024
# Where a batch has more values than the two bounds below, so many are normalised at a time: 4 MB in
# float32. The forward pass gains later: it has fewer passes, and joining the parts is one more.
_VALUES_AT_ONCE = 2**20
_MAX_VALUES_FORWARDS, _MAX_VALUES_BACKWARDS = 2**22, 2**20


def group_norm_silu(x: Tensor, norm: nn.GroupNorm) -> Tensor:
    """Return SiLU(GroupNorm(x)).

    Args:
        x: (B, C, H, W) float32 or bfloat16.
        norm: Gives the groups, the weight and the bias.

    Returns:
        A tensor like x.
    """
    if _takes_compiled_norm(x):
        return _as_image(F.silu(_normalised(x, norm)), x)
    if _takes_native_norm(x):
        return F.silu(norm(x))
    return _apply(x, norm, activated=True)


def group_norm(x: Tensor, norm: nn.GroupNorm) -> Tensor:
    """Return GroupNorm(x); arguments as for `group_norm_silu`."""
    if _takes_compiled_norm(x):
        return _as_image(_normalised(x, norm), x)
    if _takes_native_norm(x):
        y: Tensor = norm(x)
        return y
    return _apply(x, norm, activated=False)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return softmax(q k^T / sqrt(D)) v.

    Args:
        q: (B, heads, L, D).
        k: Like q.
        v: Like q.

    Returns:
        A tensor like q.
    """
    is_explicit = q.device.type == "cpu" and q.requires_grad
    if not is_explicit or q.shape[2] > _MAX_PIXELS_OF_EXPLICIT_ATTENTION:
        return F.scaled_dot_product_attention(q, k, v)
    scores = (q * q.shape[-1] ** -0.5) @ k.mT
    attended: Tensor = scores.softmax(dim=-1) @ v
    return attended


def _takes_compiled_norm(x: Tensor) -> bool:
    return torch.compiler.is_compiling() and x.dtype != torch.float64


def _takes_native_norm(x: Tensor) -> bool:
    return x.device.type != "cpu" or x.dtype == torch.float64


def _normalised(x: Tensor, norm: nn.GroupNorm) -> Tensor:
    """Return GroupNorm(x) as pixels, (B, H*W, C) float32, in operations that compile well.

    All loops over pixels run along whole rows of channels. One pass gives both moments, so the
    variance loses digits where a channel's mean is hundreds of times its deviation.
    """
    pixels = _as_pixels(x).float()
    num_pixels, channels = pixels.shape[1:]
    group_size = channels // norm.num_groups
    sums = torch.cat([pixels.sum(dim=1), pixels.square().sum(dim=1)])
    group_sums = sums.reshape(-1, norm.num_groups, group_size).sum(dim=2)
    mean, mean_square = (_to_channels(group_sums, group_size) / (num_pixels * group_size)).chunk(2)
    variance = (mean_square - mean.square()).clamp(min=0.0)
    scale = norm.weight.float() * (variance + norm.eps).rsqrt()
    shift = norm.bias.float() - mean * scale
    scale, shift = torch.stack([scale, shift]).unsqueeze(2).unbind()  # (B, 1, C), once an image
    return torch.addcmul(shift, pixels, scale)


def _to_channels(groups: Tensor, group_size: int) -> Tensor:
    """Hand what belongs to each group, (N, G) float32, to its channels: (N, C) float32.

    On a CPU by a small matrix product: the compiler does not merge that into a loop, where it would
    look every channel's group up at every pixel. The product is one of float64, which autocast
    leaves alone: in bfloat16 the variance, a difference of large numbers, would be lost.
    """
    if groups.device.type != "cpu":
        return groups.unsqueeze(2).expand(-1, -1, group_size).flatten(1)
    to_channels = torch.eye(groups.shape[1], dtype=torch.float64)
    return (groups.double() @ to_channels.repeat_interleave(group_size, dim=1)).float()


def _apply(x: Tensor, norm: nn.GroupNorm, activated: bool) -> Tensor:
    y: Tensor = _GroupNorm.apply(  # type: ignore[no-untyped-call]
        x, norm.weight, norm.bias, norm.num_groups, norm.eps, activated
    )
    return y


class _GroupNorm(torch.autograd.Function):
    """x * scale + shift, with all of the normalisation in scale and shift (B, 1, C); or its SiLU.

    Pixels are laid out as (B, H*W, C), which is a view in channels_last. Everything between the
    rounding of the input and that of the output is float32. A few images are taken at a time: what
    lies between two passes then stays in the cache, and its memory is used again.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        num_groups: int,
        eps: float,
        activated: bool,
    ) -> Tensor:
        normalise = partial(
            _normalise,
            weight=weight,
            bias=bias,
            num_groups=num_groups,
            eps=eps,
            activated=activated,
        )
        y, *kept = _of_few_images_each(normalise, _MAX_VALUES_FORWARDS, _as_pixels(x))
        ctx.save_for_backward(x, weight, *kept)
        ctx.num_groups = num_groups
        ctx.activated = activated
        return _as_image(y, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
        x, weight, *kept = ctx.saved_tensors
        normalise_backward = partial(
            _normalise_backward,
            weight=weight,
            num_groups=ctx.num_groups,
            activated=ctx.activated,
        )
        grad_x, grad_weight, grad_bias = _of_few_images_each(
            normalise_backward, _MAX_VALUES_BACKWARDS, _as_pixels(grad_y), _as_pixels(x), *kept
        )
        return (
            _as_image(grad_x, x),
            grad_weight.sum(dim=(0, 1)).to(weight.dtype),
            grad_bias.sum(dim=(0, 1)).to(weight.dtype),
            None,
            None,
            None,
        )


def _of_few_images_each(
    function: Callable[..., tuple[Tensor, ...]], max_values: int, pixels: Tensor, *others: Tensor
) -> tuple[Tensor, ...]:
    """Call a function with a few images of pixels (B, H*W, C), and of the others, at a time.

    Args:
        function: Takes a few images of each tensor.
        max_values: Up to so many values of pixels, all images are taken at once.
        pixels: (B, H*W, C).
        others: Their first dimension is B too.

    Returns:
        What it returned, for all images: tensors whose first dimension is B.
    """
    num_parts = min(math.ceil(pixels.numel() / _VALUES_AT_ONCE), len(pixels))
    if num_parts <= 1 or pixels.numel() <= max_values:
        return function(pixels, *others)
    parts = [tensor.chunk(num_parts) for tensor in (pixels, *others)]
    results = [function(*some) for some in zip(*parts, strict=True)]
    return tuple(torch.cat(column) for column in zip(*results, strict=True))


def _normalise(
    x: Tensor, *, weight: Tensor, bias: Tensor, num_groups: int, eps: float, activated: bool
) -> tuple[Tensor, ...]:
    """Return the result (B, H*W, C) in x's dtype; mean, rstd, scale, shift (B, 1, C) float32."""
    pixels = x.float()
    mean = _group_mean(pixels.mean(dim=1, keepdim=True), num_groups)
    # Sums of squares are taken around the mean, or they would cancel where it is large.
    square = _group_mean((pixels - mean).square_().mean(dim=1, keepdim=True), num_groups)
    rstd = (square + eps).rsqrt()
    scale = weight.float() * rstd
    shift = bias.float() - mean * scale
    y = torch.addcmul(shift, pixels, scale)
    if activated:
        F.silu(y, inplace=True)
    return y.to(x.dtype), mean, rstd, scale, shift


def _normalise_backward(  # noqa: PLR0913  # all that the forward pass knew
    grad_y: Tensor,
    x: Tensor,
    mean: Tensor,
    rstd: Tensor,
    scale: Tensor,
    shift: Tensor,
    *,
    weight: Tensor,
    num_groups: int,
    activated: bool,
) -> tuple[Tensor, ...]:
    """Return the gradient of x, in its dtype; what each image gives to weight and bias, float32."""
    pixels, grad_z = x.float(), grad_y.float()
    z = torch.addcmul(shift, pixels, scale)
    if activated:
        grad_z = torch.ops.aten.silu_backward(grad_z, z)
    sum_z = grad_z.sum(dim=1, keepdim=True)
    sum_zx = torch.mul(grad_z, pixels, out=z).sum(dim=1, keepdim=True)
    sum_zx_hat = (sum_zx - mean * sum_z) * rstd  # of grad_z times the normalised x
    num_pixels = pixels.shape[1]
    mean_z = _group_mean(sum_z * weight, num_groups) / num_pixels
    mean_zx_hat = _group_mean(sum_zx_hat * weight, num_groups) / num_pixels
    # grad_x = rstd * (weight * grad_z - mean_z - x_hat * mean_zx_hat), in two passes.
    slope = -rstd * rstd * mean_zx_hat
    grad_x = torch.addcmul(-rstd * mean_z - slope * mean, pixels, slope, out=z)
    grad_x.addcmul_(grad_z, scale)
    return grad_x.to(x.dtype), sum_zx_hat, sum_z


def _as_pixels(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)


def _as_image(pixels: Tensor, like: Tensor) -> Tensor:
    return pixels.to(like.dtype).transpose(1, 2).reshape(like.shape)


def _group_mean(channels: Tensor, num_groups: int) -> Tensor:
    """Give each channel (B, 1, C) the mean of its group."""
    grouped = channels.reshape(len(channels), 1, num_groups, -1)
    return grouped.mean(dim=3, keepdim=True).expand_as(grouped).flatten(2)
