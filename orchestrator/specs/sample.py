"""A sample set, as a job file has it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ddpm.config import (
    SamplingConfig,
)
from orchestrator.specs.job import Job
from orchestrator.specs.located_errors import FieldsError
from orchestrator.specs.microbatches import with_fitting_microbatch
from orchestrator.specs.resources import SampleResources, WorkerRange
from orchestrator.specs.sections import (
    ModelRef,
    SampleTrackingSpec,
)

SMOKE_STEPS = 2  # reverse steps of its smoke test


class SampleJob(Job):
    """Draw images from a trained model.

    Attributes:
        model: The model that draws; one of job, registered, checkpoint and diffusers.
        num_samples: Images of the set.
        sampling: How they are drawn.
        shard_size: Images that are committed together, a multiple of the microbatch; one that was
            left out becomes a divisor of it.
        format: `webdataset` is tars of PNGs named by index, `npy` is arrays.
    """

    kind: Literal["sample"]
    model: ModelRef
    num_samples: Annotated[int, Field(ge=1, le=10**9)]
    sampling: SamplingConfig = SamplingConfig()
    shard_size: Annotated[int, Field(ge=1, le=10**6)] = 1024
    format: Literal["webdataset", "npy"] = "webdataset"
    tracking: SampleTrackingSpec = Field(default_factory=SampleTrackingSpec)
    resources: SampleResources = Field(default_factory=SampleResources)

    @property
    def total(self) -> int:
        """Images."""
        return self.num_samples

    @property
    def num_workers(self) -> WorkerRange:
        """Least and most workers."""
        return self.resources.num_workers

    @property
    def model_input(self) -> ModelRef:
        """The model that draws."""
        return self.model

    @property
    def drawing(self) -> SamplingConfig:
        """How it draws."""
        return self.sampling

    @property
    def images_per_shard(self) -> int:
        """Images that are committed together; a small set is one shard."""
        return min(self.shard_size, self.num_samples)

    def smoke_changes(self) -> Mapping[str, object]:
        """One image of few steps, on one worker."""
        num_steps = min(SMOKE_STEPS, self.sampling.num_steps)
        return {
            "resources": self.resources.model_copy(update={"num_workers": WorkerRange()}),
            "sampling": replace(self.sampling, num_steps=num_steps, spacing="linear", trajectory=0),
            "num_samples": 1,
            "shard_size": self.sampling.microbatch_size,
        }

    @model_validator(mode="after")
    def _fits_what_was_left_out(self) -> Self:
        # A file's keys were completed before; this is for who makes a job in Python.
        if "sampling" not in self.model_fields_set:
            fitting = with_fitting_microbatch({"shard_size": self.shard_size}).get("sampling", {})
            object.__setattr__(self, "sampling", replace(self.sampling, **fitting))
        return self

    @model_validator(mode="after")
    def _microbatches_fill_shards(self) -> Self:
        microbatch = self.sampling.microbatch_size
        if self.shard_size % microbatch:
            raise FieldsError(
                (("sampling", "microbatch_size"), ("shard_size",)),
                f"shard_size ({self.shard_size}) must be a multiple of "
                f"sampling.microbatch_size ({microbatch})",
            )
        return self
