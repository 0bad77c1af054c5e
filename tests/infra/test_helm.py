"""The chart holds the objects that kustomize renders, and refuses values that nobody reads."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from orchestrator.cluster.autoscaler import VARIABLE, parse_node_types
from tests.support.kustomize import rendered

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "infra" / "helm"
KUBERNETES = ROOT / "infra" / "kubernetes"
GPU = {"gpu": {"enabled": True}}
OVERLAYS: dict[str, dict[str, Any]] = {
    "base": {},
    "overlays/gpu": GPU,
    "overlays/spot": {"gpu": {"enabled": True, "spot": {"enabled": True}}},
    "overlays/autoscaling": {**GPU, "autoscaling": {"enabled": True}},
    "overlays/monitoring": {"monitoring": {"enabled": True}},
    "overlays/store-seaweedfs": {"store": {"seaweedfs": {"enabled": True}}},
}
Objects = dict[tuple[str, str], dict[str, Any]]


def read(text: str) -> list[Any]:
    """The documents of a YAML text."""
    return [one for one in YAML(typ="safe").load_all(text) if one]


VALUES: dict[str, Any] = read((CHART / "values.yaml").read_text("utf-8"))[0]
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text("utf-8"))


def by_name(objects: list[dict[str, Any]]) -> Objects:
    """Objects by kind and name, without their namespace: Helm gives that."""
    found: Objects = {}
    for one in objects:
        metadata = {key: value for key, value in one["metadata"].items() if key != "namespace"}
        found[one["kind"], metadata["name"]] = {**one, "metadata": metadata}
    found.pop(("Namespace", "ddpmctl"), None)  # it is there before a release is
    return found


def charted(values: dict[str, Any]) -> Objects:
    """What Helm itself makes of the chart; skipped, with a word, where it is not installed."""
    helm = pytest.importorskip("helm_python", reason="the extra `infra` is not installed")
    manifests = helm.Chart.load(str(CHART)).render(values, name="ddpmctl", namespace="ddpmctl")
    texts = [text for name, text in manifests.items() if name.endswith(".yaml")]
    return by_name([one for text in texts for one in read(text)])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_chart_renders_what_kustomize_renders(overlay: str) -> None:
    """Two descriptions of one cluster part on the first day that only one of them is mended."""
    ours, theirs = charted(OVERLAYS[overlay]), by_name(rendered(KUBERNETES / overlay))
    assert ours.keys() == theirs.keys()
    for name, one in theirs.items():
        assert ours[name] == one, name


def test_every_overlay_is_a_switch_of_the_chart() -> None:
    """A new overlay would be missing from it without a word."""
    folders = {path.name for path in (KUBERNETES / "overlays").iterdir() if path.is_dir()}
    assert folders == {name.removeprefix("overlays/") for name in OVERLAYS if "/" in name}


def test_helm_finds_nothing_to_mend() -> None:
    """Its warnings count."""
    helm = pytest.importorskip("helm_python", reason="the extra `infra` is not installed")
    for values in OVERLAYS.values():
        report = helm.lint(str(CHART), values, strict=True, namespace="ddpmctl")
        assert (report["messages"], report["errors"]) == ([], [])


def test_values_arrive_where_they_are_meant() -> None:
    """Equal defaults prove nothing about a value that no template reads."""
    values = {
        "image": {"repository": "r.example/x", "tag": "9"},
        "store": {"uri": "s3://bucket/p", "endpoint": "https://s.example", "region": "eu-north-1"},
        "mlflow": {"enabled": False, "uri": "https://m.example"},
        "head": {"cpus": 3, "memory": "9Gi", "sharedMemory": "1Gi"},
        "cpu": {"replicas": 5, "maxReplicas": 7, "cpus": 6, "memory": "24Gi"},
        "gpu": {"enabled": True, "gpus": 2, "maxReplicas": 3, "memory": "48Gi"},
        "autoscaling": {"enabled": True, "idleTimeoutSeconds": 77},
        "serviceAccount": {"annotations": {"role": "nodes"}},
    }
    objects = charted(values)
    text = json.dumps(list(objects.values()))
    assert set(re.findall(r'"image": "([^"]+)"', text)) == {"r.example/x:9"}
    data = objects["ConfigMap", "ddpmctl-settings"]["data"]
    assert (data["DDPMCTL_STORE"], data["AWS_REGION"]) == ("s3://bucket/p", "eu-north-1")
    assert data["AWS_ENDPOINT_URL_S3"] == "https://s.example"
    assert data["MLFLOW_TRACKING_URI"] == "https://m.example"
    assert ("Deployment", "ddpmctl-mlflow") not in objects
    cluster = objects["RayCluster", "ddpmctl"]["spec"]
    assert cluster["autoscalerOptions"]["idleTimeoutSeconds"] == 77
    head = cluster["headGroupSpec"]["template"]["spec"]["containers"][0]["resources"]
    assert head["limits"] == head["requests"] == {"cpu": "3", "memory": "9Gi"}
    for kind, group in zip(
        parse_node_types(data[VARIABLE]), cluster["workerGroupSpecs"], strict=True
    ):
        asked = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        assert (kind.name, kind.max_count) == (group["groupName"], group["maxReplicas"])
        assert (kind.cpus, kind.gpus) == (int(asked["cpu"]), int(asked.get("nvidia.com/gpu", 0)))
        assert f"{kind.memory_gb:g}Gi" == asked["memory"]
    account = objects["ServiceAccount", "ddpmctl"]
    assert account["metadata"]["annotations"] == {"role": "nodes"}


def errors(values: Any) -> list[str]:
    """What the schema says of values."""
    return [error.message for error in jsonschema.Draft7Validator(SCHEMA).iter_errors(values)]


def test_the_schema_takes_the_defaults_and_has_each_of_them() -> None:
    """A default that it does not know could not be given by a user."""
    assert errors(VALUES) == []
    _has_each(VALUES, SCHEMA)


def _has_each(values: dict[str, Any], schema: dict[str, Any]) -> None:
    properties = {k: v for k, v in schema["properties"].items() if k != "global"}
    assert values.keys() == properties.keys()
    for name, value in values.items():
        if isinstance(value, dict) and "properties" in properties[name]:
            _has_each(value, properties[name])


@pytest.mark.parametrize(
    "values",
    [
        {"gpus": {"enabled": True}},
        {"gpu": {"enable": True}},
        {"gpu": {"enabled": "true"}},
        {"cpu": {"memory": "16"}},
        {"cpu": {"memory": "16000Mi"}},  # the orchestrator counts in Gi
        {"cpu": {"cpus": 1.5}},
        {"store": {"uri": "https://bucket"}},
        {"image": {"tag": ""}},
        {"autoscaling": {"idleTimeoutSeconds": 0}},
    ],
)
def test_a_slip_in_the_values_is_refused(values: dict[str, Any]) -> None:
    """Helm passes over a key that no template reads."""
    assert errors(values) != []


def test_versions_are_those_of_the_package() -> None:
    """A chart of yesterday starts yesterday's image."""
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    (version,) = re.findall(r'^version = "(.+)"$', project, re.MULTILINE)
    chart = read((CHART / "Chart.yaml").read_text("utf-8"))[0]
    assert {str(chart["version"]), chart["appVersion"], VALUES["image"]["tag"]} == {version}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kubernetes_own_kinds_have_the_form_of_its_schemas(overlay: str) -> None:
    """Strictly: a field that is misspelt would be dropped without a word."""
    kubernetes_validate = pytest.importorskip(
        "kubernetes_validate", reason="the extra `infra` is not installed"
    )
    for one in rendered(KUBERNETES / overlay):
        if one["kind"] not in ("RayCluster", "PodMonitor"):  # of operators, with schemas elsewhere
            kubernetes_validate.validate(one, "1.32", strict=True)
