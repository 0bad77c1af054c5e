"""What hosts and networks do to a training over two hosts, with Ray as it comes.

Each ends with the bits of one that nothing happened to. `make test-hosts` runs these.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts.cluster import HEAD, STORE, WORKERS, Cluster
from tests.hosts.jobs import (
    ended,
    final_weights,
    reasons,
    set_sha256,
    status,
    wait_for_shards,
    wait_for_step,
)
from tests.hosts.user import wait_until
from tests.integration.commands import SAMPLE, train_text

pytestmark = pytest.mark.hosts
_STEPS, _EVERY = 200, 20
_SEEN_WITHIN_S = 30.0  # plus what a busy machine takes to ask


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three workers on hosts of their own."""
    made = Cluster(tmp_path_factory.mktemp("hosts"))
    try:
        made.up(num_workers=3)
        yield made
    finally:
        made.close()


@pytest.fixture(autouse=True)
def whole(cluster: Cluster) -> Iterator[None]:
    """After each test all hosts are on the network and all of Ray runs."""
    yield
    for name in cluster.parts:
        if cluster.network.hosts[name].is_alive:
            cluster.network.join(name)
    cluster.restart_ended()


@pytest.fixture(scope="module")
def undisturbed(cluster: Cluster) -> dict[str, str]:
    """The weights of a training over two hosts that nothing happened to."""
    job_id = cluster.submit(_training("undisturbed"))
    ended(cluster, job_id)
    return final_weights(cluster, job_id)


def _training(name: str) -> str:
    return train_text(name, steps=_STEPS, every=_EVERY, workers=2)


def _in_mid_work(cluster: Cluster, name: str) -> str:
    """Return a training over two hosts that has committed its first checkpoint."""
    job_id = cluster.submit(_training(name))
    wait_for_step(cluster, job_id, _EVERY)
    return job_id


def _host_of(cluster: Cluster, job_id: str) -> str:
    """Return a worker's host on which a training runs."""
    nodes = {one["node_id"]: one["host"] for one in cluster.ddpmctl("nodes").value["nodes"]}
    return max(str(nodes[one]) for one in status(cluster, job_id)["attempts"][-1]["node_ids"])


def test_a_training_over_three_hosts(cluster: Cluster) -> None:
    """One worker on each, its share of the batch a third."""
    job_id = cluster.submit(train_text("three", steps=40, every=20, workers=3))
    shown = ended(cluster, job_id)
    assert reasons(shown) == [None]
    assert len(set(shown["attempts"][0]["node_ids"])) == 3


def test_a_fleet_over_three_hosts(cluster: Cluster) -> None:
    """Three workers draw one whole set."""
    model = cluster.submit(train_text("model", steps=20, every=20))
    ended(cluster, model)
    text = SAMPLE.format(name="fleet", model=model).replace("num_workers: 1", "num_workers: 3")
    job_id = cluster.submit(text.replace("num_samples: 20", "num_samples: 96"))
    shown = ended(cluster, job_id)
    assert len(set(shown["attempts"][0]["node_ids"])) == 3
    assert cluster.ddpmctl("samples", "verify", job_id).exit_code == 0


def test_a_killed_host(cluster: Cluster, undisturbed: dict[str, str]) -> None:
    """As when the power goes: another host takes its place."""
    job_id = _in_mid_work(cluster, "killed")
    cluster.network.hosts[_host_of(cluster, job_id)].kill()
    shown = ended(cluster, job_id)
    assert reasons(shown) == ["NODE_LOST", None]
    assert final_weights(cluster, job_id) == undisturbed


def test_a_cut_off_host_shows_within_half_a_minute(
    cluster: Cluster, undisturbed: dict[str, str]
) -> None:
    """Ray takes longer to call it dead; that nothing moves is said before."""
    job_id = _in_mid_work(cluster, "cut-off")
    host = _host_of(cluster, job_id)
    cluster.network.cut(host)
    cut_at = time.monotonic()
    wait_until(lambda: _is_shown(status(cluster, job_id)))
    assert time.monotonic() - cut_at < _SEEN_WITHIN_S + 10
    shown = ended(cluster, job_id)  # on the third host
    assert reasons(shown) == ["NODE_LOST", None]
    assert final_weights(cluster, job_id) == undisturbed


