"""What KubeRay v1.7.0 makes of a RayCluster, and a kubelet of its pods: plain data, nothing is run.

The rules are facts of ray-operator/controllers/ray, named by file and line of the tag v1.7.0.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]

# utils/constant.go:105-110, 344
GCS_PORT, DASHBOARD_PORT, METRICS_PORT, AGENT_PORT = 6379, 8265, 8080, 52365
HEALTH_PATH = "/api/healthz"
_CLUSTER_DOMAIN = "cluster.local"
# common/pod.go:1529: of all flags with the value true or false, these alone keep it.
_TOLD_TRUE_OR_FALSE = ("log-color", "include-dashboard", "include-log-monitor")
_PER_UNIT = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 10**3, "M": 10**6, "G": 10**9}


@dataclass(frozen=True)
class Container:
    """A container as it is started.

    Attributes:
        command: Program and arguments.
        environment: All that is set for it; the image may set more.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str]


@dataclass(frozen=True)
class RayPod:
    """A pod of a RayCluster.

    Attributes:
        name: Also what it calls itself.
        group: `headgroup`, or the group's name.
        ray: Its first container.
        first: What must end well before that starts.
        health_port: Where a kubelet asks for HEALTH_PATH, without a token.
        health_timeout_s: How long it waits for the answer.
        grace_s: From SIGTERM to SIGKILL.
    """

    name: str
    group: str
    ray: Container
    first: Container | None
    health_port: int
    health_timeout_s: int
    grace_s: int


class Applied:
    """Objects that were applied, secrets among them.

    Args:
        objects: What kustomize or Helm renders.
        secrets: Values by key, by the secret's name.
        namespace: Of all.
    """

    def __init__(
        self,
        objects: Sequence[Object],
        secrets: Mapping[str, Mapping[str, str]],
        namespace: str = "ddpmctl",
    ) -> None:
        self._objects = {(one["kind"], one["metadata"]["name"]): one for one in objects}
        self._secrets = secrets
        self._namespace = namespace

    def container(self, kind: str, name: str, *, init: bool = False) -> Container:
        """Return the first container of a Deployment's or a StatefulSet's pods.

        Args:
            kind: Of the object.
            name: Of the object.
            init: The first one that must end well before it.
        """
        pod = self._objects[kind, name]["spec"]["template"]["spec"]
        told: Object = pod["initContainers" if init else "containers"][0]
        command = (*told.get("command", ()), *told.get("args", ()))
        return Container(tuple(command), self._environment(told, {}))

    def probe(self, kind: str, name: str) -> Container:
        """Return what a kubelet runs in that container until it ends well: then it has started."""
        pod = self._objects[kind, name]["spec"]["template"]["spec"]
        told: Object = pod["containers"][0]
        asked = told.get("startupProbe") or told["readinessProbe"]
        return Container(tuple(asked["exec"]["command"]), self._environment(told, {}))

    def head(self, cluster: str) -> RayPod:
        """Return the head's pod of a RayCluster, as the operator makes it."""
        spec = self._spec(cluster)
        return self._pod(cluster, spec["headGroupSpec"], f"{cluster}-head-a1b2c", is_head=True)

    def worker(self, cluster: str, group: str, number: int = 1) -> RayPod:
        """Return a pod of a group; the operator makes another one when one is gone.

        Its five last letters differ: utils/util.go:203, raycluster_controller.go:1767.
        """
        (told,) = [g for g in self._spec(cluster)["workerGroupSpecs"] if g["groupName"] == group]
        name = f"{cluster}-{group}-worker-d3e4{number}"
        return self._pod(cluster, told, name, is_head=False)

    def head_name(self, cluster: str) -> str:
        """Return the full name of the head's service; utils/util.go:316-340."""
        return f"{cluster}-head-svc.{self._namespace}.svc.{_CLUSTER_DOMAIN}"

    def _spec(self, cluster: str) -> Object:
        spec: Object = self._objects["RayCluster", cluster]["spec"]
        return spec

    def _pod(self, cluster: str, group: Object, name: str, *, is_head: bool) -> RayPod:
        pod = group["template"]["spec"]
        told = pod["containers"][0]
        assert not told.get("command"), "the operator would put it before `ray start`"
        token = self._token(cluster)
        start = self._ray_start(cluster, group, is_head=is_head)
        group_name = "headgroup" if is_head else group["groupName"]  # utils/constant.go:352
        added = {**token, **self._operators(cluster, name, group_name, start, is_head=is_head)}
        # common/pod.go:887-913, utils/util.go:1005
        shell = f"ulimit -n ${{RAY_START_ULIMIT_OPEN_FILES:-65536}}; {start}"
        first = None if is_head else self._wait_for_head(cluster, told, token)
        params = group.get("rayStartParams", {})
        return RayPod(
            name=name,
            group=group_name,
            ray=Container(("/bin/bash", "-c", "--", shell), self._environment(told, added)),
            first=first,
            health_port=int(params.get("dashboard-agent-listen-port", AGENT_PORT)),
            health_timeout_s=5 if is_head else 2,  # utils/constant.go:307-319
            grace_s=pod.get("terminationGracePeriodSeconds", 30),
        )

    def _token(self, cluster: str) -> dict[str, str]:
        """Return what lets a container into the cluster; common/pod.go:345-427."""
        options = self._spec(cluster).get("authOptions", {})
        if options.get("mode") != "token":
            return {}
        secret = self._secrets[options.get("secretName") or cluster]
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secret["auth_token"]}

    def _ray_start(self, cluster: str, group: Object, *, is_head: bool) -> str:
        """Return the line that starts Ray; common/pod.go:1345-1546."""
        params = dict(group.get("rayStartParams", {}))
        if is_head:
            params.setdefault("dashboard-host", "0.0.0.0")  # noqa: S104
        else:
            params.setdefault("address", f"{self.head_name(cluster)}:{self._gcs_port(cluster)}")
        params.setdefault("metrics-export-port", str(METRICS_PORT))
        params.setdefault("dashboard-agent-listen-port", str(AGENT_PORT))
        params["block"] = "true"
        resources = group["template"]["spec"]["containers"][0].get("resources", {})
        limits, requests = resources.get("limits", {}), resources.get("requests", {})
        cpus = limits.get("cpu") or requests.get("cpu")
        if cpus:
            params.setdefault("num-cpus", str(quantity(cpus)))
        if limits.get("memory"):
            params.setdefault("memory", str(quantity(limits["memory"])))
        for name in sorted(limits):
            if name.endswith("gpu"):
                params.setdefault("num-gpus", str(quantity(limits[name])))
        return f"ray start {'--head ' if is_head else ''}{_flags(params)}"

    def _gcs_port(self, cluster: str) -> int:
        """Return the port that workers are told; common/pod.go:54."""
        params = self._spec(cluster)["headGroupSpec"].get("rayStartParams", {})
        return int(params.get("port", GCS_PORT))

    def _operators(
        self, cluster: str, name: str, group: str, start: str, *, is_head: bool
    ) -> dict[str, str]:
        """Return what the operator sets in Ray's container; common/pod.go:1207-1327."""
        full, port = self.head_name(cluster), str(self._gcs_port(cluster))
        found = {} if is_head else {"FQ_RAY_IP": full, "RAY_IP": full.partition(".")[0]}
        tags = "kuberay_version=v1.7.0;kuberay_crd=RayCluster"
        return {
            **found,
            "RAY_CLUSTER_NAME": cluster,
            "RAY_CLUSTER_NAMESPACE": self._namespace,
            "RAY_CLOUD_INSTANCE_ID": name,
            "RAY_NODE_TYPE_NAME": group,
            "KUBERAY_GEN_RAY_START_CMD": start,
            "RAY_PORT": port,
            "RAY_ADDRESS": f"{'127.0.0.1' if is_head else full}:{port}",
            "RAY_USAGE_STATS_KUBERAY_IN_USE": "1",
            **({"RAY_USAGE_STATS_EXTRA_TAGS": tags} if is_head else {}),
            "RAY_DASHBOARD_ENABLE_K8S_DISK_USAGE": "1",
        }

    def _wait_for_head(self, cluster: str, told: Object, token: Mapping[str, str]) -> Container:
        """Return what runs before a worker's Ray: it asks for the head until that answers.

        It has the container's `env`, not its `envFrom`; common/pod.go:605-649, 1193.
        """
        full = self.head_name(cluster)
        asked = f"ray health-check --address {full}:{self._gcs_port(cluster)}"
        loop = f'until {asked} > /dev/null 2>&1; do sleep 5; done; echo "GCS is ready."'
        own = {"FQ_RAY_IP": full, "RAY_IP": full.partition(".")[0]}
        only_env = {"env": told.get("env", [])}
        return Container(
            ("/bin/bash", "-c", "--", loop), self._environment(only_env, {**token, **own})
        )

    def _environment(self, told: Object, added: Mapping[str, str]) -> dict[str, str]:
        """Return a container's environment: its `env` wins over what is added and `envFrom`.

        Of what is added, a few cannot be set in `env` at all; these files set none of it.
        """
        found: dict[str, str] = {}
        for source in told.get("envFrom", ()):
            found |= self._data(source)
        own = {one["name"]: self._value(one) for one in told.get("env", ())}
        return {**found, **added, **own}

    def _data(self, source: Object) -> Mapping[str, str]:
        if "configMapRef" in source:
            data: Mapping[str, str] = self._objects["ConfigMap", source["configMapRef"]["name"]][
                "data"
            ]
            return data
        return self._secrets[source["secretRef"]["name"]]

    def _value(self, entry: Object) -> str:
        if "value" in entry:
            return str(entry["value"])
        reference = entry["valueFrom"]["secretKeyRef"]
        return self._secrets[reference["name"]][reference["key"]]


