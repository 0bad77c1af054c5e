"""Images stand in MLflow's own grid, by key and step."""

import io
import re

import numpy as np
from PIL import Image

from orchestrator.artifacts.images import encode_png
from orchestrator.tracking.image_grid import grid_files
from orchestrator.tracking.lines import ImageLine

PNG = encode_png(np.zeros((512, 300, 3), np.uint8))


def line(path: str, step: int) -> ImageLine:
    """Return the line of an image."""
    return ImageLine(at_ms=7, step=step, path=path, key=f"jobs/a/attempts/1/images/{path}")


def test_images_of_all_steps_have_one_key() -> None:
    """MLflow lays those of one key beside each other, with a slider for the step."""
    names = [grid_files(line(f"samples/step-{n:06d}.png", n), PNG) for n in (5, 10)]
    for step, files in zip((5, 10), names, strict=True):
        whole, small = sorted(files, key=len)
        assert re.fullmatch(
            rf"images/samples\+step\+{step}\+timestamp\+7\+[0-9a-f]{{32}}\.png", whole
        )
        assert small == whole.removesuffix(".png") + "+compressed.webp"
        assert files[whole] == PNG
        assert max(Image.open(io.BytesIO(files[small])).size) == 256
    assert next(iter(grid_files(line("film/forward-chain.png", 1), PNG))).startswith(
        "images/film~forward-chain+step+1+"
    )


def test_an_image_that_is_sent_again_takes_its_own_place() -> None:
    """A crash between sending and noting must not show it twice."""
    one = line("samples/step-000005.png", 5)
    assert grid_files(one, PNG).keys() == grid_files(one, PNG).keys()
