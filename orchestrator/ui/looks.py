"""What the pages ask the store."""

import json
from collections.abc import Callable, Mapping, Sequence

from orchestrator.artifacts.images import encode_png, image_grid
from orchestrator.artifacts.samples.verify import SampleSet
from orchestrator.client.metrics import read_metrics
from orchestrator.client.overview import Overview, read_overview
from orchestrator.client.report.plots import Plot, Series, svg_of
from orchestrator.client.status import JobStatus, job_status
from orchestrator.errors import BadInputError, JobNotFoundError, OrchestratorError, StoreError
from orchestrator.jobs.logs import LogReader
from orchestrator.jobs.lookup import find_job_id
from orchestrator.jobs.queue import read_snapshot
from orchestrator.jobs.records import RecordStore
from orchestrator.jobs.submissions import read_submission
from orchestrator.lifecycle.state import GROUP_KINDS, JobState
from orchestrator.scheduling.explanation import Explanation, explain
from orchestrator.store.keys import JobPaths
from orchestrator.store.objects import ObjectStore
from orchestrator.ui.job_page import JobView
from orchestrator.ui.reasons import Reasons
from orchestrator.ui.set_page import SetImages

_LOG_LINES = 30
_MOST_POINTS = 600
_PLOTS = {
    "loss": ("loss by step", "loss"),
    "images_per_s": ("pace", "images a second"),
    "images_done": ("images done", "images"),
}


class Looks:
    """Answers what the pages ask; the store is all that is needed.

    Args:
        store: Where the jobs are.
        links: Returns the addresses of a job's pages elsewhere, by their name.
    """

    def __init__(self, store: ObjectStore, links: Callable[[JobStatus], dict[str, str]]) -> None:
        self._store = store
        self._links = links
        self._images = SetImages(store)
        self._reasons = Reasons()

    def job_id(self, job: str) -> str:
        """Return the id of a job. Raises: JobNotFoundError, BadInputError."""
        return find_job_id(self._store, job)

    def overview(self) -> Overview:
        """Return what there is."""
        return read_overview(self._store)

    def why(self, job_ids: Sequence[str]) -> Mapping[str, str]:
        """Return why jobs wait, by id; without those that the orchestrator has not seen yet."""
        if not job_ids:
            return {}
        try:
            snapshot = read_snapshot(self._store)
        except StoreError:
            raise
        except OrchestratorError:
            return {}  # no orchestrator ever looked
        return self._reasons.of_jobs(snapshot, job_ids, self._store.now().timestamp())

    def status(self, job_id: str) -> JobStatus:
        """Return what a job is."""
        return job_status(self._store, job_id)

    def view(self, job_id: str) -> JobView:
        """Return what is known of a job."""
        status = self.status(job_id)
        return JobView(
            status=status,
            events=RecordStore(self._store).events(job_id),
            explanation=self._explanation(status),
            log=self._log(status),
            at=self._store.now(),
            links=self._links(status),
        )

    def _explanation(self, status: JobStatus) -> Explanation | None:
        if status.state is not JobState.QUEUED or status.kind in GROUP_KINDS:
            return None
        try:
            snapshot = read_snapshot(self._store)
            return explain(snapshot, status.job_id, self._store.now().timestamp())
        except OrchestratorError as error:
            if isinstance(error, StoreError):
                raise
            return None  # nobody has looked at it yet

    def _log(self, status: JobStatus) -> Sequence[str]:
        reader = LogReader(self._store, JobPaths(status.job_id), attempt=status.attempt or None)
        streams = reader.streams()
        return reader.tail(streams[-1], _LOG_LINES) if streams else []

    def plots(self, job_id: str) -> list[str]:
        """Return the curves of a job as SVG."""
        found = read_metrics(self._store, job_id, _PLOTS.keys())
        is_fleet = "images_done" in found
        svgs = []
        for number, (name, (title, unit)) in enumerate(_PLOTS.items()):
            points = found.get(name, {})
            if len(points) < 2:
                continue
            kept = list(points)[:: -(-len(points) // _MOST_POINTS)]
            plot = Plot(
                title=title,
                x_label="seconds since the job was submitted" if is_fleet else "step",
                y_label=unit,
                series=[Series(name=job_id, x=list(map(float, kept)), y=[points[x] for x in kept])],
                is_line=True,
            )
            svgs.append(svg_of(plot, number))
        return svgs

    def pictures(self, job_id: str) -> list[str]:
        """Return the paths of the pictures that a job left, below its folder."""
        folder = JobPaths(job_id).folder
        record = RecordStore(self._store).read(job_id).record
        places = [f"{JobPaths(job_id).attempt(n + 1).folder}images/" for n in range(record.attempt)]
        found = [
            info.key.removeprefix(folder)
            for place in places
            for info in self._store.list_objects(place)
            if info.key.endswith(".png")
        ]
        # A later attempt shows the same again.
        newest = {path.partition("/images/")[2]: path for path in found}
        return list(newest.values())

    def picture(self, job_id: str, path: str) -> bytes:
        """Return a picture of a job. Raises: BadInputError (it has none of that name)."""
        if path not in self.pictures(job_id):
            raise BadInputError(f"job {job_id} has no such picture")
        return self._store.get(f"{JobPaths(job_id).folder}{path}").body

    def samples(self, job_id: str) -> SampleSet:
        """Return a job's set. Raises: BadInputError (it draws none)."""
        return SampleSet(self._store, job_id)

    def image(self, job_id: str, number: int) -> bytes:
        """Return one image of a set as PNG. Raises: BadInputError, ShardDamagedError."""
        image = self._images.image(job_id, number)
        return encode_png(image[0]) if image.shape[-1] <= 4 else image_grid(image, scale=1)

    def settings(self, job_id: str) -> str:
        """Return what was asked for, as JSON."""
        try:
            spec = read_submission(RecordStore(self._store), job_id)
        except (BadInputError, JobNotFoundError) as error:
            return str(error)
        return json.dumps(spec.model_dump(mode="json", exclude_defaults=True), indent=1)
