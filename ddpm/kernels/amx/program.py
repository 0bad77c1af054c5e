"""Calls of the kernels, written down once and then made as one.

Between two of the hundred calls of a step the interpreter finds nothing of its own in the caches.
Where the weights stay as they are, only what goes in is new: all else, addresses too, is the same.
"""

import ctypes
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ddpm.kernels.amx.kernels import load_kernels
from ddpm.kernels.amx.structs import AttentionStruct, CallStruct, LayerStruct, ProgramStruct

_ALIGNMENT = 64  # bytes: a line of the cache
_CHANGED = "what is recorded asked for other memory the second time"

Struct = LayerStruct | AttentionStruct
_Step = Struct | Callable[[], object]


class Program:
    """The calls that a function made, to be made again.

    Args:
        function: Computes with `call_kernel` and `call_function` in memory of `empty`. What else it
            reads has to stay where it is. It is called twice, asks for the same memory both times,
            and computes nothing then.

    Attributes:
        output: What the function returned, in the program's memory; `run` computes it.
    """

    def __init__(self, function: Callable[[], Tensor]) -> None:
        trial = _Trial()
        with _recorded_by(trial):
            trial.last_reads[_address(function())] = trial.num_steps
        placement = _Placement(trial.lives())
        with _recorded_by(placement):
            self.output = function()
        placement.check_is_whole()
        self._memory = placement.memory
        self._parts = _joined(placement.steps)

    def run(self) -> None:
        """Make the calls."""
        for part in self._parts:
            part()


class _Calls:
    """Calls of kernels that follow each other, as one."""

    def __init__(self, structs: Sequence[Struct]) -> None:
        self._calls = (CallStruct * len(structs))(*map(_call, structs))  # keeps what it points to
        self._struct = ProgramStruct(self._calls, len(structs))

    def __call__(self) -> None:
        load_kernels().run_program(ctypes.byref(self._struct))


def empty(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Return uninitialised memory for what a kernel writes."""
    recorder = _recorder.get()
    if recorder is not None:
        return recorder.empty(shape, dtype)
    return torch.empty(*shape, dtype=dtype)


def call_kernel(struct: Struct, reads: Sequence[Tensor | None]) -> None:
    """Call the kernel that a struct is for.

    Args:
        struct: Its arguments.
        reads: What it reads of what kernels before it wrote.
    """
    recorder = _recorder.get()
    if recorder is not None:
        recorder.add(struct, reads)
    elif isinstance(struct, LayerStruct):
        load_kernels().compute_layer(ctypes.byref(struct))
    else:
        load_kernels().attend(ctypes.byref(struct))


def call_function(function: Callable[[], object], reads: Sequence[Tensor | None]) -> None:
    """Call a function that computes what no kernel does, in memory of `empty`.

    Args:
        function: The same each time.
        reads: As for `call_kernel`.
    """
    recorder = _recorder.get()
    if recorder is not None:
        recorder.add(function, reads)
    else:
        function()


class _Recorder(Protocol):
    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor: ...

    def add(self, step: _Step, reads: Sequence[Tensor | None]) -> None: ...


_recorder: ContextVar[_Recorder | None] = ContextVar("_recorder", default=None)


@contextmanager
def _recorded_by(recorder: _Recorder) -> Iterator[None]:
    token = _recorder.set(recorder)
    try:
        yield
    finally:
        _recorder.reset(token)


class _Life(NamedTuple):
    """How large a tensor is, and between which calls it has to be there, both among them."""

    num_bytes: int
    first: int
    last: int


class _Trial:
    """Finds out what is written and read when; all values of a tensor are one."""

    def __init__(self) -> None:
        self.num_steps = 0
        self.last_reads: dict[int, int] = {}
        self._tensors: list[tuple[Tensor, int]] = []  # kept, so that each has its own address

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        tensor = torch.empty(1, dtype=dtype).expand(*shape)
        self._tensors.append((tensor, self.num_steps))
        return tensor

    def add(self, step: _Step, reads: Sequence[Tensor | None]) -> None:
        del step
        for tensor in reads:
            self.last_reads[_address(tensor)] = self.num_steps
        self.num_steps += 1

    def lives(self) -> list[_Life]:
        return [
            _Life(tensor.nbytes, first, self.last_reads.get(_address(tensor), first))
            for tensor, first in self._tensors
        ]


class _Placement:
    """Gives all tensors their places in one block of memory, and takes the calls down."""

    def __init__(self, lives: list[_Life]) -> None:
        offsets, num_bytes = _placed(lives)
        self.steps: list[_Step] = []
        self.memory = torch.empty(num_bytes, dtype=torch.uint8)
        self._left = deque(zip(offsets, lives, strict=True))

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        num_bytes = math.prod(shape) * dtype.itemsize
        if not self._left or self._left[0][1].num_bytes != num_bytes:
            raise RuntimeError(_CHANGED)
        offset, _ = self._left.popleft()
        return self.memory[offset : offset + num_bytes].view(dtype).view(*shape)

    def check_is_whole(self) -> None:
        if self._left:
            raise RuntimeError(_CHANGED)

    def add(self, step: _Step, reads: Sequence[Tensor | None]) -> None:
        del reads
        self.steps.append(step if callable(step) else type(step).from_buffer_copy(step))


def _placed(lives: list[_Life]) -> tuple[list[int], int]:
    """Return where each begins, and the size of it all; the largest take the lowest free place."""
    offsets = [0] * len(lives)
    done: list[int] = []
    for index in sorted(range(len(lives)), key=lambda i: -lives[i].num_bytes):
        size, first, last = lives[index]
        beside = [i for i in done if lives[i].first <= last and first <= lives[i].last]
        offset = 0
        for other in sorted(beside, key=lambda i: offsets[i]):
            if offset + size <= offsets[other]:
                break
            offset = max(offset, _aligned(offsets[other] + lives[other].num_bytes))
        offsets[index] = offset
        done.append(index)
    ends = (offset + life.num_bytes for offset, life in zip(offsets, lives, strict=True))
    return offsets, max(ends, default=0)


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGNMENT) * _ALIGNMENT


def _address(tensor: Tensor | None) -> int:
    """Return where the memory begins that a tensor, or what it is a part of, was given."""
    return 0 if tensor is None else tensor.untyped_storage().data_ptr()


def _joined(steps: Iterable[_Step]) -> list[Callable[[], object]]:
    parts: list[Callable[[], object]] = []
    structs: list[Struct] = []
    for step in steps:
        if not callable(step):
            structs.append(step)
            continue
        parts += [_Calls(structs), step] if structs else [step]
        structs = []
    return [*parts, _Calls(structs)] if structs else parts


def _call(struct: Struct) -> CallStruct:
    if isinstance(struct, LayerStruct):
        return CallStruct(layer=ctypes.pointer(struct))
    return CallStruct(attention=ctypes.pointer(struct))
