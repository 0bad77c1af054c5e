"""Noise as a pure function of (seed, image, step): the same on any worker, in any batch.

The generator is Philox4x32-10 (Salmon et al. 2011, "Parallel Random Numbers: As Easy as 1, 2, 3"),
written in integer tensor operations: it turns a key of 64 bits and a counter of 128 bits into four
words of 32 bits, and for one key no two counters give the same block of words. Here

    key      the seed, low word first
    counter  word 0: the stream (8 bits), then the number of the block within the image (24 bits)
             word 1: `minor`, below 2**32: the timestep t, or the position in the global batch
             word 2, word 3: `major`, low word first: the image's index k, or the training step

so (seed, stream, k, t) and the place in the image name each word, and no two names meet.

Normals are made of the words by the Box-Muller transform in float64, then rounded to float32. The
transform is an operator that a compiler does not look into: its logarithm and its sine would be
other ones, now and then a bit apart, than those of eager execution.
"""

import math
from collections.abc import Sequence
from enum import IntEnum

import torch
from torch import Tensor

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_INCREMENTS = (0x9E3779B9, 0xBB67AE85)
_NUM_ROUNDS = 10
_LOW_WORD = 0xFFFFFFFF
_BLOCK_BITS = 24

Words = tuple[Tensor, Tensor, Tensor, Tensor]


class Stream(IntEnum):
    """What a random number is for; numbers of different streams are independent.

    The values are part of what fixes an image: none may change its meaning.
    """

    CHAIN_START = 0
    REVERSE_STEP = 1
    TRAINING_NOISE = 2
    TRAINING_TIMESTEP = 3
    FLIP = 4
    EVALUATION_NOISE = 5
    EVALUATION_TIMESTEP = 6
    LABEL_DROPOUT = 7
    AUGMENTATION = 8
    AUGMENTATION_SIZE = 9


def philox4x32(counter: Words, key: tuple[Tensor, Tensor]) -> Words:
    """Encrypt a counter of four 32-bit words: Philox4x32 with ten rounds (Salmon et al. 2011).

    Args:
        counter: Four int64 tensors that broadcast together, each in [0, 2**32).
        key: Two int64 tensors without dimensions, each in [0, 2**32).

    Returns:
        Four int64 tensors of the broadcast shape, each in [0, 2**32).
    """
    c0, c1, c2, c3 = counter
    rounds = torch.arange(_NUM_ROUNDS, device=c0.device)
    keys0, keys1 = (
        (rounds * increment).add_(word).bitwise_and_(_LOW_WORD).unbind(0)
        for word, increment in zip(key, _KEY_INCREMENTS, strict=True)
    )
    for k0, k1 in zip(keys0, keys1, strict=True):
        # The low word of each product is wanted, but its high bits are harmless where it goes:
        # it is only XORed into a word that is masked afterwards.
        product0, product1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0 = ((product1 >> 32) ^ c1).bitwise_xor_(k0).bitwise_and_(_LOW_WORD)
        c2 = ((product0 >> 32) ^ c3).bitwise_xor_(k1).bitwise_and_(_LOW_WORD)
        c1, c3 = product1, product0
    return c0, c1 & _LOW_WORD, c2, c3 & _LOW_WORD


