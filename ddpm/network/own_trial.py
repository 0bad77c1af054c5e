"""Builds a network of another package, and tries whether it is one that can be trained and kept.

Torch is loaded when something is built, not before.
"""

from typing import TYPE_CHECKING, Any

from ddpm.config import OWN_NETWORK, ConfigError, OwnConfig
from ddpm.network.own import NetworkShape, find_network, settings_of

if TYPE_CHECKING:
    from torch import nn

_TRIED_IMAGES = 2


def build_module(config: OwnConfig, shape: NetworkShape, seed: int) -> "nn.Module":
    """Return a package's network with weights that are a function of `seed`; float32, on the CPU.

    The global generator is left as it is.

    Raises:
        ConfigError: It is not installed here, refuses its settings, or builds no module.
    """
    import torch

    brought, settings = find_network(config.network), settings_of(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = brought.build(settings, shape)
    if not isinstance(module, torch.nn.Module):
        raise _refused(config, f"one that builds a torch.nn.Module, not {type(module).__name__}")
    return module


def try_network(config: OwnConfig, shape: NetworkShape) -> int:
    """Build a network and send two images through it, as a training will.

    Args:
        config: Which; its classes are a number.
        shape: What it has to take and to give.

    Returns:
        The number of its parameters.

    Raises:
        ConfigError: It cannot be trained, drawn from or kept; the message says why.
    """
    module = _built(config, shape, seed=0)
    _check_parameters(config, module)
    _check_draws(config, module, _built(config, shape, seed=0), _built(config, shape, seed=1))
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    _check_output(config, module.train(), shape)
    for name, buffer in module.named_buffers():
        if not _same(before[name], buffer):
            message = f"one whose buffers stay ({name} changes in a forward pass, and is not saved)"
            raise _refused(config, message)
    _check_output(config, module.eval(), shape)
    return sum(parameter.numel() for parameter in module.parameters())


def _built(config: OwnConfig, shape: NetworkShape, seed: int) -> "nn.Module":
    """Return the network; what a package raises while building becomes one line."""
    try:
        return build_module(config, shape, seed)
    except ConfigError:
        raise
    except Exception as error:
        raise _refused(config, f"one that can be built ({_line(error)})") from error


def _check_parameters(config: OwnConfig, module: "nn.Module") -> None:
    import torch

    named = dict(module.named_parameters())
    if not named:
        raise _refused(config, "one with parameters")
    for name, parameter in named.items():
        if parameter.dtype != torch.float32:
            message = f"one of float32 parameters ({name} is {parameter.dtype})"
            raise _refused(config, message)
        if not parameter.requires_grad:
            message = f"one whose parameters all learn ({name} does not: make it a buffer)"
            raise _refused(config, message)


def _check_draws(
    config: OwnConfig, module: "nn.Module", again: "nn.Module", other: "nn.Module"
) -> None:
    """Weights must follow from the seed, and nothing but weights from it: buffers are not saved."""
    same = dict(again.named_parameters())
    for name, parameter in module.named_parameters():
        if name not in same or not _same(parameter, same[name]):
            message = (
                f"one whose weights follow from torch's seed ({name} differs when built again)"
            )
            raise _refused(config, message)
    others = dict(other.named_buffers())
    for name, buffer in module.named_buffers():
        if name not in others or not _same(buffer, others[name]):
            message = f"one whose buffers follow from its settings ({name} is drawn by chance)"
            raise _refused(config, message)


def _same(one: Any, other: Any) -> bool:
    import torch

    return bool(torch.equal(one, other))


def _check_output(config: OwnConfig, module: "nn.Module", shape: NetworkShape) -> None:
    """Send noise through the network, with labels where it has some: the last means no class."""
    import torch

    channels, height, width = shape.image_shape
    x_t = torch.linspace(-1.0, 1.0, _TRIED_IMAGES * channels * height * width)
    x_t = x_t.view(_TRIED_IMAGES, channels, height, width)
    t = torch.arange(_TRIED_IMAGES)
    labels = torch.tensor([0, shape.num_classes]) if shape.num_classes else None
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            output = module(x_t, t, labels)
    except Exception as error:
        message = f"one whose forward(x_t, t, labels) takes such images ({_line(error)})"
        raise _refused(config, message) from error
    wanted = (_TRIED_IMAGES, shape.out_channels, height, width)
    if not isinstance(output, torch.Tensor):
        raise _refused(config, f"one that gives a tensor, not {type(output).__name__}")
    if tuple(output.shape) != wanted:
        message = (
            f"one that gives {wanted} for {tuple(x_t.shape)} images, not {tuple(output.shape)}"
        )
        raise _refused(config, message)
    if not (output.is_floating_point() and bool(output.isfinite().all())):
        raise _refused(config, f"one that gives finite floats (its output is {output.dtype})")


def _line(error: Exception) -> str:
    text = (str(error).strip() or "no message").splitlines()[0]
    return f"{type(error).__name__}: {text[:160]}"


def _refused(config: OwnConfig, requirement: str) -> ConfigError:
    return ConfigError(OWN_NETWORK, config.network, requirement)
