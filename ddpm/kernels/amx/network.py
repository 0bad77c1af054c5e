"""The U-Net on tiles: the modules of `ddpm.network.unet`, computed by this package's kernels."""

from collections.abc import Iterable
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm.config import DiffusionConfig, NetworkConfig, UNetConfig
from ddpm.kernels.amx.attention import attend
from ddpm.kernels.amx.geometry import ConvolutionKind
from ddpm.kernels.amx.layer import Layer
from ddpm.kernels.amx.maps import (
    CHANNELS,
    IMAGES,
    Maps,
    images_of_tiles,
    num_blocks,
    tiles_of_images,
)
from ddpm.kernels.amx.program import Program
from ddpm.network.blocks import ResidualBlock, SelfAttention
from ddpm.network.dropout import Dropout
from ddpm.network.unet import UNet

# Of the images of a batch, blocks of 16 may have a half more than there are.
_MAX_FILL = 1.5


def fits_tiles(config: NetworkConfig, batch_size: int) -> bool:
    """Tell whether a network and a batch fill tiles well enough for them to pay."""
    filled = num_blocks(batch_size) * IMAGES
    if not isinstance(config, UNetConfig) or config.family != "ddpm":
        return False
    return config.channels % CHANNELS == 0 and 0 < filled <= _MAX_FILL * batch_size


def tiles_obstacle(
    diffusion: DiffusionConfig, *, num_passes: int = 1, is_recomputed: bool = False
) -> str:
    """Return why a network for this diffusion is not computed on tiles; "" if it is.

    Args:
        diffusion: What its output stands for.
        num_passes: Passes that a step of its training has.
        is_recomputed: Whether these keep no activations for the gradient.
    """
    if is_recomputed:
        return "they keep the activations, and activation_checkpointing asks for none"
    if diffusion.variance == "learned":
        return "their output has no place for a learned variance"
    if num_passes > 1:
        return "they write the gradients of one pass a step, and microbatch_size asks for more"
    return ""


_Shifts = dict[ResidualBlock, Tensor]


class _Replay(NamedTuple):
    """A program, and where it finds its input."""

    tiles: Tensor
    shifts: _Shifts
    program: Program


