"""infra/kubernetes as KubeRay's operator and a kubelet would run it, without either.

Its rules are those of tests/support/kuberay.py. What cannot be seen so: the objects' way through an
API server, their scheduling, and the image.
"""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts.jobs import ended, final_weights, reasons, wait_for_step
from tests.hosts.pods import HEAD, WORKERS, Pods
from tests.hosts.user import wait_until
from tests.integration.commands import train_text

pytestmark = pytest.mark.hosts
_STEPS, _EVERY = 60, 10
_WEED_KEYS = ("SIGNING_KEY", "SIGNING_READ_KEY", "FILER_SIGNING_KEY", "FILER_SIGNING_READ_KEY")


def _secrets() -> dict[str, dict[str, str]]:
    """What secrets.example.yaml holds, filled in, and what the store's overlay asks for."""
    return {
        "ddpmctl-ray-token": {"auth_token": secrets.token_hex(32)},
        "ddpmctl-store": {
            "AWS_ACCESS_KEY_ID": secrets.token_hex(8),
            "AWS_SECRET_ACCESS_KEY": secrets.token_hex(16),
        },
        "ddpmctl-mlflow": {"MLFLOW_TRACKING_TOKEN": secrets.token_hex(32)},
        "ddpmctl-weed": {f"WEED_JWT_{name}": secrets.token_hex(16) for name in _WEED_KEYS},
    }


@pytest.fixture
def pods(tmp_path: Path) -> Iterator[Pods]:
    """The store and MLflow in pods, and a user's host; nothing of Ray yet."""
    made = Pods(tmp_path, _secrets())
    try:
        made.start_all_but_ray()
        yield made
    finally:
        made.close()


def test_the_cluster_that_the_operator_would_make_works(pods: Pods) -> None:
    """Probes, `doctor`, `submit`, `wait` from outside; then the only worker's pod is evicted."""
    head = pods.start_head()
    worker = pods.start_worker(WORKERS[0], 1)
    pods.forward()
    assert pods.health(HEAD, head) == 200  # a kubelet has no token
    assert pods.ray_status() == 401
    token = pods.applied.head("ddpmctl").ray.environment["RAY_AUTH_TOKEN"]
    assert pods.ray_status(Authorization=f"Bearer {token}") == 200
    wait_until(lambda: all(one["ok"] for one in pods.ddpmctl("doctor").value))

    undisturbed = pods.submit(_training("undisturbed"))
    assert reasons(ended(pods, undisturbed)) == [None]

    job_id = pods.submit(_training("evicted"))
    wait_for_step(pods, job_id, _EVERY)
    pods.evict(WORKERS[0], worker)
    pods.start_worker(WORKERS[1], 2)
    shown = ended(pods, job_id)
    assert reasons(shown) == ["PREEMPTED", None]
    told = [event["message"] for event in pods.ddpmctl("events", job_id).value]
    assert f"goes on from step {shown['attempts'][0]['progress']}" in told
    assert final_weights(pods, job_id) == final_weights(pods, undisturbed)


def _training(name: str) -> str:
    return train_text(name, steps=_STEPS, every=_EVERY, workers=2)
