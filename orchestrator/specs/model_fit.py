"""What the model that a job draws from decides where its file says nothing, and what it forbids.

Asked as soon as the training is known: at the check of a pipeline, or at submit.
"""

import functools
from dataclasses import replace

from ddpm.config import ConfigError, SamplingConfig, differing_weights
from orchestrator.counts import counted
from orchestrator.specs.checks import Gives
from orchestrator.specs.extension import goes_on
from orchestrator.specs.job import Job
from orchestrator.specs.likelihood import LikelihoodJob
from orchestrator.specs.located_errors import FieldsError
from orchestrator.specs.sample import SampleJob
from orchestrator.specs.train import TrainJob

_STEPS = ("sampling", "num_steps")


def fitted(spec: Job, source: Job | None, named: str, gives: Gives) -> Job:
    """Return a job as it is with the model of another one; most are as they are.

    Args:
        spec: What reads the model.
        source: What makes it; None where nobody knows by now.
        named: What messages call that: its id, or "step train".
        gives: Tells whether a field of the job was written.

    Raises:
        FieldsError: The two do not go together.
    """
    return _fitted(spec, source, named, gives) if isinstance(source, TrainJob) else spec


@functools.singledispatch
def _fitted(spec: Job, trained: TrainJob, named: str, gives: Gives) -> Job:
    del trained, named, gives
    return spec


@_fitted.register
def _sampling(spec: SampleJob, trained: TrainJob, named: str, gives: Gives) -> SampleJob:
    """A VAE or GAN draws in one step, whatever the default of a DDPM is."""
    if trained.model.family == "ddpm" or gives(_STEPS):
        if message := steps_fault(spec.sampling, trained, named):
            raise FieldsError((("model",), _STEPS), message)
        return spec
    try:
        sampling = replace(spec.sampling, num_steps=1)
    except ConfigError as error:
        message = (
            f"the model is a {trained.model.family}, which draws in one step: sampling.{error}"
        )
        raise FieldsError((("sampling", "method"), _STEPS), message) from error
    return spec.model_copy(update={"sampling": sampling})


def steps_fault(sampling: SamplingConfig, trained: TrainJob, named: str) -> str:
    """Return why a model can't draw in so many steps, or "" if it can."""
    steps, limit = sampling.num_steps, trained.diffusion.num_timesteps
    if steps <= limit:
        return ""
    there = counted(limit, "timestep")
    return (
        f"sampling.num_steps is {steps}, but the model of {named} has {there}; ask for {limit} "
        "at most"
    )


@_fitted.register
def _training(spec: TrainJob, trained: TrainJob, named: str, gives: Gives) -> TrainJob:
    """Weights are those of the same network, which predicts the same."""
    del gives
    if goes_on(spec):  # of that more must be equal, which is reported in words of its own
        return spec
    ours = (spec.model, spec.diffusion)
    for found, wanted, name in differing_weights((trained.model, trained.diffusion), ours):
        section, _, field = name.partition(".")
        raise FieldsError(
            (("init",), (section,), (section, field)),
            f"init: {named} has {name} {found}, and this training {wanted}: they must be equal",
        )
    return spec


@_fitted.register
def _likelihood(spec: LikelihoodJob, trained: TrainJob, named: str, gives: Gives) -> LikelihoodJob:
    del named, gives
    if trained.model.family != "ddpm":
        raise FieldsError(
            (("model",), *(("model", key) for key in ("job", "checkpoint", "registered"))),
            f"the model is a {trained.model.family}: a likelihood job bounds a DDPM's alone (a "
            "VAE's training logs its own bound at its end)",
        )
    return spec
