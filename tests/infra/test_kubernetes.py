"""The objects for KubeRay have the operator's form, keep its rules, and say what the code says."""

import json
import os
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from orchestrator.cluster.autoscaler import VARIABLE, parse_node_types
from tests.support.kuberay import METRICS_PORT
from tests.support.kustomize import rendered

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "infra" / "kubernetes"
WITH_GPUS = ("gpu", "spot", "autoscaling")
NAME_AT_MOST = 53  # ray-operator's validation of cluster names
PLAIN = [path for path in sorted(FOLDER.rglob("*.yaml")) if path.name != "kustomization.yaml"]


def _documents(path: Path) -> list[Any]:
    return list(YAML(typ="safe").load_all(path.read_text("utf-8")))


CLUSTER: dict[str, Any] = _documents(FOLDER / "base/raycluster.yaml")[0]
SETTINGS: dict[str, str] = _documents(FOLDER / "base/settings.yaml")[0]["data"]
GPU_GROUP: dict[str, Any] = _documents(FOLDER / "overlays/gpu/group.yaml")[0][0]["value"]


def _groups() -> list[dict[str, Any]]:
    return [*CLUSTER["spec"]["workerGroupSpecs"], GPU_GROUP]


def _pods() -> list[dict[str, Any]]:
    groups = [CLUSTER["spec"]["headGroupSpec"], *_groups()]
    return [group["template"]["spec"] for group in groups]


