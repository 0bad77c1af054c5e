"""Whether a job can take the images of a data set."""

from ddpm.config import ConfigError
from orchestrator.artifacts.datasets.refs import DatasetRef
from orchestrator.errors import BadInputError
from orchestrator.specs.image_checks import ImagesSeen, remarks_on_images
from orchestrator.specs.job import Job


def images_seen(ref: DatasetRef) -> ImagesSeen:
    """Return what is known of a data set."""
    shape = (ref.channels, ref.height, ref.width)
    return ImagesSeen(ref.num_images, shape, ref.num_classes, ref.dtype, ref.value_range)


def check_fit(spec: Job, ref: DatasetRef) -> None:
    """Make sure that a job can take a data set that was not there when it was submitted.

    Raises:
        BadInputError: It cannot.
    """
    seen = images_seen(ref)
    try:
        spec.check_images(seen.shape, seen.num_classes)
    except ConfigError as error:
        raise BadInputError(f"the images of {ref.source}: {error}") from error
    for remark in remarks_on_images(spec, seen, lambda _: False):
        if remark.is_fatal:
            raise BadInputError(remark.message)
