"""Verbs of the command line, called in this process on a store in memory."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click
import pytest
from click.testing import CliRunner

from orchestrator.client import surroundings
from tests.support.fakes import MemoryStore


@dataclass(frozen=True)
class Said:
    """What a verb gave.

    Attributes:
        exit_code: Its exit code.
        out: Standard output.
        err: Standard error.
    """

    exit_code: int
    out: str
    err: str

    @property
    def value(self) -> Any:
        """The JSON of standard output."""
        return json.loads(self.out)


class Verbs:
    """Calls verbs on a store in memory.

    Args:
        patch: Undone with the test.
        store: What they work on.
    """

    def __init__(self, patch: pytest.MonkeyPatch, store: MemoryStore) -> None:
        patch.setenv("DDPMCTL_STORE", "s3://bucket/jobs")
        patch.setattr(surroundings, "open_store", lambda _uri: store)

    def __call__(
        self, verb: click.Command, arguments: Sequence[str], typed: str | None = None
    ) -> Said:
        """Return what a verb gave; errors of ours are raised."""
        done = CliRunner().invoke(verb, list(arguments), input=typed)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Said(done.exit_code, done.stdout, done.stderr)
