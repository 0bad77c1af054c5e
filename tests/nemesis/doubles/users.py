"""Users who keep a queue full, cancel, retry, repair and delete, and ask again when a verb dies."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from orchestrator.client.deletion import delete_job
from orchestrator.client.status import request
from orchestrator.client.submit import submit_job, submit_with_smoke
from orchestrator.errors import (
    BadInputError,
    ConditionFailedError,
    JobNotFoundError,
    OrchestratorError,
    StoreUnavailableError,
)
from orchestrator.jobs.inbox import Verb
from orchestrator.jobs.records import RecordStore
from orchestrator.lifecycle.state import JobState
from orchestrator.specs.group import GroupJob
from orchestrator.store.keys import JobPaths
from tests.nemesis.doubles import jobs
from tests.nemesis.doubles.actors import Actor, Chance
from tests.nemesis.doubles.store import View
from tests.support.failing import Death

LIVE_AT_ONCE = 6
KINDS = ("train", "train", "gang", "diverging", "urgent", "sample", "smoke", "pipeline", "sweep")
_BROKEN = (JobState.FAILED, JobState.CANCELLED)


@dataclass
class Wish:
    """How a job is to end.

    Attributes:
        kind: Of `KINDS`.
        ends: States that it may end in.
        is_deleted: Whether nothing is to be left of it.
        is_asked: Whether a verb for it is on its way.
        is_repaired: Whether it was repaired once.
        children: Jobs of a group.
    """

    kind: str
    ends: frozenset[JobState]
    is_deleted: bool = False
    is_asked: bool = False
    is_repaired: bool = False
    children: tuple[str, ...] = ()


class Users(Actor):
    """All users of the store.

    Args:
        view: The store as their verbs see it.
        draw: Chance.
        odd: Told of an error that no verb is meant to meet.

    Attributes:
        wishes: By job.
        diverging: Jobs whose loss stops being finite, as long as nobody mends that.
        has_closed: Whether nothing new is submitted.
    """

    def __init__(self, view: View, draw: Chance, odd: Callable[[BaseException], None]) -> None:
        super().__init__(view)
        self.wishes: dict[str, Wish] = {}
        self.diverging: set[str] = set()
        self.has_closed = False
        self.num_verbs = 0
        self._draw, self._odd = draw, odd
        self._verbs: list[tuple[str, Callable[[], object]]] = []
        self._records = RecordStore(view.inner)

    def act(self, now: datetime) -> None:
        """Ask for something new, and again for what died on its way."""
        if not self.has_closed:
            self._want_more()
        for job_id, wish in list(self.wishes.items()):
            if not wish.is_asked and not self.has_closed and self._draw(40) == 0:
                self._change(job_id, wish)
        for asked in list(self._verbs):
            if self._done(*asked):
                self._verbs.remove(asked)

    @property
    def is_idle(self) -> bool:
        """Whether no verb is on its way."""
        return not self._verbs

    def died(self) -> None:
        """Be another process from now on: a user calls a verb again that died."""
        self.view.is_dead = False

    def _done(self, job_id: str, verb: Callable[[], object]) -> bool:
        try:
            verb()
        except (StoreUnavailableError, ConditionFailedError):
            return False
        except Death:
            self.view.is_dead = False
            return False
        except (JobNotFoundError, BadInputError, OrchestratorError) as error:
            if not self.wishes[job_id].is_deleted:
                self._odd(error)
        self.num_verbs += 1
        self.wishes[job_id].is_asked = False
        return True

    def _ask(self, job_id: str, verb: Callable[[], object]) -> None:
        self.wishes[job_id].is_asked = True
        self._verbs.append((job_id, verb))

    def _state(self, job_id: str) -> JobState | None:
        try:
            return self._records.read(job_id).record.state
        except JobNotFoundError:
            return None

    def _want_more(self) -> None:
        if len(self._verbs) + len(self._records.queued_ids()) >= LIVE_AT_ONCE:
            return
        kind = KINDS[self._draw(len(KINDS))]
        job_id = f"{kind}-{len(self.wishes)}"
        trained = [job for job, wish in self.wishes.items() if wish.kind in ("train", "gang")]
        models = [job for job in trained[-10:] if self._state(job) is JobState.SUCCEEDED]
        if kind == "sample" and not models:
            return
        end = JobState.FAILED if kind == "diverging" else JobState.SUCCEEDED
        self.wishes[job_id] = wish = Wish(kind, frozenset({end}))
        if kind == "diverging":
            self.diverging.add(job_id)
        self._ask(job_id, self._submission(kind, job_id, wish, models))

    def _submission(
        self, kind: str, job_id: str, wish: Wish, models: list[str]
    ) -> Callable[[], object]:
        if kind in ("pipeline", "sweep"):
            spec = jobs.group(kind)
            wish.children = tuple(child.job_id for child in spec.with_ids(job_id).children)
            assert isinstance(spec, GroupJob)
            return lambda: submit_job(self.view, spec, job_id)
        if kind == "sample":
            asked = jobs.drawing(models[self._draw(len(models))])
        else:
            asked = jobs.training(
                1 + self._draw(2) if kind in ("gang", "smoke") else 1, is_urgent=kind == "urgent"
            )
        submit = submit_with_smoke if kind == "smoke" else submit_job
        return lambda: submit(self.view, asked, job_id)

    def _change(self, job_id: str, wish: Wish) -> None:
        state = self._state(job_id)
        if state is None or wish.is_deleted:
            return
        if not state.has_ended:
            wish.ends |= {JobState.CANCELLED}
            self._ask(job_id, lambda: request(self.view, job_id, Verb.CANCEL, 15))
        elif state in _BROKEN and self._draw(2):
            self.diverging.discard(job_id)
            wish.ends = frozenset({JobState.SUCCEEDED})
            self._ask(job_id, lambda: request(self.view, job_id, Verb.RETRY))
        elif state is JobState.SUCCEEDED and wish.kind == "sample" and not wish.is_repaired:
            wish.is_repaired = True
            self._ask(job_id, lambda: self._repair(job_id))
        elif wish.kind not in ("train", "gang") and self._draw(4) == 0:
            wish.is_deleted = True
            self._ask(job_id, lambda: delete_job(self.view, job_id))

    def _repair(self, job_id: str) -> None:
        """Take a shard away, as `samples repair` does with a damaged one, and ask for it again."""
        self.view.delete(JobPaths(job_id).manifest)
        self.view.delete(JobPaths(job_id).shard(self._draw(jobs.SHARDS)))
        request(self.view, job_id, Verb.REPAIR)