def _is_shown(shown: dict[str, object]) -> bool:
    return bool(shown["stalled"] or shown["stale"]) or shown["state"] != "RUNNING"


def test_a_cancel_ends_a_job_with_a_cut_off_host(cluster: Cluster) -> None:
    """Nobody can prove that the host's processes are gone before Ray says that the node is."""
    job_id = _in_mid_work(cluster, "cancelled")
    cluster.network.cut(_host_of(cluster, job_id))
    assert cluster.ddpmctl("cancel", job_id).exit_code == 0
    wait_until(lambda: status(cluster, job_id)["state"] == "CANCELLED")
    listed = cluster.ray("job", "list")
    own = [part for part in listed.split("JobDetails(") if f"'{job_id}.1'" in part]
    assert len(own) == 1
    assert "JobStatus.STOPPED" in own[0], own


def test_a_lost_head(cluster: Cluster, undisturbed: dict[str, str]) -> None:
    """Its workers end with it; started anew, `wait` brings the job on."""
    job_id = _in_mid_work(cluster, "head-lost")
    cluster.network.hosts[HEAD].kill()
    for name in WORKERS:
        cluster.wait_for_end(name)
    cluster.restart_ended()
    shown = ended(cluster, job_id)
    assert reasons(shown) == ["CLUSTER_LOST", None]
    assert final_weights(cluster, job_id) == undisturbed


def test_a_killed_dashboard(cluster: Cluster, undisturbed: dict[str, str]) -> None:
    """It serves the Jobs API: Ray ends the head as a whole, and nothing is half there."""
    job_id = _in_mid_work(cluster, "dashboard")
    cluster.parts[HEAD].find("dashboard/dashboard.py").kill()
    cluster.wait_for_end(HEAD)
    cluster.restart(HEAD)
    for name in WORKERS:
        cluster.wait_for_end(name)
    cluster.restart_ended()
    shown = ended(cluster, job_id)
    assert reasons(shown) == ["CLUSTER_LOST", None]
    assert final_weights(cluster, job_id) == undisturbed


def test_a_store_that_is_cut_off_for_a_minute(
    cluster: Cluster, undisturbed: dict[str, str]
) -> None:
    """The attempt waits for it and goes on."""
    job_id = _in_mid_work(cluster, "store-cut")
    cluster.network.cut(STORE)
    time.sleep(60)
    cluster.network.join(STORE)
    shown = ended(cluster, job_id)
    assert reasons(shown) == [None]
    assert final_weights(cluster, job_id) == undisturbed


def test_credentials_that_are_refused_for_a_minute(
    cluster: Cluster, undisturbed: dict[str, str]
) -> None:
    """As when a token runs out before its successor comes: waited for like an outage."""
    job_id = _in_mid_work(cluster, "refused")
    cluster.parts[STORE].kill()
    cluster.start_store(AWS_ACCESS_KEY_ID="another", AWS_SECRET_ACCESS_KEY="another-secret")
    time.sleep(60)
    cluster.parts[STORE].kill()
    cluster.start_store()
    shown = ended(cluster, job_id)
    assert reasons(shown) == [None]
    assert final_weights(cluster, job_id) == undisturbed


def test_a_node_that_is_asked_to_end(cluster: Cluster, undisturbed: dict[str, str]) -> None:
    """SIGTERM to `ray start` drains its node: saved first, moved then, no finished step again."""
    job_id = _in_mid_work(cluster, "drained")
    cluster.parts[_host_of(cluster, job_id)].ask_to_end()
    shown = ended(cluster, job_id)
    assert reasons(shown) == ["PREEMPTED", None]
    saved = shown["attempts"][0]["progress"]
    told = [event["message"] for event in cluster.ddpmctl("events", job_id).value]
    assert f"goes on from step {saved}" in told
    assert final_weights(cluster, job_id) == undisturbed


