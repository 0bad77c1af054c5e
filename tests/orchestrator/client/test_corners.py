"""Which family loses which corner of the trilemma, and where nobody can say."""

from orchestrator.cli.compare import comparison_table
from orchestrator.client.corners import corner_text, corners_of, training_text
from orchestrator.client.evaluations import Evaluated, Measured


def row(
    family: str,
    *,
    kid: float,
    recall: float,
    rate: float,
    steps: int = 1,
    spread: float = 0.001,
) -> Evaluated:
    """Return a mean over three sets of a family."""
    metrics = {
        "kid-pixels": Measured(value=kid, spread=spread, lower_is_better=True, k=5),
        "recall-pixels": Measured(value=recall, spread=spread, k=5),
    }
    return Evaluated(
        job_id=f"{family}-{steps}-quality",
        samples=f"{family}-{steps}",
        reference="<digits>",
        extractor="pixels",
        settings={"family": family, "num_steps": steps},
        metrics=metrics,
        speed={"mean_images_per_s": rate},
        num_sets=3,
        training_s=300.0,
    )


ROWS = [
    row("ddpm", kid=0.001, recall=0.95, rate=2.0, steps=1000),
    row("ddpm", kid=0.9, recall=0.1, rate=200.0, steps=10),
    row("vae", kid=0.02, recall=0.9, rate=5000.0),
    row("gan", kid=0.01, recall=0.4, rate=4000.0),
]


def test_each_corner_names_its_loser() -> None:
    """A DDPM is slow, a GAN misses much, a VAE blurs; ten steps are not what a DDPM can do."""
    found = {corner.name: corner for corner in corners_of(ROWS)}
    assert {name: corner.places[-1].family for name, corner in found.items()} == {
        "quality": "vae",
        "coverage": "gan",
        "speed": "ddpm",
    }
    assert all(corner.is_told_apart for corner in found.values())
    assert corner_text(found["quality"]) == (
        "quality (kid): lost by vae: ddpm 0.0010 ±0.0010, gan 0.0100 ±0.0010, vae 0.0200 ±0.0010"
    )


def test_what_lies_within_its_errors_is_lost_by_nobody() -> None:
    """Three seeds that scatter as far as the families differ prove nothing."""
    rows = [
        row("vae", kid=0.02, recall=0.9, rate=1.0, spread=0.02),
        row("gan", kid=0.03, recall=0.4, rate=2.0, spread=0.02),
    ]
    quality, coverage, _ = corners_of(rows)
    assert not quality.is_told_apart
    assert coverage.is_told_apart
    assert "cannot be distinguished" in corner_text(quality)


def test_people_read_the_corners_below_the_table() -> None:
    """With how long each was trained: the comparison is one of equal times."""
    lines = comparison_table(ROWS).splitlines()
    assert any(line.strip().startswith("speed (images/s): lost by ddpm") for line in lines)
    assert training_text(ROWS) == "trained for: ddpm 300 s, vae 300 s, gan 300 s"
    assert lines[-1].strip() == training_text(ROWS)


def test_one_family_has_no_corners() -> None:
    """A comparison of samplers is none of families."""
    assert corners_of(ROWS[:2]) == []
    assert "trilemma" not in comparison_table(ROWS[:2])
