"""A store that ignores conditions is refused before anybody's first write."""

import pytest

from orchestrator.errors import BadInputError
from orchestrator.store.conditions import prove_conditions
from tests.support.fakes import MemoryStore


class CarelessStore(MemoryStore):
    """Ignores one kind of condition."""

    def __init__(self, ignores: str) -> None:
        super().__init__()
        self._ignores = ignores

    def put(
        self, key: str, body: bytes, *, if_absent: bool = False, if_match: str | None = None
    ) -> str:
        """Write an object, whatever stands there."""
        if self._ignores == "absent":
            if_absent = False
        if self._ignores == "match" and key in self.objects:
            if_match = None
        if self._ignores == "gone" and key not in self.objects:
            if_match = None
        return super().put(key, body, if_absent=if_absent, if_match=if_match)


@pytest.mark.parametrize(
    ("ignores", "told"),
    [("absent", "put-if-absent"), ("match", "put-if-unchanged"), ("gone", "of what is gone")],
)
def test_each_condition_that_is_ignored_is_named(ignores: str, told: str) -> None:
    """The same id with another spec overwrote the first, and nobody had called doctor."""
    store = CarelessStore(ignores)
    for _ in range(2):
        with pytest.raises(BadInputError, match=told):
            prove_conditions(store)
    assert store.objects == {}


def test_a_store_is_proven_once_and_for_each_way_to_it() -> None:
    """A gateway before the same bucket may ignore what the server honours."""
    store = MemoryStore()
    prove_conditions(store)
    (proof,) = store.objects
    before = dict(store.objects)
    prove_conditions(store)
    assert store.objects == before
    store.address = "http://gateway memory://"
    prove_conditions(store)
    assert len(store.objects) == 2
    assert proof in store.objects
