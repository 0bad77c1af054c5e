"""Dropout whose mask is a hash of the step, the layer and the place of the element in the batch.

torch's own draws from a generator, on a CPU element by element: 14 ns each when compiled, in the
forward pass and again in the backward pass. A hash is integer arithmetic that every processor does
many elements at a time; compiled, it melts into the loops around it. The mask is the same compiled
or not, and on one worker or on several, which count places in the global batch.
"""

import torch
from torch import Tensor, nn

# The finaliser of MurmurHash3 (Appleby), as int32; with a second key between its two rounds, or the
# masks of two steps would be the same sequence shifted.
_FIRST = 0x85EBCA6B - 2**32
_SECOND = 0xC2B2AE35 - 2**32
_INT32_MIN = -(2**31)
_BLOCK = 32_768  # places that are hashed at once where nothing is compiled: they stay in the cache


class Dropout(nn.Module):
    """Sets elements to 0 with some probability, and scales the others so that the mean stays.

    Attributes:
        probability: Of being set to 0, in [0, 1).
        key: (3,) int32: which mask, and where in the global batch the images begin;
            `set_dropout_keys` changes it from step to step.
    """

    key: Tensor

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability
        key = torch.zeros(3, dtype=torch.int32, device="cpu")  # also where weights are "meta"
        self.register_buffer("key", key, persistent=False)

    @property
    def threshold(self) -> int:
        """Elements whose hash, an int32, is below it are dropped."""
        return _INT32_MIN + round(self.probability * 2**32)

    def forward(self, x: Tensor) -> Tensor:
        """Drop elements of x (B, C, H, W), of any floating dtype, while training."""
        if not self.training or self.probability == 0.0:
            return x
        return torch.where(self._kept(x), x * (1.0 / (1.0 - self.probability)), 0.0)

    def _kept(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        size = x.numel()
        places = torch.arange(size, dtype=torch.int32, device=x.device)
        places += self.key[2] * (channels * height * width)
        threshold = self.threshold
        if x.device.type != "cpu" or torch.compiler.is_compiling():
            kept = _hashed(places, self.key) >= threshold
        else:  # block by block, or each of the operations would go through all of memory
            kept = torch.empty(size, dtype=torch.bool)
            for start in range(0, size, _BLOCK):
                block, part = places[start : start + _BLOCK], kept[start : start + _BLOCK]
                torch.ge(_hashed(block, self.key), threshold, out=part)
        # Numbered as they lie in memory in channels_last.
        return kept.view(batch, height, width, channels).permute(0, 3, 1, 2)


def _hashed(places: Tensor, key: Tensor) -> Tensor:
    bits = _folded(places + key[0], 16).mul_(_FIRST).bitwise_xor_(key[1])
    return _folded(_folded(bits, 13).mul_(_SECOND), 16)


def _folded(bits: Tensor, shift: int) -> Tensor:
    """Return bits ^ (bits >> shift), where zeros are shifted in, in the place of `bits`."""
    return bits.bitwise_xor_((bits >> shift).bitwise_and_(2 ** (32 - shift) - 1))


def set_dropout_keys(model: nn.Module, *numbers: int, first_image: int = 0) -> None:
    """Choose the masks that the dropout layers of a model take next; the host waits for no device.

    Args:
        model: Its `Dropout` layers get keys that have nothing in common.
        numbers: What the masks shall depend on, such as seed and step.
        first_image: Position of this worker's first image in the global batch; others follow it.
    """
    layers = [module for module in model.modules() if isinstance(module, Dropout)]
    if not layers:
        return
    mixed = [_mixed(*numbers, layer) for layer in range(len(layers))]
    words = [[m & 0xFFFFFFFF, m >> 32] for m in mixed]
    rows = [[*(word + _INT32_MIN for word in pair), first_image] for pair in words]
    is_on_gpu = layers[0].key.device.type == "cuda"
    keys = torch.tensor(rows, dtype=torch.int32, pin_memory=is_on_gpu)
    for layer, key in zip(layers, keys.to(layers[0].key.device, non_blocking=True), strict=True):
        layer.key.copy_(key)


def seed_generators(*numbers: int) -> None:
    """Seed torch's generators with numbers, such as seed, step and the first image's position.

    For networks whose layers draw from them: what they draw is then a function of these numbers,
    whatever was drawn before.
    """
    torch.manual_seed(_mixed(*numbers))


def _mixed(*numbers: int) -> int:
    """Mix numbers into 64 bits so that neighbours share nothing (SplitMix64's finaliser)."""
    mixed = 0
    for number in numbers:
        mixed = (mixed + number + 0x9E3779B97F4A7C15) % 2**64
        mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB % 2**64
        mixed ^= mixed >> 31
    return mixed
