"""How a job computes: device, precision, compiled or not, memory format, threads.

All of these change bits, so they are decided once per job; the decision is recorded, and every
later attempt and worker takes it as it stands.
"""

import dataclasses
import os
import shutil
import sysconfig
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self, cast

import torch
from torch import Tensor, nn

from ddpm.config import (
    DiffusionConfig,
    NetworkConfig,
    Precision,
    Prediction,
    UNetConfig,
    check_precision,
    network_name,
)
from ddpm.kernels.amx.kernels import kernels_obstacle
from ddpm.kernels.amx.network import TiledUNet, fits_tiles, tiles_obstacle
from ddpm.memory import keep_memory
from ddpm.network.unet import UNet

DeviceKind = Literal["cpu", "cuda"]

_TILED = ("cpu", "bf16")  # what the AMX kernels compute on, and in


@dataclass(frozen=True, kw_only=True)
class ComputeDecision:
    """What was decided, once, about how a job computes.

    Attributes:
        device_kind: "cuda" or "cpu".
        precision: "bf16" or "float32".
        compiled: Whether the network goes through torch.compile.
        kernels: "amx" computes the network with the kernels of `ddpm.kernels.amx`, "torch" with
            torch's, as what a training draws and evaluates on its way is in either case.
        channels_last: Whether feature maps are laid out with their channels next to each other.
        num_threads: CPU threads of one worker.
        reason: Why, in one line, for people.
    """

    device_kind: DeviceKind = "cpu"
    precision: Literal["bf16", "float32"] = "float32"
    compiled: bool = False
    kernels: Literal["torch", "amx"] = "torch"
    channels_last: bool = True
    num_threads: int = 1
    reason: str = ""

    def to_json(self) -> dict[str, object]:
        """Return the decision as plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Read a decision back; fields that this version does not know are ignored."""
        known = {one.name for one in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})

    @property
    def device(self) -> torch.device:
        """The device of this process; with CUDA the one that was made current."""
        if self.device_kind == "cuda":
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("cpu")

    @property
    def memory_format(self) -> torch.memory_format:
        """The memory format of the weights of convolutions and of feature maps."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def autocast(self) -> torch.autocast:
        """Return a context in which the network computes in the decided precision."""
        enabled = self.precision == "bf16"
        return torch.autocast(self.device_kind, dtype=torch.bfloat16, enabled=enabled)

    def place(self, model: nn.Module) -> None:
        """Move a model to the device and into the memory format, in place."""
        model.to(device=self.device, memory_format=self.memory_format)  # type: ignore[call-overload]

    def network(self, model: nn.Module, *, replayed: bool = False) -> Callable[..., Tensor]:
        """Return a placed model as it is to be called: compiled, if that was decided.

        Args:
            model: The network; it is always called with inputs of the same shapes.
            replayed: It only predicts, and its weights stay. The AMX kernels are then called at
                once, and a GPU replays the call as one CUDA graph: there each result is overwritten
                by the next call, so the caller copies what it keeps.
        """
        if self.kernels == "amx":
            return TiledUNet(cast(UNet, model), frozen=replayed)
        if not self.compiled:
            return model
        if self.device_kind == "cuda":
            options: dict[str, Any] = {"triton.cudagraphs": replayed}
        else:
            # On few cores the compiling processes that torch would start take turns with it. Calls
            # of the several hundred parts one after another take less time in C++ than in Python;
            # for a large training step that C++ takes twice as long to compile.
            compile_threads = self.num_threads if self.num_threads > 2 else 1
            options = {"compile_threads": compile_threads, "cpp_wrapper": replayed}
        compiled: Callable[..., Tensor] = torch.compile(model, dynamic=False, options=options)
        return compiled

    def apply_to_process(self) -> None:
        """Set this process's number of CPU threads, how it keeps memory, and how a GPU multiplies.

        On a GPU all operators take their deterministic form, and float32 is multiplied as float32.
        Without CUBLAS_WORKSPACE_CONFIG=:4096:8 in the environment, the first matrix product there
        is then a RuntimeError.
        """
        torch.set_num_threads(self.num_threads)
        if self.device_kind == "cpu":
            keep_memory()
        if self.device_kind == "cuda":
            # Not only with a warning: attention then still takes the other form.
            torch.use_deterministic_algorithms(True)
            # All of it is written before it is read.
            torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
            torch.backends.cudnn.allow_tf32 = False
            torch.backends.cuda.matmul.allow_tf32 = False


def overwrite_gradients(network: Callable[..., Tensor]) -> set[Tensor]:
    """Have a network's backward passes write gradients over earlier ones, where they can.

    Args:
        network: As `ComputeDecision.network` returned it.

    Returns:
        The parameters of which that is so. The gradients of the others are added to earlier ones.
    """
    return network.overwrite_gradients() if isinstance(network, TiledUNet) else set()


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What is to be computed, as far as the choice depends on it.

    Attributes:
        network: The network's numbers.
        diffusion: What its output stands for. "mean" is divided by numbers down to 1e-4, and
            bfloat16's rounding with it, so it is computed in float32.
        images_per_pass: Images that one call of the network takes.
        num_passes: Passes that a step of its training has.
        is_recomputed: Whether these keep no activations for the gradient.
        compile_hindrance: Why nothing of it is compiled, whatever the machine has; "" for no such
            reason.
    """

    network: NetworkConfig = field(default_factory=UNetConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    images_per_pass: int = 1
    num_passes: int = 1
    is_recomputed: bool = False
    compile_hindrance: str = ""

    @property
    def fits_tiles(self) -> bool:
        """Whether network and batch are such as the AMX kernels are made for."""
        return fits_tiles(self.network, self.images_per_pass)

    @property
    def tiles_obstacle(self) -> str:
        """Why the kernels cannot compute it all the same; "" if they can."""
        return tiles_obstacle(
            self.diffusion, num_passes=self.num_passes, is_recomputed=self.is_recomputed
        )


def decide_compute(
    work: Workload,
    *,
    precision: Precision,
    compile_request: bool | Literal["auto"],
    num_threads: int,
    worth_compiling: bool,
    kernel_folder: Path | None = None,
    device_kind: DeviceKind | None = None,
) -> ComputeDecision:
    """Decide for this machine; call it once per job.

    Args:
        work: What is to be computed.
        precision: What was asked for; "auto" takes bfloat16 where the hardware multiplies it.
        compile_request: What was asked for; "auto" takes the AMX kernels, or compiles what pays.
        num_threads: CPU threads of one worker.
        worth_compiling: Whether the job's work is longer than the compiling.
        kernel_folder: Where the kernels are kept, as for `ddpm.kernels.amx.kernels.load_kernels`.
        device_kind: None takes CUDA where there is a device.

    Raises:
        ConfigError: bfloat16 was asked for, and cannot be.
    """
    prediction = work.diffusion.prediction
    check_precision(precision, prediction)
    device_kind = device_kind or ("cuda" if torch.cuda.is_available() else "cpu")
    chosen, reasons = _choose_precision(precision, prediction, device_kind)
    decided = ComputeDecision(device_kind=device_kind, precision=chosen, num_threads=num_threads)
    if own_network := network_name(work.network):
        return _of_own_network(decided, reasons, own_network, compile_request is True)
    if compile_request == "auto" and work.fits_tiles and (device_kind, decided.precision) == _TILED:
        obstacle = work.tiles_obstacle or kernels_obstacle(kernel_folder)
        if obstacle is None:
            message = "; ".join([*reasons, "network and batch fit the AMX kernels"])
            return replace(decided, kernels="amx", reason=message)
        reasons.append(f"no AMX kernels, since {obstacle}")
    wanted = worth_compiling if compile_request == "auto" else compile_request
    if compile_request == "auto" and not wanted:
        reasons.append("eager, since the work is shorter than compiling it")
    return _compiled(decided, reasons, work.compile_hindrance if wanted else None)


def _compiled(
    decided: ComputeDecision, reasons: list[str], hindrance: str | None
) -> ComputeDecision:
    """Decide to compile, where that is wanted (a hindrance that is not None) and possible."""
    if hindrance is None:
        return replace(decided, reason="; ".join(reasons))
    obstacle = hindrance or compile_obstacle(decided.device_kind)
    eager = [f"eager, since {obstacle}"] if obstacle else []
    return replace(decided, compiled=not obstacle, reason="; ".join([*reasons, *eager]))


def _of_own_network(
    decided: ComputeDecision, reasons: list[str], name: str, is_compiled: bool
) -> ComputeDecision:
    """Decide for another package's network, which is laid out in memory as it was written."""
    message = f"{name} is another package's: torch's kernels, and no CUDA graph"
    hindrance = "" if is_compiled else "nobody asked to compile"
    return _compiled(replace(decided, channels_last=False), [*reasons, message], hindrance)


def _choose_precision(
    precision: Precision, prediction: Prediction, device_kind: DeviceKind
) -> tuple[Literal["bf16", "float32"], list[str]]:
    """Return the precision to compute in, and why."""
    fast_bf16 = has_fast_bf16(device_kind)
    reasons = [f"{device_kind} {'has' if fast_bf16 else 'has no'} bf16 matrix units"]
    if precision != "auto":
        return precision, reasons
    if fast_bf16 and prediction == "mean":
        return "float32", [*reasons, "float32, since the network predicts the mean"]
    return "bf16" if fast_bf16 else "float32", reasons


def has_fast_bf16(device_kind: DeviceKind) -> bool:
    """Return whether bfloat16 is multiplied by units that make it faster than float32."""
    if device_kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    supported: bool = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return supported


def compile_obstacle(device_kind: DeviceKind) -> str | None:
    """Return why torch.compile can't work on this machine, or None where it can."""
    if device_kind == "cuda":
        from torch.utils._triton import has_triton

        return None if has_triton() else "there is no Triton"
    if not any(shutil.which(name) for name in ("g++", "clang++", "c++")):
        return "there is no C++ compiler"
    if not Path(sysconfig.get_paths()["include"], "Python.h").exists():
        return "there are no Python headers"
    folder = tempfile.gettempdir()
    if os.statvfs(folder).f_flag & os.ST_NOEXEC:
        return f"{folder} lets no program run (it is mounted noexec): set TMPDIR to another folder"
    return None
