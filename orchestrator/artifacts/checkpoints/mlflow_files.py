"""The files that make a checkpoint's folder a model for MLflow: what it takes, gives and needs.

They lie beside the weights, so that a registered version, whose source is that folder, is a model
that `mlflow.pyfunc.load_model` loads wherever this package is installed. MLmodel is YAML, of which
JSON is a part; MLflow itself is not needed to write it.
"""

import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType

LOADER = "orchestrator.sampling.pyfunc"
EXAMPLE: Mapping[str, object] = {"num_samples": 16, "seed": 0}
_PACKAGES = ("ddpmctl", "torch", "numpy", "mlflow")
_COLUMNS = (
    ("num_samples", "long", True),
    ("seed", "long", False),
    ("method", "string", False),
    ("num_steps", "long", False),
    ("labels", "string", False),
    ("guidance_scale", "double", False),
    ("microbatch_size", "long", False),
)


def write_mlflow_files(
    folder: Path,
    image_shape: tuple[int, int, int],
    packages: Mapping[str, str] = MappingProxyType({}),
) -> list[Path]:
    """Write MLmodel, its input example and its environment beside the files of a checkpoint.

    Args:
        folder: Of the checkpoint.
        image_shape: (C, H, W).
        packages: What the model needs besides ddpmctl: versions by name.

    Returns:
        Their paths.
    """
    needed = {**{name: version(name) for name in _PACKAGES}, **packages}
    requirements = "".join(f"{name}=={number}\n" for name, number in needed.items())
    texts = {
        "MLmodel": json.dumps(_model(image_shape), indent=1),
        "input_example.json": json.dumps(EXAMPLE),
        "requirements.txt": requirements,
        "python_env.yaml": json.dumps(
            {"python": platform.python_version(), "dependencies": ["-r requirements.txt"]}
        ),
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    return [folder / name for name in texts]


def _model(image_shape: tuple[int, int, int]) -> dict[str, object]:
    channels, height, width = image_shape
    columns = [{"name": n, "type": t, "required": r} for n, t, r in _COLUMNS]
    images = {"dtype": "uint8", "shape": [-1, height, width, channels]}
    return {
        "flavors": {
            "python_function": {
                "loader_module": LOADER,
                "env": {"virtualenv": "python_env.yaml"},
                "python_version": platform.python_version(),
            }
        },
        "mlflow_version": version("mlflow"),
        "signature": {
            "inputs": json.dumps(columns),
            "outputs": json.dumps([{"type": "tensor", "tensor-spec": images}]),
            "params": None,
        },
        "saved_input_example_info": {
            "artifact_path": "input_example.json",
            "type": "json_object",
        },
    }
