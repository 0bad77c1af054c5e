"""What was decided once for a sample set, as those read it who draw, prove and export it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.artifacts.samples.labels import LabelRule
from orchestrator.lifecycle.model import ResolvedModel
from orchestrator.store.codec import Codec


@dataclass(frozen=True, kw_only=True)
class SetDecisions:
    """What fixes the bits of a set.

    Attributes:
        model: The checkpoint.
        sampling: The sampler's fields, as the version that decided knew them.
        compute: How the network computes, as `ddpm.compute.ComputeDecision` writes it.
        labels: Which image has which label; None for a set without.
        bits_version: Of the arithmetic; None where that was not counted yet.
        code_sha256: Hash of the sources, as information.
        torch: The version of torch.
        hardware: The kind of machine.
    """

    model: ResolvedModel
    sampling: Mapping[str, object]
    compute: Mapping[str, object] = field(default_factory=dict)
    labels: LabelRule | None = None
    bits_version: int | None = None
    code_sha256: str = ""
    torch: str = ""
    hardware: str = ""


SET_DECISIONS = Codec(SetDecisions, "what was decided for a set")
