"""The first phase of a training's attempt: one step, one checkpoint, one image, all thrown away.

What would break the attempt hours later breaks it now. The state is put back to the bit, so that
nothing of it can be seen in what the job computes.
"""

import logging
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch

from ddpm.config import SamplingConfig
from ddpm.process.gaussian import GaussianDiffusion
from ddpm.process.sampling import draw, to_uint8
from ddpm.training.checkpoint import StateSnapshot, load_state
from ddpm.training.data import ImageDataset
from ddpm.training.loop import TrainState, train_steps
from orchestrator.artifacts.checkpoints.checkpoints import CheckpointStore
from orchestrator.artifacts.images import MAX_PNG_CHANNELS, decode_png, encode_png
from orchestrator.attempts.attempt import Attempt
from orchestrator.attempts.smoke import smoke_part
from orchestrator.errors import CheckpointError
from orchestrator.jobs.decisions import Decisions
from orchestrator.specs.sample import SMOKE_STEPS
from orchestrator.store.outages import Backoff, outlast_outage
from orchestrator.training.report import AveragedModel

logger = logging.getLogger(__name__)


def smoke_training(
    attempt: Attempt, state: TrainState, images: ImageDataset, decided: Decisions, rank: int
) -> None:
    """Try everything that a training does, and leave no trace.

    All ranks take the step together; the first one does the rest.

    Args:
        attempt: What it is the first phase of.
        state: As the attempt begins with it; it is the same afterwards.
        images: To train on.
        decided: What checkpoints of this job say of it.
        rank: This worker.

    Raises:
        SmokeTestError: Something went wrong; it has the reason of what did.
    """
    began_at = time.monotonic()
    before = StateSnapshot.take(state, decided.values)
    with smoke_part("taking a step"):
        for _ in train_steps(state, images, until_step=state.step + 1):
            pass
    if rank == 0:
        with smoke_part("saving a checkpoint and reading it back"):
            _try_checkpoint(attempt, state, decided)
        with smoke_part("drawing an image"):
            _try_image(state)
        logger.info("smoke test passed in %.2f s", time.monotonic() - began_at)
    before.put_back(state)


def _try_checkpoint(attempt: Attempt, state: TrainState, decided: Decisions) -> None:
    checkpoints = CheckpointStore(attempt.store, attempt.job_paths)
    with tempfile.TemporaryDirectory(prefix="ddpmctl-smoke-") as name:
        written, back = Path(name) / "written", Path(name) / "back"
        back.mkdir()
        saved = StateSnapshot.take(state, decided.values)
        saved.write(written)
        outlast_outage(
            lambda: checkpoints.rehearse(written, attempt.number, back),
            Backoff(),
            threading.Event(),
        )
        load_state(state, back)
    if not saved.matches(state):
        raise CheckpointError("the state that came back is not the one that was saved")


def _try_image(state: TrainState) -> None:
    num_timesteps = state.diffusion_config.num_timesteps
    drawn = draw(
        AveragedModel(state),
        GaussianDiffusion(state.diffusion_config).to(state.compute.device),
        SamplingConfig(method="ddim", num_steps=min(SMOKE_STEPS, num_timesteps)),
        torch.zeros(1, dtype=torch.int64, device=state.compute.device),
        state.model.image_shape,
    )
    pixels = to_uint8(drawn).cpu().numpy()[0]
    if pixels.shape[-1] > MAX_PNG_CHANNELS:  # no PNG; grids of such images show their first channel
        return
    if not np.array_equal(decode_png(encode_png(pixels)), pixels):
        raise RuntimeError("the image that came back is not the one that was drawn")
