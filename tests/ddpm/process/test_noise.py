"""The generator against its published vectors, and the numbers made of it against statistics."""

import math
import shutil
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from ddpm.process.noise import (
    Stream,
    box_muller,
    flips,
    philox4x32,
    random_words,
    sample_noise,
    training_noise,
    training_timesteps,
)

WORD = 0xFFFFFFFF

# Random123's kat_vectors: philox4x32 with 10 rounds: counter, key, output.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000",
     "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
     "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
     "d16cfe09 94fdcceb 5001e420 24126ea1"),
]  # fmt: skip


def _words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


def _reference_philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x32-10 in unbounded Python integers, as the paper's figure draws it."""
    x, (k0, k1) = list(counter), key
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * x[0], 2**32)
        high1, low1 = divmod(0xCD9E8D57 * x[2], 2**32)
        x = [high1 ^ x[1] ^ k0, low1, high0 ^ x[3] ^ k1, low0]
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return x


@pytest.mark.parametrize(("counter", "key", "output"), KNOWN_ANSWERS)
def test_philox_gives_its_published_answers(counter: str, key: str, output: str) -> None:
    """A generator that is nearly Philox has none of the tests that Philox passed."""
    k0, k1 = (torch.tensor(word) for word in _words(key))
    a, b, c, d = (torch.tensor([word]) for word in _words(counter))
    words = philox4x32((a, b, c, d), (k0, k1))
    assert [int(word) for word in words] == _words(output)


def test_philox_equals_integer_arithmetic_on_random_counters() -> None:
    """Three vectors can't see a sign bit that goes wrong in one product of many."""
    draws = np.random.default_rng(0).integers(0, 2**32, size=(200, 6))
    for row in draws.tolist():
        a, b, c, d = (torch.tensor([word]) for word in row[:4])
        words = philox4x32(
            (a, b, c, d),
            (torch.tensor(row[4]), torch.tensor(row[5])),
        )
        assert [int(word) for word in words] == _reference_philox(row[:4], row[4:])


@pytest.mark.parametrize("seed", [0, 7, 2**40 + 3, 2**63 - 1, -(2**63), -1])
@pytest.mark.parametrize("index", [0, 5, 2**32 + 5, 2**62])
def test_key_and_counter_are_laid_out_as_documented(seed: int, index: int) -> None:
    """The layout is the file format of every sample set: a change would change all of them."""
    words = random_words(seed, Stream.FLIP, torch.tensor([index]), 77, num_blocks=3)
    for block in range(3):
        counter = [(4 << 24) + block, 77, index & WORD, index >> 32]
        key = [seed & WORD, (seed >> 32) & WORD]
        found = [int(word[0, block]) for word in words]
        assert found == _reference_philox(counter, key)


def test_normals_are_box_muller_of_the_documented_words() -> None:
    """The whole way from (seed, k, t) to a pixel, in another arithmetic."""
    shape, index, t = (1, 3, 5), 12, 34
    expected = np.zeros((4, 4))
    for block in range(4):
        words = _reference_philox([(1 << 24) + block, t, index, 0], [9, 0])
        for pair in range(2):
            radius = math.sqrt(-2.0 * math.log((words[pair] + 0.5) / 2**32))
            angle = 2.0 * math.pi * (words[pair + 2] + 0.5) / 2**32
            expected[pair, block] = radius * math.cos(angle)
            expected[pair + 2, block] = radius * math.sin(angle)
    noise = sample_noise(9, torch.tensor([index]), t, shape)
    assert noise.dtype == torch.float32
    np.testing.assert_allclose(noise.numpy().ravel(), expected.ravel()[:15], rtol=2e-7)


def test_stream_numbers_never_change() -> None:
    """They are part of every image and every training run that exists."""
    assert {stream.name: int(stream) for stream in Stream} == {
        "CHAIN_START": 0,
        "REVERSE_STEP": 1,
        "TRAINING_NOISE": 2,
        "TRAINING_TIMESTEP": 3,
        "FLIP": 4,
        "EVALUATION_NOISE": 5,
        "EVALUATION_TIMESTEP": 6,
        "LABEL_DROPOUT": 7,
        "AUGMENTATION": 8,
        "AUGMENTATION_SIZE": 9,
    }


def test_extreme_words_give_finite_normals() -> None:
    """Word 0 would be log(0) without the half cell that is added."""
    ends = torch.tensor([[0, WORD]])
    values = box_muller(ends, ends, ends, ends.flip(1))
    assert bool(values.isfinite().all())
    assert 6.7 < float(values.abs().max()) < 6.8


@pytest.fixture(scope="module")
def million() -> Tensor:
    """(1000, 1, 32, 32) normals: images 0..999 at one timestep."""
    return sample_noise(3, torch.arange(1000), 500, (1, 32, 32))


