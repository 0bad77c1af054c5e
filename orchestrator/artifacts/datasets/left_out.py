"""What became of every file of a source: nothing is left out without a word."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from orchestrator.counts import counted
from orchestrator.errors import one_line

HIDDEN = "hidden"
MACOSX = "__MACOSX"
NO_IMAGE = "no image"
DANGLING = "dangling link"
LOOP = "link in a loop"
NO_FILE = "no plain file"
UNREADABLE = "unreadable folder"
EMPTY = "empty folder"
ARRAY = "array"
COLUMN = "column"
BESIDE = "picture beside the set"
_NAMED = 2  # of what is left out for a reason, so many are named
_BY_SUFFIX = frozenset({NO_IMAGE})


# What parts of a set are called, which nobody should train on together unawares.
_PARTS = frozenset({"train", "training", "test", "testing", "val", "valid", "validation", "dev"})


def parts_of_sets(names: Iterable[str]) -> set[str]:
    """Return which of these names are such of parts."""
    return {name for name in names if name.lower() in _PARTS}


@dataclass(frozen=True)
class LeftOut:
    """How many files were left out for one reason.

    Attributes:
        reason: Why.
        suffix: Of their names, in lower case.
        count: How many.
    """

    reason: str
    suffix: str
    count: int


@dataclass(frozen=True)
class SurveyReport:
    """What became of the files of a source, as a manifest says it.

    Attributes:
        left_out: By reason and suffix.
        named: Some names of what was left out, by reason.
        links_followed: Links that led to a file or a folder.
        notes: What was done to files that are taken, and to how many.
    """

    left_out: tuple[LeftOut, ...] = ()
    named: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    links_followed: int = 0
    notes: Mapping[str, int] = field(default_factory=dict)


@dataclass
class Survey:
    """Counts what is left out of a source and why, in memory that doesn't grow with it.

    Attributes:
        links_followed: Links that led to a file or a folder.
        notes: What was done to files that are taken, and to how many: animations cut to a frame.
    """

    links_followed: int = 0
    notes: Counter[str] = field(default_factory=Counter)
    _counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    _names: dict[str, list[str]] = field(default_factory=dict)

    def leave_out(self, reason: str, name: str) -> None:
        """Count something that is not taken."""
        suffix = one_line(PurePosixPath(name).suffix.lower())
        self._counts[reason, suffix or "no suffix"] += 1
        named = self._names.setdefault(reason, [])
        if len(named) < _NAMED:
            named.append(one_line(name))

    def take_back(self, reason: str, name: str) -> None:
        """Count something as taken after all that was left out."""
        suffix = one_line(PurePosixPath(name).suffix.lower()) or "no suffix"
        self._counts -= Counter({(reason, suffix): 1})
        named = self._names.get(reason, [])
        if one_line(name) in named:
            named.remove(one_line(name))

    def take_as_labels(self, ending: str, count: int) -> None:
        """Count files that hold labels as taken after all; they were left out as no images.

        Args:
            ending: Of their names: ".cls", "dataset.json".
            count: How many.
        """
        suffix = PurePosixPath(f"x{ending}").suffix
        self._counts -= Counter({(NO_IMAGE, suffix): count})
        named = self._names.get(NO_IMAGE, [])
        named[:] = [name for name in named if not name.endswith(ending)]
        self.notes[f"files of labels ({ending})"] = count

    def note_parts(self, names: Iterable[str]) -> None:
        """Note that a source has parts as train and test, by its files' folders or beginnings."""
        words = {word for name in names for word in _words(name)}
        found = parts_of_sets(words)
        if len(found) > 1:
            self.notes[f"parts taken together as one set ({', '.join(sorted(found))})"] = len(found)

    @property
    def num_left_out(self) -> int:
        """All that is not taken."""
        return self._counts.total()

    def line(self, num_taken: int) -> str:
        """Return one line for people: what was taken, what was left out and why."""
        parts = [f"{counted(num_taken, 'image')} taken"]
        if self._counts:
            parts.append(f"{self.num_left_out} left out: {self._reasons()}")
        if self.links_followed:
            parts.append(f"{counted(self.links_followed, 'link')} followed")
        parts += [f"{note}: {count}" for note, count in sorted(self.notes.items())]
        return "; ".join(parts)

    def found(self) -> str:
        """Return what there was instead of images, for the message that there are none."""
        return self._reasons() or "nothing"

    def _reasons(self) -> str:
        reasons = Counter[str]()
        for (reason, _), count in self._counts.items():
            reasons[reason] += count
        return ", ".join(
            f"{count} {reason} ({self._detail(reason)})" for reason, count in reasons.most_common()
        )

    def _detail(self, reason: str) -> str:
        if reason in _BY_SUFFIX:
            suffixes = {s: n for (r, s), n in self._counts.items() if r == reason}
            return ", ".join(f"{suffix} {count}" for suffix, count in sorted(suffixes.items()))
        names = self._names[reason]
        count = sum(n for (r, _), n in self._counts.items() if r == reason)
        return ", ".join(names) + (", ..." if count > len(names) else "")

    def report(self) -> "SurveyReport":
        """Return what a manifest keeps of it."""
        counts = sorted(self._counts.items())
        return SurveyReport(
            left_out=tuple(LeftOut(reason, suffix, count) for (reason, suffix), count in counts),
            named={reason: tuple(names) for reason, names in self._names.items()},
            links_followed=self.links_followed,
            notes=dict(self.notes),
        )


def _words(name: str) -> Iterator[str]:
    """Yield the folders of a file, and what stands before the number of a shard."""
    *folders, file = name.split("/")
    yield from folders
    if "-of-" in file:
        yield file.partition("-")[0]
