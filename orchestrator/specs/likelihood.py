"""What a user asks for when the bits per dimension of real images under a model are wanted."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from orchestrator.counts import counted
from orchestrator.errors import BadInputError
from orchestrator.specs.job import Job
from orchestrator.specs.resources import SampleResources, WorkerRange
from orchestrator.specs.sections import DatasetSpec, ModelRef


class LikelihoodJob(Job):
    """Bound -log p(x_0) of real images under a trained model, in bits per dimension.

    Attributes:
        model: The model; exactly one of job, registered and checkpoint is given.
        dataset: The images; with the training's own source and holdout_fraction, its own split.
        split: The images that were held out, those that were trained on, or all.
        num_images: The first so many of them; none for all.
        num_draws: How often timesteps and noise are drawn for each image.
        num_timesteps: Timesteps of a draw, stratified over the T; none for all T.
        clip_denoised: Clip the predicted x_0 to [-1, 1].
        seed: Of the draws: those of image k depend on it and on k.
        shard_size: Images that are committed together, and go through the network together.
    """

    kind: Literal["likelihood"]
    model: ModelRef
    dataset: DatasetSpec
    split: Literal["held_out", "train", "all"] = "held_out"
    num_images: Annotated[int, Field(ge=1)] | None = None
    num_draws: Annotated[int, Field(ge=1, le=1000)] = 1
    num_timesteps: Annotated[int, Field(ge=2)] | None = None
    clip_denoised: bool = True
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    shard_size: Annotated[int, Field(ge=1, le=10_000)] = 64
    resources: SampleResources = Field(default_factory=SampleResources)

    @property
    def total(self) -> int:
        """Images, as far as the file tells: 0 where all are wanted."""
        return self.num_images or 0

    @property
    def num_workers(self) -> WorkerRange:
        """Least and most workers."""
        return self.resources.num_workers

    @property
    def model_input(self) -> ModelRef:
        """The model under which images are likely or not."""
        return self.model

    @property
    def dataset_input(self) -> DatasetSpec:
        """The images."""
        return self.dataset

    def count(self, num_all: int) -> int:
        """Return how many images of a data set it looks at.

        Args:
            num_all: Images of the set.

        Raises:
            BadInputError: The split has none, or fewer than are asked for.
        """
        fraction = self.dataset.holdout_fraction
        held_out = round(num_all * fraction)
        found = {"all": num_all, "held_out": held_out, "train": num_all - held_out}[self.split]
        if found < 1:
            raise BadInputError(
                f"split {self.split} has no image: dataset.holdout_fraction is {fraction:g} of "
                f"{counted(num_all, 'image')}; give the training's own, or split: all"
            )
        if self.num_images is not None and self.num_images > found:
            raise BadInputError(
                f"num_images is {self.num_images}, but split {self.split} has "
                f"{counted(found, 'image')}; ask for {found} at most"
            )
        return self.num_images or found

    def smoke_changes(self) -> Mapping[str, object]:
        """One image with two timesteps, on one worker."""
        return {
            "resources": self.resources.model_copy(update={"num_workers": WorkerRange()}),
            "num_images": 1,
            "num_draws": 1,
            "num_timesteps": 2,
        }
