"""Every object key in one place; all are relative to the store's prefix."""

import hashlib
import re
from dataclasses import dataclass

QUEUE = "queue/"
INBOX = "inbox/"
JOBS = "jobs/"
TRACKING = "tracking/"
NOTIFY = "notify/"
TROUBLES = "troubles/"
DATASETS = "datasets/"
FEATURES = "features/"
DOCTOR = "doctor/"
PROOFS = "proofs/"
INDEX = "index.json"
ENDED_PAGES = "ended/"
LEASE = "orchestrator/lease.json"
CONFIG = "orchestrator/config.json"
SNAPSHOT = "orchestrator/snapshot.json"
NODES = "orchestrator/nodes.json"
USAGE = "orchestrator/usage.json"
COPIED_FROM = "copied-from.json"

DELETE = "delete"
_DELETE_REQUEST = re.compile(rf"{INBOX}\d+-[0-9a-f]+-(?P<job>.+)-\d+-{DELETE}\.json")


def trouble(job_id: str, what: str) -> str:
    """Key of what keeps a job waiting in the background."""
    return f"{TROUBLES}{job_id}/{what}"


def inbox_request(stamp: str, job_id: str, attempt: int, verb: str) -> str:
    """Key of a request to the orchestrator; keys sort by time."""
    return f"{INBOX}{stamp}-{job_id}-{attempt}-{verb}.json"


def job_to_delete(key: str) -> str | None:
    """Return the job that a request, given by its key, asks to delete; None for another one."""
    match = _DELETE_REQUEST.fullmatch(key)
    return None if match is None else match["job"]


def conditions_proof(address: str) -> str:
    """Key of what says that conditional writes hold, where the store is reached at an address."""
    return f"{PROOFS}conditions-{hashlib.sha256(address.encode()).hexdigest()[:16]}.json"


def dataset_folder(sha256: str) -> str:
    """Folder of an ingested data set."""
    return f"{DATASETS}{sha256}/"


def feature_folder(extractor_sha256: str, images_sha256: str) -> str:
    """Folder of the features of some images: any job that needs them finds them there."""
    return f"{FEATURES}{extractor_sha256}/{images_sha256}/"


@dataclass(frozen=True)
class PreparationPaths:
    """The keys of one preparation of a data set: a source, read in one way."""

    preparation: str

    @property
    def folder(self) -> str:
        """What is told of it while it goes on."""
        return f"{DATASETS}preparing/{self.preparation}/"

    @property
    def plan(self) -> str:
        """How the source is cut into units; put if absent."""
        return f"{self.folder}plan.json"

    @property
    def units(self) -> str:
        """Folder of the units' commits."""
        return f"{self.folder}units/"

    def unit(self, index: int) -> str:
        """Key of one unit's commit; put if absent."""
        return f"{self.units}{index:06d}.json"

    @property
    def joined(self) -> str:
        """Folder of the commits of chunks that were put together from several units."""
        return f"{self.folder}joined/"

    def joined_unit(self, chunk: int) -> str:
        """Key of one of them; put if absent."""
        return f"{self.joined}{chunk:06d}.json"

    @property
    def listing(self) -> str:
        """Key of what says where the pictures lie, for the processes of other machines."""
        return f"{self.folder}listing.json"

    def listing_page(self, number: int) -> str:
        """Key of a part of the places."""
        return f"{self.folder}listing/{number:06d}.json"

    @property
    def result(self) -> str:
        """Key of the name of the set that came of it."""
        return f"{DATASETS}prepared/{self.preparation}.json"

    @property
    def chunks(self) -> str:
        """Folder of the chunks."""
        return f"{DATASETS}chunks/{self.preparation}/"