def secrets_of(objects: Sequence[Object]) -> Iterator[tuple[str, str | None]]:
    """Yield each secret that pods are given, and which key of it, None for all."""
    for container in _containers(list(objects)):
        for source in container.get("envFrom", ()):
            if "secretRef" in source:
                yield source["secretRef"]["name"], None
        for entry in container.get("env", ()):
            if reference := entry.get("valueFrom", {}).get("secretKeyRef"):
                yield reference["name"], reference["key"]


def _containers(value: Any) -> Iterator[Object]:
    if isinstance(value, list):
        for one in value:
            yield from _containers(one)
    if isinstance(value, dict):
        if "image" in value and "name" in value:
            yield value
        for one in value.values():
            yield from _containers(one)


def quantity(text: object) -> int:
    """Return a quantity of Kubernetes, such as 500m or 8Gi, rounded up as the operator does."""
    word = str(text)
    for suffix, unit in _PER_UNIT.items():
        if word.endswith(suffix):
            return int(word.removesuffix(suffix)) * unit
    if word.endswith("m"):
        return -(-int(word.removesuffix("m")) // 1000)
    return int(word)


def _flags(params: Mapping[str, str]) -> str:
    """Return parameters as flags, in order; common/pod.go:1518."""
    told = []
    for name, value in sorted(params.items()):
        if value.lower() not in ("true", "false") or name in _TOLD_TRUE_OR_FALSE:
            told.append(f" --{name}={value} ")
        elif value.lower() == "true":
            told.append(f" --{name} ")
    return "".join(told)