def test_a_fleet_with_a_node_that_is_asked_to_end(cluster: Cluster) -> None:
    """Its worker there saves what it has and leaves; the others draw the rest, the same set."""
    model = cluster.submit(train_text("drawn-from", steps=20, every=20))
    ended(cluster, model)
    text = SAMPLE.format(name="fleet", model=model).replace("num_samples: 20", "num_samples: 1024")
    text = text.replace("shard_size: 8", "shard_size: 64").replace("num_steps: 5", "num_steps: 20")
    alone = cluster.submit(text)
    ended(cluster, alone)
    wide = text.replace("num_workers: 1", "num_workers: {min: 1, max: 3}")
    job_id = cluster.submit(wide)
    wait_for_shards(cluster, job_id, 3)
    node = cluster.parts[_host_of(cluster, job_id)]
    node.ask_to_end()
    wait_until(lambda: not node.is_alive)
    shown = ended(cluster, job_id)
    assert reasons(shown) == [None]
    told = [event["message"] for event in cluster.ddpmctl("events", job_id).value]
    assert any("is being drained: 1 worker to save and leave" in message for message in told)
    assert set_sha256(cluster, job_id) == set_sha256(cluster, alone)
    assert cluster.ddpmctl("samples", "verify", job_id).exit_code == 0


def test_hosts_of_one_name(cluster: Cluster, undisturbed: dict[str, str]) -> None:
    """All three call themselves alike: what runs where is told by Ray's node, not by the name."""
    for name in WORKERS:
        cluster.restart(name, own_name="node")
    cluster.wait_for_nodes(4)
    job_id = _in_mid_work(cluster, "one-name")
    found = cluster.ddpmctl("doctor").value
    assert all(one["ok"] for one in found)
    assert any("share the host name node" in one["detail"] for one in found)
    cluster.ddpmctl("cancel", job_id)
    wait_until(lambda: status(cluster, job_id)["state"] == "CANCELLED")
    assert cluster.ddpmctl("retry", job_id).exit_code == 0
    ended(cluster, job_id)
    assert final_weights(cluster, job_id) == undisturbed
    for name in WORKERS:
        cluster.restart(name)
    cluster.wait_for_nodes(4)


def test_two_stores_on_one_cluster(cluster: Cluster, undisturbed: dict[str, str]) -> None:
    """Each has an orchestrator of its own, and neither takes what the other holds."""
    other = {"DDPMCTL_STORE": "s3://ddpmctl/other"}
    theirs = cluster.submit(_training("theirs"), settings=other)
    ours = cluster.submit(_training("ours"))
    waited = cluster.ddpmctl("wait", theirs, timeout_s=500.0, settings=other)
    assert waited.exit_code == 0, waited
    assert reasons(waited.value) == [None]
    assert reasons(ended(cluster, ours)) == [None]
    assert final_weights(cluster, ours) == undisturbed


def test_a_slow_link(cluster: Cluster, undisturbed: dict[str, str]) -> None:
    """A hundredth of the usual: slower, with the same bits. Loss and delay need netem."""
    for name in WORKERS:
        cluster.network.slow(name, "20mbit")
    job_id = cluster.submit(_training("slow"))
    shown = ended(cluster, job_id)
    assert reasons(shown) == [None]
    assert final_weights(cluster, job_id) == undisturbed
    for name in WORKERS:
        cluster.restart(name)
    cluster.wait_for_nodes(4)


def test_clocks_apart(cluster: Cluster, undisturbed: dict[str, str]) -> None:
    """One host is ten minutes ahead, with all that it runs."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if library is None:
        pytest.skip("no libfaketime here: apt-get install faketime")
    for name in WORKERS:
        cluster.network.hosts[name].kill()
    cluster.boot("worker-2")
    # The clock that nobody sets goes ahead too: left alone, sleep fails with libfaketime 0.9.10.
    ahead = {"LD_PRELOAD": str(library), "FAKETIME": "+600"}
    cluster.start_worker("worker-2", **ahead)
    cluster.restart("worker-1")
    cluster.wait_for_nodes(3)
    job_id = cluster.submit(_training("ahead"))
    shown = ended(cluster, job_id)
    assert reasons(shown) == [None]
    assert final_weights(cluster, job_id) == undisturbed
    cluster.restart("worker-2")
