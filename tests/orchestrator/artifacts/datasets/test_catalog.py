"""A source may have a million pictures: their names are kept on disk, in the same order."""

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orchestrator.artifacts.datasets import catalog
from orchestrator.artifacts.datasets.catalog import Catalog, Entry, Names
from orchestrator.artifacts.datasets.entries import list_folder
from orchestrator.artifacts.datasets.opened import pictures_of

NAMES = [
    f"{kind}/{number}{end}"
    for kind in ("b", "a", "\udcff")
    for number in range(30)
    for end in (".png", "é.png")
]


@pytest.fixture(params=[7, 20_000], ids=["on disk", "in memory"])
def _few(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep some entries in memory, or all."""
    monkeypatch.setattr(catalog, "_FEW", request.param)
    monkeypatch.setattr(catalog, "_PAGE", 11)


def _filled(names: list[str]) -> Catalog:
    found = Catalog()
    for place, name in enumerate(random.Random(0).sample(names, len(names))):
        found.add(Entry(name, "x.tar", place, 5, packed=bool(place % 2), crc32=place, stamp="s"))
    return found


@pytest.mark.usefixtures("_few")
def test_entries_come_in_the_order_of_their_bytes_wherever_they_are_kept() -> None:
    """The order of a set must not depend on how large it is."""
    found = _filled(NAMES)
    assert found.sort() is None
    wanted = sorted(NAMES, key=lambda name: name.encode("utf-8", "surrogateescape"))
    assert list(Names(found)) == wanted
    assert [entry.name for entry in found[13:40]] == wanted[13:40]
    assert (found[0].name, found[-1].name, len(found)) == (wanted[0], wanted[-1], len(wanted))
    entry = found.find("a/3é.png", "x.tar")
    assert entry is not None
    assert entry in found[:]
    assert entry.packed is bool(entry.first_byte % 2)
    assert found.find("a/3é.png", "y.tar") is None


@pytest.mark.usefixtures("_few")
def test_name_that_an_archive_has_twice_is_found() -> None:
    """Which of the two is meant, nobody knows."""
    found = _filled([*NAMES, "a/7.png"])
    twice = found.sort()
    assert twice is not None
    assert (twice.name, twice.path) == ("a/7.png", "x.tar")


@pytest.mark.usefixtures("_few")
def test_many_threads_read_one_catalog() -> None:
    """Pages of a listing are put into the store by several."""
    found = _filled(NAMES)
    found.sort()
    with ThreadPoolExecutor(4) as pool:
        pages = list(pool.map(lambda start: found[start : start + 5], range(0, len(NAMES), 5)))
    assert [entry for page in pages for entry in page] == list(found)


@pytest.mark.usefixtures("_few")
def test_classes_of_folders_and_members_do_not_depend_on_it(tmp_path: Path) -> None:
    """Labels are looked up by name, wherever the names are."""
    for number in range(24):
        (tmp_path / "ab"[number % 2]).mkdir(exist_ok=True)
        (tmp_path / "ab"[number % 2] / f"{number:02}.png").write_bytes(b"\x89PNG\r\n\x1a\n")
        (tmp_path / "ab"[number % 2] / f"{number:02}.cls").write_text(str(number % 3))
    labels = pictures_of(list_folder(tmp_path), "x").labels
    even, odd = range(0, 24, 2), range(1, 24, 2)
    members, folders = labels["members"](), labels["folders"]()
    assert members is not None
    assert folders is not None
    assert members.values.tolist() == [number % 3 for number in (*even, *odd)]
    assert folders.values.tolist() == [0] * 12 + [1] * 12