def test_noise_is_standard_normal_by_kolmogorov_and_smirnov(million: Tensor) -> None:
    """The reverse process is derived for Gaussian noise and no other."""
    assert stats.kstest(million.numpy().ravel(), "norm").pvalue > 1e-3
    for lane in million.flatten(1).reshape(1000, 4, 256).unbind(1):
        assert stats.kstest(lane.numpy().ravel(), "norm").pvalue > 1e-3


def test_noise_has_the_moments_of_a_standard_normal(million: Tensor) -> None:
    """Mean, variance, skewness and kurtosis within five standard errors."""
    values = million.double().numpy().ravel()
    root = math.sqrt(values.size)
    assert abs(values.mean()) < 5.0 / root
    assert abs(values.var() - 1.0) < 5.0 * math.sqrt(2.0) / root
    assert abs(stats.skew(values)) < 5.0 * math.sqrt(6.0) / root
    assert abs(stats.kurtosis(values)) < 5.0 * math.sqrt(24.0) / root


def test_tails_hold_as_much_as_they_should(million: Tensor) -> None:
    """A Box-Muller transform with too few bits loses the far tail first."""
    beyond = int((million.abs() > 4.0).sum())
    expected = million.numel() * 2.0 * stats.norm.sf(4.0)
    assert abs(beyond - expected) < 5.0 * math.sqrt(expected)


def _neighbours(million: Tensor) -> Iterator[tuple[str, Tensor, Tensor]]:
    k, shape = torch.arange(1000), (1, 32, 32)
    yield "next image", million[:-1], million[1:]
    yield "next timestep", million, sample_noise(3, k, 501, shape)
    yield "next seed", million, sample_noise(4, k, 500, shape)
    yield "other stream", million, sample_noise(3, k, 500, shape, stream=Stream.CHAIN_START)
    yield "next pixel", million.flatten(1)[:, :-1], million.flatten(1)[:, 1:]
    yield "cosine and sine", million[:, :, :16], million[:, :, 16:]
    yield "image and timestep swapped", million, sample_noise(3, torch.full((1000,), 500), k, shape)


def test_neighbouring_names_are_not_correlated(million: Tensor) -> None:
    """Correlated images or steps would look like a mode of the data.

    Squares show what a plain correlation can't see.
    """
    for name, a, b in _neighbours(million):
        x, y = a.double().numpy().ravel(), b.double().numpy().ravel()
        bound = 5.0 / math.sqrt(x.size)
        assert abs(np.corrcoef(x, y)[0, 1]) < bound, name
        assert abs(np.corrcoef(x**2, y**2)[0, 1]) < bound, name


def test_no_two_names_share_a_word() -> None:
    """Equal noise in two places of a set is a copy that no metric would forgive."""
    seen = []
    for seed in (0, 1, 2**32):
        for stream in Stream:
            for t in (0, 1, 999):
                indices = torch.tensor([0, 1, 2**32, 2**32 + 1])
                words = random_words(seed, stream, indices, t, num_blocks=4)
                seen.append(torch.stack(words).permute(1, 2, 0).reshape(-1, 4))
    blocks = torch.cat(seen)
    assert len(blocks.unique(dim=0)) == len(blocks)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 3, 5), (3, 7, 9), (1, 8, 8), (3, 32, 32)])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 17, 64])
def test_noise_of_an_image_is_the_same_in_any_batch_and_position(
    shape: tuple[int, int, int], batch_size: int
) -> None:
    """A sample set must not depend on how a fleet cut it into batches."""
    indices = torch.arange(batch_size).flip(0) * 3 + 5
    batch = sample_noise(1, indices, 7, shape)
    assert batch.shape == (batch_size, *shape)
    assert batch.is_contiguous()
    for position in {0, batch_size // 2, batch_size - 1}:
        alone = sample_noise(1, indices[position : position + 1], 7, shape)
        assert torch.equal(alone[0], batch[position])


def test_number_of_threads_changes_no_bit() -> None:
    """Workers differ in their cores, and images must not."""
    threads = torch.get_num_threads()
    try:
        drawn = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            drawn.append(sample_noise(5, torch.arange(64), 3, (3, 32, 32)))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], drawn[2])


def test_timesteps_may_differ_within_a_batch() -> None:
    """The bound draws another t for each image; the noise is that of (k, t) all the same."""
    indices, t = torch.tensor([4, 9, 2]), torch.tensor([0, 999, 31])
    batch = sample_noise(2, indices, t, (1, 5, 5))
    for position in range(3):
        index = indices[position : position + 1]
        alone = sample_noise(2, index, int(t[position]), (1, 5, 5))
        assert torch.equal(alone[0], batch[position])


def test_default_dtype_and_global_generator_play_no_part() -> None:
    """Noise that looked at global state would differ between a worker and a test."""
    expected = sample_noise(8, torch.arange(3), 1, (1, 4, 4))
    state = torch.get_rng_state()
    torch.set_default_dtype(torch.float64)
    try:
        found = sample_noise(8, torch.arange(3), 1, (1, 4, 4))
    finally:
        torch.set_default_dtype(torch.float32)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)
    assert torch.equal(torch.get_rng_state(), state)


