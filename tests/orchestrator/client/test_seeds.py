"""Sets that differ in their seeds alone become one row, and no others do."""

import pytest

from orchestrator.client.evaluations import Evaluated, Measured
from orchestrator.client.seeds import over_seeds


def row(
    name: str, kid: float, *, seed: int = 0, steps: int = 10, recipe: str = "r", floor: float = 0.0
) -> Evaluated:
    """Return an evaluated set."""
    return Evaluated(
        job_id=f"e-{name}",
        samples=name,
        recipe=recipe,
        reference="<digits>",
        extractor="pixels",
        settings={"num_steps": steps, "seed": seed},
        metrics={"kid-pixels": Measured(value=kid, spread=0.5, floor=floor, lower_is_better=True)},
        memorisation={"authentic_share": kid},
        speed={"mean_images_per_s": 100.0 * kid},
    )


def test_sets_of_other_seeds_are_a_mean_with_its_deviation() -> None:
    """What one seed gives says little of a method; the spread is what another would change."""
    rows = [row("a", 0.1), row("b", 0.2, seed=1), row("c", 0.6, seed=2)]
    (one,) = over_seeds(rows)
    kid = one.metrics["kid-pixels"]
    assert one.samples == "a and 2 more"
    assert one.num_sets == 3
    assert kid.value == pytest.approx(0.3)
    assert kid.spread == pytest.approx(0.07**0.5)  # of .1, .2 and .6, over n - 1
    assert one.speed["mean_images_per_s"] == pytest.approx(30.0)


def test_a_mean_far_from_its_floor_is_not_at_it() -> None:
    """The error of a mean is that of its sets over the root of their number."""
    near = over_seeds([row("a", 0.0), row("b", 0.03, seed=1)])[0]
    far = over_seeds([row("a", 0.29), row("b", 0.31, seed=1)])[0]
    assert not far.metrics["kid-pixels"].is_at_floor
    assert near.metrics["kid-pixels"].is_at_floor


@pytest.mark.parametrize(
    "other", [row("b", 0.2, seed=1, steps=20), row("b", 0.2, seed=1, recipe="another")]
)
def test_sets_that_differ_otherwise_stay_apart(other: Evaluated) -> None:
    """A mean over two samplers, or two trainings, would be of nothing."""
    rows = [row("a", 0.1), other]
    assert over_seeds(rows) == rows


def test_sets_whose_training_is_gone_stay_apart() -> None:
    """Nobody can tell any more whether they were asked the same."""
    rows = [row("a", 0.1, recipe=""), row("b", 0.2, recipe="", seed=1)]
    assert over_seeds(rows) == rows
