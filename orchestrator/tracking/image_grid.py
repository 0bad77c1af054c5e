"""The files by which MLflow shows images of one key side by side, by step."""

import hashlib
import io
import re

from orchestrator.tracking.lines import ImageLine

_STEP = re.compile(r"/step-\d+$")
_SMALL = (256, 256)


def grid_files(line: ImageLine, png: bytes) -> dict[str, bytes]:
    """Return the files of an image in MLflow's grid, by their paths.

    They are those of `MlflowClient.log_image(key=, step=)`, but that the same line makes the same
    names: one that is sent again after a crash takes its own place.

    Args:
        line: The image.
        png: Its file.
    """
    from PIL import Image

    key = _STEP.sub("", line.path.removesuffix(".png")).replace("/", "~")
    mark = hashlib.sha256(line.key.encode()).hexdigest()[:32]
    name = f"images/{key}+step+{line.step}+timestamp+{line.at_ms}+{mark}"
    small = Image.open(io.BytesIO(png))
    small.thumbnail(_SMALL)
    webp = io.BytesIO()
    small.convert("RGB").save(webp, "webp")
    return {f"{name}.png": png, f"{name}+compressed.webp": webp.getvalue()}