def _can_compile() -> bool:
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    return shutil.which("g++") is not None and headers.exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.skipif(not _can_compile(), reason="torch.compile needs g++ and the Python headers")
def test_compiled_noise_has_the_bits_of_eager_noise() -> None:
    """The decision to compile is taken for speed and must not choose other images."""
    compiled = torch.compile(sample_noise, fullgraph=True, dynamic=True)
    indices = torch.arange(16)
    for seed, t in ((3, 0), (3, 17), (2**62 + 1, 999)):
        found = compiled(seed, indices, t, (3, 32, 32))
        assert torch.equal(found, sample_noise(seed, indices, t, (3, 32, 32)))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_cuda_noise_is_within_one_ulp_of_cpu_noise() -> None:
    """Integers are the same everywhere; only the last bit of a logarithm may differ."""
    indices = torch.arange(64)
    cpu = sample_noise(3, indices, 500, (3, 32, 32)).numpy()
    cuda = sample_noise(3, indices, 500, (3, 32, 32), device="cuda").cpu().numpy()
    assert np.all(np.abs(cpu - cuda) <= np.spacing(np.abs(cpu)))


def test_training_draws_do_not_depend_on_who_holds_the_position() -> None:
    """Two workers with half the batch each must see what one with all of it sees."""
    positions = torch.arange(10)
    noise = training_noise(1, 42, positions, (1, 3, 3))
    timesteps = training_timesteps(1, 42, positions, 1000)
    mirrored = flips(1, 42, positions)
    half = positions[5:]
    assert torch.equal(training_noise(1, 42, half, (1, 3, 3)), noise[5:])
    assert torch.equal(training_timesteps(1, 42, half, 1000), timesteps[5:])
    assert torch.equal(flips(1, 42, half), mirrored[5:])
    assert not torch.equal(training_noise(1, 43, positions, (1, 3, 3)), noise)


def test_a_step_that_lies_on_the_device_draws_what_its_number_draws() -> None:
    """A CUDA graph reads the step from memory."""
    positions, step = torch.arange(10), 2**33 + 42
    held = torch.full((1,), step)
    shape = (1, 3, 3)
    expected = training_noise(1, step, positions, shape)
    assert torch.equal(training_noise(1, held, positions, shape), expected)
    expected = training_timesteps(1, step, positions, 1000)
    assert torch.equal(training_timesteps(1, held, positions, 1000), expected)
    assert torch.equal(flips(1, held, positions), flips(1, step, positions))


def test_training_timesteps_are_uniform() -> None:
    """L_simple is an expectation over uniform t; a bias would starve some of the steps."""
    positions = torch.arange(20_000)
    t = torch.cat([training_timesteps(7, step, positions, 1000) for step in range(10)])
    assert t.dtype == torch.int64
    counts = torch.bincount(t, minlength=1000).numpy()
    assert len(counts) == 1000
    assert stats.chisquare(counts).pvalue > 1e-3


def test_flips_are_fair_and_unrelated_to_the_timestep() -> None:
    """A flip that followed t would teach the network that mirrored images are noisier."""
    positions = torch.arange(100_000)
    mirrored = flips(7, 3, positions).double().numpy()
    assert abs(mirrored.mean() - 0.5) < 5.0 * 0.5 / math.sqrt(mirrored.size)
    t = training_timesteps(7, 3, positions, 1000).double().numpy()
    assert abs(np.corrcoef(mirrored, t)[0, 1]) < 5.0 / math.sqrt(mirrored.size)


@pytest.mark.parametrize("seed", [2**63, -(2**63) - 1])
def test_seed_of_more_than_64_bits_is_refused(seed: int) -> None:
    """Cutting it would give two seeds the same images."""
    with pytest.raises(ValueError, match="64-bit"):
        sample_noise(seed, torch.arange(1), 0, (1, 2, 2))


@pytest.mark.parametrize("shape", [(0, 8, 8), (4, 2**13, 2**12)])
def test_image_without_a_place_in_the_counter_is_refused(shape: tuple[int, int, int]) -> None:
    """Its last blocks would run into the next stream."""
    with pytest.raises(ValueError, match="values"):
        sample_noise(0, torch.arange(1), 0, shape)


@pytest.mark.parametrize("t", [-1, 2**32, [0, -1], [3, 2**32]])
def test_a_timestep_that_the_counter_cannot_hold_is_refused(t: int | list[int]) -> None:
    """Taken modulo 2**32 it would name another timestep's noise without a word."""
    timesteps = torch.tensor(t) if isinstance(t, list) else t
    with pytest.raises(ValueError, match="timesteps and positions must be in"):
        sample_noise(0, torch.arange(2), timesteps, (1, 2, 2))
