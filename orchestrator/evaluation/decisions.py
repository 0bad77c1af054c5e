"""What was decided once for an evaluation, and for a likelihood."""

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.evaluation.image_sets import ImageSet
from orchestrator.lifecycle.model import ResolvedModel
from orchestrator.specs.measuring import ExtractorSpec
from orchestrator.store.codec import Codec


@dataclass(frozen=True, kw_only=True)
class EvaluationDecisions:
    """What is compared, and how.

    Attributes:
        of: What is evaluated.
        against: The real images.
        extractor: What computes features.
        statistics_sha256: Hash of the published statistics that were asked for; "" for none.
    """

    of: ImageSet
    against: ImageSet
    extractor: ExtractorSpec
    statistics_sha256: str = ""

    @property
    def sets(self) -> tuple[ImageSet, ImageSet]:
        """What is evaluated, and the real images."""
        return self.of, self.against


@dataclass(frozen=True, kw_only=True)
class BoundDecisions:
    """What fixes the bits of a likelihood.

    Attributes:
        model: The checkpoint.
        compute: How the network computes, as `ddpm.compute.ComputeDecision` writes it.
    """

    model: ResolvedModel
    compute: Mapping[str, object]


EVALUATION_DECISIONS = Codec(EvaluationDecisions, "what was decided for an evaluation")
BOUND_DECISIONS = Codec(BoundDecisions, "what was decided for a likelihood")
