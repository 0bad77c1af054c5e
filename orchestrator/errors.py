"""Every error that the orchestrator raises on purpose.

::

    OrchestratorError                  exit code 1
    |-- BadInputError                  exit code 2: a job file, an option or an id is wrong
    |   |-- SpecConflictError          the same id was submitted with another spec
    |   |-- StoredFormError            what is stored is damaged, or of a newer version
    |   `-- DatasetError               an image, array or archive cannot be used
    |-- JobNotFoundError               exit code 102
    |-- InvalidTransitionError         a move that the table of states does not hold
    |-- StoreError
    |   |-- ObjectNotFoundError        no object at that key
    |   |-- ConditionFailedError       a put-if-absent or If-Match did not hold: read again
    |   |-- StoreUnavailableError      no answer, or an answer of 5xx
    |   |   `-- CredentialsExpiredError  they were good, and may be again
    |   `-- StoreRefusedError          credentials or rights refused
    |-- LeaseLostError                 another orchestrator acts now
    |-- AttemptSupersededError         the record names no attempt of this process any more
    |-- SmokeTestError                 the first look at an attempt found what would break it
    |-- CheckpointError                a checkpoint is torn, damaged or of another format
    |-- ShardDamagedError              a shard's data is not what its commit says
    |-- WorkersLostError               workers die, or find no room, and nothing gets done
    |-- RayUnavailableError            the Jobs API does not answer or refuses
    |   `-- RayRefusedError            it refuses the token
    |-- TrackingError                  MLflow does not answer or refuses
    |   |-- LineRefusedError           MLflow will never take this line
    |   `-- RunMissingError            MLflow has no such run
    |-- LocalFolderError               a folder or file here cannot be written, or is not ours
    `-- StackError                     a part of the embedded stack did not start or stop
        `-- PortTakenError             another process has its port

Every message is one line that says what, where and what to do. Constructor arguments are handed
to `Exception` unchanged, so that an error crosses a process boundary as what it is; they are read
back through `fields`, since Ray hands out a double whose arguments are another error.
A test compares this drawing with the classes.
"""

from typing import Any, ClassVar


class OrchestratorError(Exception):
    """Something that the reader of the message can act on."""

    exit_code: ClassVar[int] = 1

    @property
    def fields(self) -> tuple[Any, ...]:
        """What the error was made of.

        Of an error that an actor raised Ray makes a double, of its class and of `RayTaskError`,
        whose own arguments are the error itself; doubles may be doubled.
        """
        inner: BaseException = self
        while len(inner.args) == 1 and isinstance(inner.args[0], OrchestratorError):
            inner = inner.args[0]
        return inner.args


class BadInputError(OrchestratorError):
    """A job file, an option or an id is wrong; the message names the place."""

    exit_code = 2


class StoredFormError(BadInputError):
    """What the store holds is damaged, or in a form that only a newer version reads."""


class SpecConflictError(BadInputError):
    """A job id was used again with another spec."""

    def __init__(self, job_id: str, differing: tuple[str, ...] = ()) -> None:
        super().__init__(job_id, differing)

    def __str__(self) -> str:
        job_id, differing = self.fields
        named = f" (other: {', '.join(differing[:5])})" if differing else ""
        return (
            f"job {job_id} exists with another spec{named}; "
            "submit under a new --id, or with the spec it was made of"
        )


class JobNotFoundError(OrchestratorError):
    """No job has that id or name.

    Args:
        job: What was asked for.
        group: The live group that is going to have such a job; "" if none is.
    """

    exit_code = 102

    def __init__(self, job: str, group: str = "") -> None:
        super().__init__(job, group)

    def __str__(self) -> str:
        job, group = self.fields
        if group:
            return f"{job} is a step of {group} that has not begun; see `ddpmctl explain {group}`"
        return f"no job is called {job!r}; see `ddpmctl list --all`"


class InvalidTransitionError(OrchestratorError):
    """A job was asked to make a move that the table of states does not hold."""

    def __init__(self, job_id: str, start: str, finish: str) -> None:
        super().__init__(job_id, start, finish)

    def __str__(self) -> str:
        job_id, start, finish = self.fields
        return f"job {job_id} is {start} and cannot become {finish}"


class StoreError(OrchestratorError):
    """The object store did not do what was asked."""


class ObjectNotFoundError(StoreError):
    """No object stands at a key."""

    def __init__(self, key: str) -> None:
        super().__init__(key)

    def __str__(self) -> str:
        return f"the store has no object {self.fields[0]}"


class ConditionFailedError(StoreError):
    """A conditional write found another state than the one it was decided from."""

    def __init__(self, key: str) -> None:
        super().__init__(key)

    def __str__(self) -> str:
        return f"object {self.fields[0]} was written by somebody else in between"


class StoreUnavailableError(StoreError):
    """The store cannot be reached, or answers that it cannot serve."""


class CredentialsExpiredError(StoreUnavailableError):
    """The store took these credentials once; new ones are looked for, so waiting helps."""


class StoreRefusedError(StoreError):
    """The store refuses the credentials or the right to do this."""


class LeaseLostError(OrchestratorError):
    """This orchestrator's lease has run out or belongs to another one."""


class AttemptSupersededError(OrchestratorError):
    """The job has moved on: this process belongs to an attempt that is over."""

    def __init__(self, job_id: str, attempt: int) -> None:
        super().__init__(job_id, attempt)

    def __str__(self) -> str:
        job_id, attempt = self.fields
        return f"attempt {attempt} of job {job_id} is not the current one"


class SmokeTestError(OrchestratorError):
    """The first look at an attempt found what would break it.

    Args:
        doing: What was tried.
        reason: The `Reason` that the error stands for.
        detail: What went wrong.
    """

    def __init__(self, doing: str, reason: str, detail: str) -> None:
        super().__init__(doing, reason, detail)

    @property
    def reason(self) -> str:
        """The `Reason` that the error stands for."""
        return str(self.fields[1])

    def __str__(self) -> str:
        doing, _, detail = self.fields
        return f"the smoke test failed while {doing}: {detail}"


class CheckpointError(OrchestratorError):
    """A checkpoint is torn, damaged or of a format that this version does not read."""


class ShardDamagedError(OrchestratorError):
    """A shard's commit or data cannot be read, or is not what was committed."""


class WorkersLostError(OrchestratorError):
    """Workers die, or cannot be placed, and nothing gets done any more."""


def one_line(text: str) -> str:
    """Return text as a terminal can show it: names of files may hold newlines and any bytes."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


class DatasetError(BadInputError):
    """An image, array or archive cannot be used; the message names the file."""

    def __str__(self) -> str:
        return one_line(super().__str__())


class RayUnavailableError(OrchestratorError):
    """The Ray Jobs API does not answer or refuses."""


class RayRefusedError(RayUnavailableError):
    """The Ray Jobs API refuses the token: asking again is in vain."""


class TrackingError(OrchestratorError):
    """MLflow does not answer or refuses."""


class LocalFolderError(OrchestratorError):
    """A folder or a file of this machine cannot be made or written, or is somebody else's."""


class StackError(OrchestratorError):
    """A part of the embedded stack did not start or stop."""
