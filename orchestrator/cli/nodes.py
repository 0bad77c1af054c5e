"""The verb `nodes`: what the cluster has, who is on it, and who avoids it."""

import click

from orchestrator.cli.output import Output, output_option
from orchestrator.client.surroundings import surroundings
from orchestrator.counts import counted
from orchestrator.jobs.lease_view import read_lease
from orchestrator.jobs.nodes import NodeEntry, NodeList, read_nodes
from orchestrator.scheduling.matching import own_labels

_ID_LENGTH = 12


@click.command("nodes")
@output_option
def nodes_command(output: Output) -> None:
    """Show the cluster's nodes: what they have, what is free, who is on them, who avoids them."""
    store = surroundings(output.say).store
    listed, lease = read_nodes(store), read_lease(store)
    confirmed = lease is not None and lease.is_fresh
    value: dict[str, object] = {"confirmed": confirmed, "at": listed.at, "nodes": listed.nodes}
    output.result(value, _describe(listed, confirmed=confirmed))


def _describe(listed: NodeList, *, confirmed: bool) -> str:
    lines = [line for node in listed.nodes for line in _lines(node)]
    if not listed.nodes:
        lines = ["the cluster has no node at the moment"]
    if not confirmed:
        lines.append(f"as of {listed.at:%Y-%m-%d %H:%M:%S}: no orchestrator looks now")
    return "\n".join(lines)


def _lines(node: NodeEntry) -> list[str]:
    has = [f"{node.free_cpus:g} of {counted(node.cpus, 'CPU')}"]
    if node.gpus:
        has.append(f"{node.free_gpus:g} of {counted(node.gpus, 'GPU')} {node.accelerator}".rstrip())
    has.append(f"{node.free_memory_gb:g} of {node.memory_gb:g} GB")
    lines = [f"{node.node_id[:_ID_LENGTH]}  {node.host}  {', '.join(has)} free"]
    if node.is_draining:
        lines.append("  draining it is about to leave: jobs move, and nothing new comes")
    if labels := own_labels(node.labels):
        lines.append(f"  labels   {', '.join(labels)}")
    for job_id, workers in sorted(node.workers.items()):
        lines.append(f"  on it    {job_id}: {counted(workers, 'worker')}")
    lines += [f"  avoided  by {one.job_id}: {one.why}" for one in node.avoided_by]
    return lines