def _closed(schema: Any) -> Any:
    """Return a schema in which an object has no other fields than those that it names."""
    if isinstance(schema, list):
        return [_closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    closed = {key: _closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema:
        closed["additionalProperties"] = False
    return closed


def test_the_cluster_has_the_form_of_the_operators_schema() -> None:
    """A field that is misspelt would be dropped without a word."""
    path = os.environ.get("KUBERAY_CRD")
    if not path:
        pytest.skip("KUBERAY_CRD does not name the operator's schema")
    schema = json.loads(Path(path).read_text("utf-8"))["openAPIV3Schema"]
    spec = {**schema["properties"]["spec"]}
    with_gpus = {**CLUSTER["spec"], "workerGroupSpecs": _groups()}
    errors = list(jsonschema.Draft7Validator(_closed(spec)).iter_errors(with_gpus))
    assert [error.message for error in errors] == []


# What is free to name: its keys are no fields of the operator's.
_FREE = ("labels", "nodeSelector", "rayStartParams", "requests", "limits")
FIELDS = (Path(__file__).parent / "raycluster_fields.txt").read_text("utf-8").split()


def _fields(value: Any, at: str = "") -> set[str]:
    """Return the ways to all fields that an object has, lists as `[]`."""
    if isinstance(value, list):
        return {way for one in value for way in _fields(one, f"{at}[]")}
    if not isinstance(value, dict) or at.rpartition(".")[2] in _FREE:
        return {at}
    inner = {way for key, one in value.items() for way in _fields(one, f"{at}.{key}")}
    return inner or {at}


@pytest.mark.parametrize("folder", [FOLDER / "base", *sorted((FOLDER / "overlays").iterdir())])
def test_the_cluster_uses_no_field_that_is_not_written_down(folder: Path) -> None:
    """Also where the operator's schema is not at hand, a misspelt field is found."""
    (cluster,) = [one for one in rendered(folder) if one["kind"] == "RayCluster"]
    assert _fields(cluster["spec"]) <= set(FIELDS)


def test_the_fields_that_are_written_down_are_the_operators_and_all_in_use() -> None:
    """The table is only as good as what it was compared with."""
    assert sorted(FIELDS) == FIELDS
    path = os.environ.get("KUBERAY_CRD")
    if not path:
        pytest.skip("KUBERAY_CRD does not name the operator's schema")
    spec = json.loads(Path(path).read_text("utf-8"))["openAPIV3Schema"]["properties"]["spec"]
    for field in FIELDS:
        schema = spec
        for step in field.removeprefix(".").replace("[]", ".[]").split("."):
            schema = schema["items"] if step == "[]" else schema["properties"][step]


def test_the_cluster_asks_for_a_token_under_the_key_that_the_operator_reads() -> None:
    """Whoever reaches an open Ray runs code there; the operator reads `auth_token` alone."""
    options = CLUSTER["spec"]["authOptions"]
    secrets = {s["metadata"]["name"]: s for s in _documents(FOLDER / "secrets.example.yaml")}
    assert options["mode"] == "token"
    assert "auth_token" in secrets[options["secretName"]]["stringData"]


def test_versions_are_those_of_the_package() -> None:
    """Without its version the operator probes by a program that the image lacks."""
    constraints = (ROOT / "constraints.txt").read_text("utf-8")
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    (ray,) = re.findall(r"^ray==(\S+)$", constraints, re.MULTILINE)
    (version,) = re.findall(r'^version = "(.+)"$', project, re.MULTILINE)
    images = [
        image
        for path in FOLDER.rglob("kustomization.yaml")
        for image in _documents(path)[0].get("images", ())
    ]
    assert CLUSTER["spec"]["rayVersion"] == ray
    assert {str(image["newTag"]) for image in images} == {version}


def test_names_and_replicas_keep_the_operators_rules() -> None:
    """A cluster that the operator refuses exists as an object, and nothing starts."""
    assert len(CLUSTER["metadata"]["name"]) <= NAME_AT_MOST
    for group in _groups():
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        assert "resources" not in group["rayStartParams"]
    assert CLUSTER["spec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


# By the functions of KubeRay's ray-operator/controllers/ray/utils/validation.go that refuse one.
_STARTED_WITH = ("num-cpus", "num-gpus", "memory", "resources")


def _name_is_valid(cluster: dict[str, Any]) -> None:
    """ValidateRayClusterMetadata: a label of RFC 1035, of limited length."""
    assert re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", cluster["metadata"]["name"])
    assert len(cluster["metadata"]["name"]) <= NAME_AT_MOST


def _groups_are_valid(cluster: dict[str, Any]) -> None:
    """ValidateRayGroupResources and validateRayGroupLabels: one place for each."""
    for group in (cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]):
        assert group["template"]["spec"]["containers"]
        assert not (group.get("resources") and {*_STARTED_WITH} & {*group["rayStartParams"]})
        assert "labels" not in group["rayStartParams"]


def _autoscaler_is_valid(cluster: dict[str, Any]) -> None:
    """ValidateRayClusterSpec: version 2 is named in one place, and replaces pods itself."""
    spec = cluster["spec"]
    head = spec["headGroupSpec"]["template"]["spec"]
    named = {one["name"] for one in head["containers"][0].get("env", ())}
    named |= SETTINGS.keys()
    assert not named & {"RAY_enable_autoscaler_v2", "RAY_REDIS_ADDRESS", "REDIS_USERNAME"}
    if not spec.get("enableInTreeAutoscaling"):
        return
    assert spec["autoscalerOptions"]["version"] == "v2"
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        assert group["template"]["spec"].get("restartPolicy", "Never") == "Never"
        assert not group.get("suspend")


def _token_is_valid(cluster: dict[str, Any]) -> None:
    """ValidateRayClusterSpec: a token needs Ray's version, of 2.52 at least."""
    major, minor, _ = map(int, cluster["spec"]["rayVersion"].split("."))
    assert (major, minor) >= (2, 52)


@pytest.mark.parametrize("folder", [FOLDER / "base", *sorted((FOLDER / "overlays").iterdir())])
def test_each_cluster_keeps_the_operators_rules(folder: Path) -> None:
    """What it refuses exists as an object with an event, and nothing starts."""
    (cluster,) = [one for one in rendered(folder) if one["kind"] == "RayCluster"]
    for rule in (_name_is_valid, _groups_are_valid, _autoscaler_is_valid, _token_is_valid):
        rule(cluster)


@pytest.mark.parametrize("folder", [FOLDER / "base", *sorted((FOLDER / "overlays").iterdir())])
def test_each_rendered_cluster_has_the_form_of_the_operators_schema(folder: Path) -> None:
    """Patches are checked where they have landed, too."""
    path = os.environ.get("KUBERAY_CRD")
    if not path:
        pytest.skip("KUBERAY_CRD does not name the operator's schema")
    schema = json.loads(Path(path).read_text("utf-8"))["openAPIV3Schema"]["properties"]["spec"]
    (cluster,) = [one for one in rendered(folder) if one["kind"] == "RayCluster"]
    errors = jsonschema.Draft7Validator(_closed(schema)).iter_errors(cluster["spec"])
    assert [error.message for error in errors] == []


def test_pods_have_time_to_drain_and_no_rights() -> None:
    """A pod killed before its node has drained loses the steps since the last checkpoint."""
    drain_s = int(SETTINGS["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"])
    for pod in _pods():
        assert drain_s < pod["terminationGracePeriodSeconds"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]


def test_who_scrapes_may_reach_what_it_scrapes() -> None:
    """A PodMonitor whose target the policy closes finds every pod down."""
    objects = rendered(FOLDER / "overlays/monitoring")
    (policy,) = [one["spec"] for one in objects if one["kind"] == "NetworkPolicy"]
    (monitor,) = [one["spec"] for one in objects if one["kind"] == "PodMonitor"]
    assert [one["port"] for one in monitor["podMetricsEndpoints"]] == ["metrics"]
    (rule,) = [rule for rule in policy["ingress"] if rule.get("ports") == [{"port": METRICS_PORT}]]
    assert rule["from"][0]["namespaceSelector"]


def test_the_orchestrator_counts_with_the_groups_that_the_autoscaler_may_start() -> None:
    """A type of another size would be asked for in vain, or jobs be told that they never fit."""
    patches = _documents(FOLDER / "overlays/autoscaling/autoscaler.yaml")[0]
    most = {p["path"]: p["value"] for p in patches if p["path"].endswith("maxReplicas")}
    (patch,) = _documents(FOLDER / "overlays/autoscaling/types.yaml")[0]
    assert patch["path"] == f"/data/{VARIABLE}"
    types = parse_node_types(patch["value"])
    for number, (kind, group) in enumerate(zip(types, _groups(), strict=True)):
        asked = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        assert kind.name == group["groupName"]
        assert kind.max_count == most[f"/spec/workerGroupSpecs/{number}/maxReplicas"]
        assert (kind.cpus, kind.gpus) == (int(asked["cpu"]), int(asked.get("nvidia.com/gpu", 0)))
        assert f"{kind.memory_gb:g}Gi" == asked["memory"]  # GB of what Ray lends are fewer than Gi


def test_the_store_is_started_as_in_the_compose_file() -> None:
    """What closes it there closes it here."""
    compose = YAML(typ="safe").load((ROOT / "infra/compose.yaml").read_text("utf-8"))
    (store,) = [
        one
        for one in _documents(FOLDER / "overlays/store-seaweedfs/store.yaml")
        if one["kind"] == "StatefulSet"
    ]
    command = store["spec"]["template"]["spec"]["containers"][0]["command"]
    assert command == compose["services"]["store"]["command"]


KUSTOMIZATIONS = [path.parent for path in sorted(FOLDER.rglob("kustomization.yaml"))]


@pytest.mark.parametrize("folder", KUSTOMIZATIONS, ids=lambda path: path.name)
def test_no_overlay_lies_in_what_it_is_laid_over(folder: Path) -> None:
    """Kustomize calls that a cycle and renders nothing."""
    (kustomization,) = _documents(folder / "kustomization.yaml")
    for resource in kustomization["resources"]:
        below = (folder / resource).resolve()
        assert below.exists()
        assert below not in (folder, *folder.parents)


@pytest.mark.parametrize("folder", KUSTOMIZATIONS, ids=lambda path: path.name)
def test_kustomize_renders_each_overlay(folder: Path) -> None:
    """Its own rules (patches that meet nothing, cycles, names) are checked by nobody else."""
    objects = {(one["kind"], one["metadata"]["name"]): one for one in rendered(folder)}
    cluster = objects["RayCluster", "ddpmctl"]["spec"]
    images = set(re.findall(r"'image': '([^']+)'", str(list(objects.values()))))
    assert images == {"registry.example.com/ddpmctl:0.1.0"}
    assert {one["metadata"].get("namespace", "ddpmctl") for one in objects.values()} == {"ddpmctl"}
    groups = [group["groupName"] for group in cluster["workerGroupSpecs"]]
    assert groups == (["cpu", "gpu"] if folder.name in WITH_GPUS else ["cpu"])


@pytest.mark.parametrize("path", PLAIN, ids=lambda path: str(path.relative_to(FOLDER)))
def test_files_that_a_kustomization_names_are_there_and_every_file_is_named(path: Path) -> None:
    """A file that nobody names is never applied."""
    (kustomization,) = _documents(path.parent / "kustomization.yaml")
    named = [
        *kustomization.get("resources", ()),
        *(p.get("path") for p in kustomization.get("patches", ())),
    ]
    assert path.name in named or path.name == "secrets.example.yaml"