@dataclass(frozen=True)
class AttemptPaths:
    """The keys of one attempt of a job."""

    folder: str

    @property
    def outcome(self) -> str:
        """What the driver says it came to; put if absent."""
        return f"{self.folder}outcome.json"

    @property
    def heartbeat(self) -> str:
        """What the driver is doing; overwritten every few seconds."""
        return f"{self.folder}heartbeat.json"

    @property
    def held_out_bound(self) -> str:
        """The bound of held-out images, of a training that has ended."""
        return f"{self.folder}evaluation.json"

    @property
    def processes(self) -> str:
        """Folder with an object for each process of the attempt."""
        return f"{self.folder}processes/"

    @property
    def metrics(self) -> str:
        """Folder of the metric lines."""
        return f"{self.folder}metrics/"

    @property
    def logs(self) -> str:
        """Folder of the logs: `<role>-<rank>/<seq>.log`."""
        return f"{self.folder}logs/"

    @property
    def all_data(self) -> str:
        """Folder of all data objects of the attempt."""
        return f"{self.folder}data/"

    def data(self, unique: str) -> str:
        """Folder of data objects under a unique name, invisible until a commit names them."""
        return f"{self.all_data}{unique}/"

    @property
    def partial(self) -> str:
        """Folder of chains that were told to stop."""
        return f"{self.folder}partial/"


@dataclass(frozen=True)
class JobPaths:
    """The keys of one job."""

    job_id: str

    @property
    def folder(self) -> str:
        """Everything of the job."""
        return f"{JOBS}{self.job_id}/"

    @property
    def spec(self) -> str:
        """What was asked; put if absent."""
        return f"{self.folder}spec.json"

    @property
    def record(self) -> str:
        """What happened; moved with If-Match."""
        return f"{self.folder}record.json"

    @property
    def progress(self) -> str:
        """How far a group is, and each of its jobs; overwritten when that changes."""
        return f"{self.folder}progress.json"

    @property
    def events(self) -> str:
        """Folder of the events."""
        return f"{self.folder}events/"

    def event(self, number: int) -> str:
        """Key of one event; put if absent."""
        return f"{self.events}{number:06d}.json"

    @property
    def checkpoints(self) -> str:
        """Folder of the checkpoint commits."""
        return f"{self.folder}checkpoints/"

    def checkpoint(self, step: int) -> str:
        """Key of one checkpoint's commit; put if absent."""
        return f"{self.checkpoints}step-{step:09d}.json"

    @property
    def references(self) -> str:
        """Folder of the marks that jobs draw from checkpoints, which are kept for them."""
        return f"{self.folder}references/"

    def reference(self, step: int, by: str) -> str:
        """Key of the mark that another job draws from the checkpoint of a step."""
        return f"{self.references}step-{step:09d}-{by}"

    @property
    def curve(self) -> str:
        """Folder of what the checkpoints of a training are worth."""
        return f"{self.folder}curve/"

    def curve_point(self, step: int) -> str:
        """Key of what the checkpoint of a step is worth; put if absent."""
        return f"{self.curve}step-{step:09d}.json"

    @property
    def samples(self) -> str:
        """Folder of the shard commits."""
        return f"{self.folder}samples/"

    def shard(self, index: int) -> str:
        """Key of one shard's commit; put if absent."""
        return f"{self.samples}shard-{index:06d}.json"

    @property
    def manifest(self) -> str:
        """Key of a sample set's manifest; put when all shards are in."""
        return f"{self.samples}manifest.json"

    @property
    def evaluation(self) -> str:
        """Key of what an evaluation found; put when it is done."""
        return f"{self.folder}evaluation.json"

    @property
    def reference_statistics(self) -> str:
        """Key of mean and covariance of an evaluation's real images."""
        return f"{self.folder}reference-statistics.npz"

    @property
    def bounds(self) -> str:
        """Folder of the shards of a likelihood."""
        return f"{self.folder}bounds/"

    def bound(self, index: int) -> str:
        """Key of one shard of a likelihood; put if absent."""
        return f"{self.bounds}shard-{index:06d}.npz"

    @property
    def likelihood(self) -> str:
        """Key of the bits per dimension; put when all shards are in."""
        return f"{self.folder}likelihood.json"

    @property
    def preparation(self) -> str:
        """Key of the name of the preparation that a job works on; overwritten if that changes."""
        return f"{self.folder}preparation.json"

    @property
    def dataset(self) -> str:
        """Key of the names of the data set that a job prepared, or reads as another prepared it."""
        return f"{self.folder}dataset.json"

    @property
    def decisions(self) -> str:
        """What was decided once for the job since it changes bits; put if absent."""
        return f"{self.folder}decisions.json"

    @property
    def tracking_cursor(self) -> str:
        """How much has gone to MLflow."""
        return f"{self.folder}tracking.json"

    def attempt(self, number: int) -> AttemptPaths:
        """Keys of one attempt."""
        return AttemptPaths(f"{self.folder}attempts/{number}/")
