"""The label of image k is a function of k, whoever draws it and wherever it is read."""

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from ddpm.config import ConfigError, SamplingConfig
from orchestrator.artifacts.samples.decisions import SET_DECISIONS
from orchestrator.artifacts.samples.labels import NO_CLASS, LabelRule, by_class, make_rule
from tests.support.models import model_of

NAMES = ("cat", "dog", "eel")


def rule(labels: Any) -> LabelRule:
    """Return the rule that a job file's labels mean for a model of three classes."""
    made = make_rule(SamplingConfig(labels=labels), 3, NAMES)
    assert made is not None
    return made


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        (None, [0, 1, 2, 0, 1, 2, 0]),
        ("balanced", [0, 1, 2, 0, 1, 2, 0]),
        ("none", [NO_CLASS] * 7),
        ({"dog": 2, "cat": 5}, [1, 1, 0, 0, 0, 0, 0]),
        ({"2": 7}, [2] * 7),
        (("eel", 0), [2, 0, 2, 0, 2, 0, 2]),
    ],
)
def test_labels_are_a_function_of_the_images_number(labels: Any, wanted: list[int]) -> None:
    """Shards of any size must agree, and a padded microbatch goes beyond the set's end."""
    made = rule(labels)
    assert made.of(0, 7).tolist() == wanted
    parts = [made.of(start, start + 3) for start in (0, 3, 6)]
    assert np.concatenate(parts)[:7].tolist() == wanted
    stored = {"model": asdict(model_of("t")), "sampling": {}, "labels": made.to_json()}
    assert SET_DECISIONS.of(stored).labels == made


@pytest.mark.parametrize("labels", [{"cow": 3}, ("cow",), (3,), {"3": 2}])
def test_a_class_that_the_model_does_not_know_is_refused(labels: Any) -> None:
    """It would be drawn as some other class, or as an error in a worker."""
    with pytest.raises(ConfigError, match="one of the model's classes"):
        rule(labels)


@pytest.mark.parametrize("config", [{"labels": "balanced"}, {"guidance_scale": 2.0}])
def test_labels_and_guidance_need_a_model_that_knows_classes(config: dict[str, Any]) -> None:
    """They would be silently ignored."""
    with pytest.raises(ConfigError, match="the model knows no classes"):
        make_rule(SamplingConfig(**config), 0)
    assert make_rule(SamplingConfig(), 0) is None


def test_a_grid_has_a_row_for_each_class() -> None:
    """That is how one sees whether a class was learnt."""
    images = np.arange(10, dtype=np.uint8).reshape(10, 1, 1, 1)
    shown, columns = by_class(images, rule("balanced"))
    assert columns == 3
    assert shown.flatten().tolist() == [0, 3, 6, 1, 4, 7, 2, 5, 8]
    assert by_class(images, None)[1] is None


@pytest.mark.parametrize(
    "config",
    [
        {"guidance_scale": -1.0},
        {"guidance_interval": (0.2, 0.8)},
        {"guidance_scale": 2.0, "guidance_interval": (0.8, 0.2)},
        {"guidance_scale": 2.0, "labels": "none"},
        {"labels": {"cat": 0}},
    ],
)
def test_guidance_that_cannot_be_is_refused(config: dict[str, Any]) -> None:
    """A setting that changes nothing is a mistake that shows late."""
    with pytest.raises(ConfigError):
        SamplingConfig(**config)
