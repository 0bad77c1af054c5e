"""What all configurations share: the error, its checks, and words that several of them take."""

from typing import Literal

Precision = Literal["auto", "bf16", "float32"]
Prediction = Literal["epsilon", "x_start", "mean", "v"]
Variance = Literal["fixed_small", "fixed_large", "learned"]

CLOSED: dict[str, object] = {"extra": "forbid", "allow_inf_nan": False, "strict": True}


class ConfigError(ValueError):
    """A field of a configuration holds a value that it must not hold."""

    def __init__(self, field: str, value: object, requirement: str) -> None:
        super().__init__(field, value, requirement)
        self.field = field
        self.value = value
        self.requirement = requirement

    def __str__(self) -> str:
        return f"{self.field} must be {self.requirement}, not {self.value!r}"


def require(holds: bool, field: str, value: object, requirement: str) -> None:
    """Raise ConfigError unless a condition holds."""
    if not holds:
        raise ConfigError(field, value, requirement)


def require_positive(config: object, *fields: str) -> None:
    """Raise ConfigError unless all these fields of a configuration are greater than 0."""
    for field in fields:
        value = getattr(config, field)
        require(value > 0, field, value, "greater than 0")


def check_precision(precision: Precision, prediction: Prediction, field: str = "precision") -> None:
    """Raise ConfigError where bfloat16 would throw away what the network predicts."""
    require(
        precision != "bf16" or prediction != "mean",
        field,
        precision,
        "float32 (or auto) with prediction mean, whose x_0 bfloat16 would round away",
    )
