"""Ray keeps one wish for a cluster; several stores' are added up before it is told."""

import pytest

from orchestrator.cluster.autoscaler import node_types_here, parse_node_types
from orchestrator.cluster.growth_actor import FORGET_AFTER_S, Wishes
from orchestrator.errors import BadInputError
from orchestrator.scheduling.demand import Bundle
from orchestrator.scheduling.nodes import NodeType


class Asked:
    """Notes what the autoscaler is asked for."""

    def __init__(self) -> None:
        self.wishes: list[list[tuple[dict[str, float], dict[str, str]]]] = []

    def __call__(self, bundles: list[dict[str, float]], selectors: list[dict[str, str]]) -> None:
        """Take a wish."""
        self.wishes.append(list(zip(bundles, selectors, strict=True)))


def test_two_stores_wishes_are_added_up() -> None:
    """Whoever asked last would take the other's nodes away."""
    asked = Asked()
    wishes = Wishes(asked)
    wishes.wish("s3://a", [Bundle(2.0, 1.0, 8.0, (("zone", "a"),))], 0.0)
    wishes.wish("s3://b", [Bundle(1.0)], 1.0)
    first = ({"CPU": 2.0, "GPU": 1.0, "memory": 8_000_000_000}, {"zone": "a"})
    assert asked.wishes == [[first], [({"CPU": 1.0}, {}), first]]
    wishes.wish("s3://b", [Bundle(1.0)], 30.0)  # the same again: nobody is asked
    wishes.wish("s3://a", [], 31.0)
    assert asked.wishes[2:] == [[({"CPU": 1.0}, {})]]


def test_a_store_that_is_silent_is_forgotten() -> None:
    """An orchestrator that is gone for good must not keep a hundred GPUs up."""
    asked = Asked()
    wishes = Wishes(asked)
    wishes.wish("s3://a", [Bundle(1.0)], 0.0)
    wishes.wish("s3://b", [Bundle(2.0)], 100.0)
    wishes.ask(FORGET_AFTER_S + 1.0)
    assert asked.wishes[-1] == [({"CPU": 2.0}, {})]
    wishes.ask(FORGET_AFTER_S + 101.0)
    assert asked.wishes[-1] == []
    assert len(asked.wishes) == 4


def test_an_actor_that_was_started_anew_asks_even_for_nothing() -> None:
    """What its forerunner asked for stands until it is replaced."""
    asked = Asked()
    Wishes(asked).wish("s3://a", [], 0.0)
    assert asked.wishes == [[]]


def test_node_types_are_read_from_the_heads_settings() -> None:
    """Ray tells nobody what its autoscaler may start; what can never come is not waited for."""
    text = """[{"name": "gpu", "cpus": 8, "gpus": 4, "memory_gb": 64, "accelerator": "H100",
               "max_count": 2}, {"name": "c", "cpus": 4, "max_count": 9}]"""
    assert parse_node_types(text) == [
        NodeType(name="gpu", cpus=8, gpus=4, memory_gb=64, accelerator="H100", max_count=2),
        NodeType(name="c", cpus=4, gpus=0, memory_gb=0, accelerator="", max_count=9),
    ]
    assert parse_node_types(" ") == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{gpu: 1", "is no JSON"),
        ('{"name": "gpu"}', "must be a list"),
        ('[{"name": "gpu", "max": 2}]', "'max' is no key"),
        ('[{"name": "gpu", "max_count": 0}]', "max_count must be"),
        ('[{"name": "gpu", "gpus": -1, "max_count": 1}]', "gpus must be"),
        ('[{"gpus": 1, "max_count": 1}]', "has a name"),
    ],
)
def test_wrong_node_types_are_told_and_ask_for_nothing(
    text: str, told: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A slip in a setting must not keep the orchestrator from its jobs."""
    with pytest.raises(BadInputError, match=told):
        parse_node_types(text)
    monkeypatch.setenv("DDPMCTL_NODE_TYPES", text)
    assert node_types_here() == []
    assert told in caplog.text