class TiledUNet:
    """A network that is called like the model whose parameters it takes, in bfloat16 on a CPU.

    Args:
        model: Its parameters lie on the CPU; their gradients go to them.
        frozen: It only predicts, in eval mode, and the parameters never change: weights are packed
            once, and all kernels are called at once. Not by two threads at a time.
    """

    def __init__(self, model: UNet, *, frozen: bool = False) -> None:
        self._model = model
        self._frozen = frozen
        self._overwrites_gradients = False
        self._layers: dict[nn.Module, Layer] = {}
        self._blocks = [block for block in model.modules() if isinstance(block, ResidualBlock)]
        self._frozen_projection: tuple[Tensor, Tensor] | None = None
        self._replay: _Replay | None = None
        if frozen:
            with torch.no_grad():
                self._frozen_projection = self._projection()

    def __call__(
        self,
        x_t: Tensor,
        t: Tensor,
        labels: Tensor | None = None,
        augment: Tensor | None = None,
    ) -> Tensor:
        """Return the network's output.

        Args:
            x_t: (B, C, H, W) float32.
            t: (B,) int64.
            labels: (B,) int64, of a network that has some; None means no class.
            augment: (B, 9) float32, of a network that knows what was done to its images.

        Returns:
            (B, C, H, W) float32.
        """
        model, batch_size = self._model, len(x_t)
        missing = num_blocks(batch_size) * IMAGES - batch_size
        tiles = tiles_of_images(F.pad(x_t, (0, 0, 0, 0, 0, 0, 0, missing)))
        padded = None if labels is None else F.pad(labels, (0, missing))
        told = None if augment is None else F.pad(augment, (0, 0, 0, missing))
        shifts = self._shifts(F.pad(t, (0, missing)), padded, told)
        if self._frozen and not torch.is_grad_enabled():
            output = self._replayed(tiles, shifts)
        else:
            output = self._computed(tiles, _contiguous(shifts))
        return images_of_tiles(output, model.image_shape[0])[:batch_size]

    def _replayed(self, tiles: Tensor, shifts: _Shifts) -> Tensor:
        """Return what `_computed` does, until the next call; all kernels are called at once."""
        replay = self._replay
        if replay is None or replay.tiles.shape != tiles.shape:
            kept = _contiguous(shifts)
            program = Program(lambda: self._computed(tiles, kept))
            replay = self._replay = _Replay(tiles, kept, program)
        else:
            replay.tiles.copy_(tiles)
            for block, shift in replay.shifts.items():
                shift.copy_(shifts[block])
        replay.program.run()
        return replay.program.output

    def _computed(self, tiles: Tensor, shifts: _Shifts) -> Tensor:
        """Return the output's maps."""
        model = self._model
        x = self._layer("same", model.conv_in)(Maps(tiles, tiles.new_empty(0))).output
        skips = [x]
        down: Iterable[Any] = model.down  # of levels, whose parts are modules
        up: Iterable[Any] = model.up
        for level in down:
            for stage in level.stages:
                x = self._stage(stage, shifts, x)
                skips.append(x)
            if level.downsample is not None:
                x, (skips[-1],) = self._layer("down", level.downsample.conv)(x)
                skips.append(x)
        x = self._stage(model.middle1, shifts, x)
        x = self._stage(model.middle2, shifts, x)
        for level in up:
            for stage in level.stages:
                x = self._stage(stage, shifts, x, skips.pop())
            if level.upsample is not None:
                x = self._layer("up", level.upsample.conv)(x).output
        last = self._layer("same", model.conv_out, norm=model.norm_out)(x, summed=False)
        return last.output.values

    def overwrite_gradients(self) -> set[Tensor]:
        """Have backward passes write the gradients of the convolutions' weights over earlier ones.

        Each of them has a `grad` by then, which stays what it is. Set to zero and added to, it
        would be three more ways through memory.

        Returns:
            These weights. The gradients of other parameters are added to earlier ones, as ever.
        """
        self._overwrites_gradients = True
        self._layers.clear()
        self._replay = None
        modules = self._model.modules()
        return {module.weight for module in modules if isinstance(module, nn.Conv2d)}

    def _layer(
        self,
        kind: ConvolutionKind,
        module: nn.Module,
        *,
        norm: nn.GroupNorm | None = None,
        activated: bool = True,
        dropout: Dropout | None = None,
    ) -> Layer:
        """Return a module's layer, made when it is first asked for."""
        layer = self._layers.get(module)
        if layer is None:
            layer = Layer(
                kind,
                cast(nn.Conv2d | nn.Linear, module),
                norm=norm,
                activated=activated,
                dropout=dropout,
                frozen=self._frozen,
                overwrites_gradient=self._overwrites_gradients and isinstance(module, nn.Conv2d),
            )
            self._layers[module] = layer
        return layer

    def _shifts(self, t: Tensor, labels: Tensor | None, augment: Tensor | None) -> _Shifts:
        """Return what each residual block adds to its pixels: views, (images, C) float32 each."""
        embedding = self._model.embed(t, labels, augment)
        shifts = F.linear(embedding, *(self._frozen_projection or self._projection())).float()
        sizes = [block.embedding.out_features for block in self._blocks]
        parts = torch.split(shifts, sizes, dim=1)
        return dict(zip(self._blocks, parts, strict=True))

    def _projection(self) -> tuple[Tensor, Tensor]:
        """Return the weights and biases of all blocks' projections as those of one layer."""
        projections = [block.embedding for block in self._blocks]
        weights = torch.cat([projection.weight for projection in projections])
        return weights, torch.cat([projection.bias for projection in projections])

    def _stage(self, stage: nn.Module, shifts: _Shifts, *inputs: Maps) -> Maps:
        x = self._block(cast(ResidualBlock, stage.block), shifts, inputs)
        if stage.attention is not None:
            x = self._attention(cast(SelfAttention, stage.attention), x)
        return x

    def _block(self, block: ResidualBlock, shifts: _Shifts, inputs: tuple[Maps, ...]) -> Maps:
        first = self._layer("same", block.conv1, norm=block.norm1)
        h, inputs = first(*inputs, embedding=shifts[block])
        shortcut = inputs[0]
        if not isinstance(block.shortcut, nn.Identity):
            shortcut = self._layer("point", block.shortcut)(*inputs, summed=False).output
        second = self._layer("same", block.conv2, norm=block.norm2, dropout=block.dropout)
        return second(h, residual=shortcut.values).output

    def _attention(self, module: SelfAttention, x: Maps) -> Maps:
        layer = self._layer("point", module.qkv, norm=module.norm, activated=False)
        qkv, (x,) = layer(x, by_image=True, summed=False)
        tiles = attend(qkv.values, module.num_heads)
        project = self._layer("point", module.projection)
        return project(Maps(tiles, tiles.new_empty(0)), residual=x.values).output


def _contiguous(shifts: _Shifts) -> _Shifts:
    return {block: shift.contiguous() for block, shift in shifts.items()}