def random_words(
    seed: int, stream: Stream, major: int | Tensor, minor: int | Tensor, num_blocks: int
) -> Words:
    """Return the random words that belong to each (major, minor) of a batch.

    Args:
        seed: A 64-bit integer, in [-2**63, 2**63).
        stream: What the numbers are for.
        major: Image index or training step: an int, (B,) int64, or (1,) int64 for all.
        minor: Timestep or position: an int or (B,) int64, in [0, 2**32). One of the two must be a
            tensor; the words are made on its device.
        num_blocks: Blocks of four words for each (major, minor), at most 2**24.

    Returns:
        Four tensors (B, num_blocks) int64 in [0, 2**32).

    Raises:
        ValueError: The seed, a minor number or the number of blocks is out of range. Minor numbers
            on a GPU are not looked at: the host would have to wait for them.
    """
    if not -(2**63) <= seed < 2**63:
        raise ValueError(f"seed must be a 64-bit integer, not {seed}")
    if not 0 < num_blocks <= 2**_BLOCK_BITS:
        raise ValueError(f"an image must have 1 to 2**{_BLOCK_BITS + 2} values")
    device = major.device if isinstance(major, Tensor) else torch.as_tensor(minor).device
    blocks = torch.arange(num_blocks, device=device).add_(int(stream) << _BLOCK_BITS)
    _check_minor(minor)
    major, minor = _as_column(major, device), _as_column(minor, device)
    counter = (blocks[None], minor & _LOW_WORD, *_low_high(major))
    return philox4x32(counter, _low_high(_as_column(seed, device)[0, 0]))


def normals(
    seed: int, stream: Stream, major: int | Tensor, minor: int | Tensor, shape: Sequence[int]
) -> Tensor:
    """Return standard normal noise of a given shape for each (major, minor) of a batch.

    Args:
        seed: A 64-bit integer, in [-2**63, 2**63).
        stream: What the noise is for.
        major: As in `random_words`.
        minor: As in `random_words`.
        shape: Shape of one image, (C, H, W).

    Returns:
        (B, C, H, W) float32.
    """
    num_values = math.prod(shape)
    words = random_words(seed, stream, major, minor, (num_values + 3) // 4)
    values: Tensor = torch.ops.ddpm.box_muller(*words)
    return values[:, :num_values].contiguous().view(-1, *shape)


def box_muller(word0: Tensor, word1: Tensor, word2: Tensor, word3: Tensor) -> Tensor:
    """Turn uniform 32-bit words into standard normal numbers (Box & Muller 1958).

    Words 0 and 1 give the radii, words 2 and 3 the angles, each in the middle of one of 2**32
    equal cells, so that the logarithm never meets 0. The largest number is 6.76.

    Args:
        word0: (B, N) int64 in [0, 2**32), as the other three.
        word1: See `word0`.
        word2: See `word0`.
        word3: See `word0`.

    Returns:
        (B, 4 * N) float32.
    """
    cells = torch.stack((word0, word1, word2, word3)).to(torch.float64).add_(0.5).mul_(2.0**-32)
    radius = cells[:2].log_().mul_(-2.0).sqrt_()
    angle = cells[2:].mul_(2.0 * math.pi)
    pairs = torch.stack((radius * angle.cos(), radius * angle.sin()))  # (2, 2, B, N)
    return pairs.permute(2, 0, 1, 3).to(torch.float32).reshape(word0.shape[0], -1)


def _box_muller_shape(word0: Tensor, _1: Tensor, _2: Tensor, _3: Tensor) -> Tensor:
    return word0.new_empty((word0.shape[0], 4 * word0.shape[1]), dtype=torch.float32)


# `torch.library.custom_op` would do this in one line, but loads the compiler at the first call.
# The operator lives as long as this name.
_SCHEMA = "box_muller(Tensor word0, Tensor word1, Tensor word2, Tensor word3) -> Tensor"
_LIBRARY = torch.library.Library("ddpm", "FRAGMENT")
_LIBRARY.define(_SCHEMA)
_LIBRARY.impl("box_muller", box_muller, "CompositeExplicitAutograd")
torch.library.register_fake("ddpm::box_muller", _box_muller_shape, lib=_LIBRARY)


def sample_noise(
    seed: int,
    indices: Tensor,
    t: int | Tensor,
    shape: Sequence[int],
    device: torch.device | str | None = None,
    stream: Stream = Stream.REVERSE_STEP,
) -> Tensor:
    """Return the noise of images k at timestep t of a sampling chain.

    Args:
        seed: A 64-bit integer, in [-2**63, 2**63).
        indices: (B,) int64, the images' numbers k.
        t: The timestep in [0, T), or one for each image as (B,) int64.
        shape: Shape of one image, (C, H, W).
        device: Where the noise is made; None takes the indices' device. Indices that are already
            there are used without waiting for the device.
        stream: What the noise is for.

    Returns:
        (B, C, H, W) float32.
    """
    return normals(seed, stream, indices.to(device or indices.device), t, shape)


def training_noise(
    seed: int, step: int | Tensor, positions: Tensor, shape: Sequence[int]
) -> Tensor:
    """Return the noise that training adds to the images of one step.

    Args:
        seed: A 64-bit integer, in [-2**63, 2**63).
        step: The optimizer step; or (1,) int64 on the positions' device.
        positions: (B,) int64, the images' places in the global batch, below 2**32.
        shape: Shape of one image, (C, H, W).

    Returns:
        (B, C, H, W) float32.
    """
    return normals(seed, Stream.TRAINING_NOISE, step, positions, shape)


def training_timesteps(
    seed: int, step: int | Tensor, positions: Tensor, num_timesteps: int
) -> Tensor:
    """Draw the timesteps of one training step, uniform over the T.

    Args:
        seed: A 64-bit integer, in [-2**63, 2**63).
        step: The optimizer step; or (1,) int64 on the positions' device.
        positions: (B,) int64, the images' places in the global batch, below 2**32.
        num_timesteps: T, below 2**31.

    Returns:
        (B,) int64 in [0, T). The probabilities differ from 1/T by less than 2**-32.
    """
    word = random_words(seed, Stream.TRAINING_TIMESTEP, step, positions, 1)[0]
    return ((word * num_timesteps) >> 32).squeeze(1)


def flips(seed: int, step: int | Tensor, positions: Tensor) -> Tensor:
    """Draw which images of one training step are mirrored, each with probability 1/2.

    Args:
        seed: A 64-bit integer, in [-2**63, 2**63).
        step: The optimizer step; or (1,) int64 on the positions' device.
        positions: (B,) int64, the images' places in the global batch, below 2**32.

    Returns:
        (B,) bool.
    """
    word = random_words(seed, Stream.FLIP, step, positions, 1)[0]
    return (word >= 2**31).squeeze(1)


def dropped_labels(seed: int, step: int | Tensor, positions: Tensor, share: float) -> Tensor:
    """Draw which labels of one training step are replaced by no class.

    Args:
        seed: A 64-bit integer, in [-2**63, 2**63).
        step: The optimizer step; or (1,) int64 on the positions' device.
        positions: (B,) int64, the images' places in the global batch, below 2**32.
        share: The probability, in [0, 1].

    Returns:
        (B,) bool.
    """
    word = random_words(seed, Stream.LABEL_DROPOUT, step, positions, 1)[0]
    return (word < round(share * 2**32)).squeeze(1)


def _check_minor(minor: int | Tensor) -> None:
    """Refuse timesteps and positions that the counter's word would take modulo 2**32."""
    if isinstance(minor, Tensor) and (minor.device.type != "cpu" or minor.numel() == 0):
        return
    lowest, highest = minor.aminmax() if isinstance(minor, Tensor) else (minor, minor)
    if int(lowest) < 0 or int(highest) > _LOW_WORD:
        raise ValueError(f"timesteps and positions must be in [0, 2**32), not {minor}")


def _as_column(number: int | Tensor, device: torch.device) -> Tensor:
    if isinstance(number, Tensor):
        return number.to(device).reshape(-1, 1)
    return torch.full((1, 1), number, dtype=torch.int64, device=device)


def _low_high(number: Tensor) -> tuple[Tensor, Tensor]:
    """Split 64-bit numbers into their low and their high 32 bits."""
    return number & _LOW_WORD, (number >> 32) & _LOW_WORD
