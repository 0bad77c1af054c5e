"""Whether processes of other machines run: who is asked for them, and what the answers prove.

A process is proven gone by a node of its own start of the machine (in a container, of the
container) that does not find it, or by Ray's word that its node is dead. A node of the same host's
name proves nothing: two machines may bear one name. Where Ray was started anew it knows none of the
nodes of before, and the machine of a process may not have come back: of such a process nobody can
say whether it runs. How long that is waited for is `FORGOTTEN_AFTER_S` in `lifecycle/steps.py`.
"""

import os
import signal
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from orchestrator.cluster.process_identity import ProcessIdentity, boot_id


@dataclass(frozen=True)
class ProcessRef:
    """A process of an attempt, and what it is called."""

    role: str
    pid: int
    born_s: float
    boot_id: str
    node_id: str
    host: str

    @property
    def identity(self) -> ProcessIdentity:
        """What no other process ever is."""
        return ProcessIdentity(self.pid, self.born_s, self.boot_id, self.node_id)


@dataclass(frozen=True)
class NodeAnswer:
    """What a node says of the processes that it was asked for.

    Attributes:
        boot_id: Its own: it can say nothing of processes with another one.
        running: Those that run there.
    """

    boot_id: str
    running: list[ProcessRef]


@dataclass(frozen=True)
class Sighting:
    """What is known of processes; those in neither list are proven gone.

    Attributes:
        running: They run, or may run on a node that does not answer now.
        unknown: Their machine is none that can be asked, and no node that Ray calls dead.
    """

    running: list[ProcessRef]
    unknown: list[ProcessRef] = field(default_factory=list)


@dataclass(frozen=True)
class Asked:
    """Whom processes are looked for with; those in neither list are gone with their node.

    Attributes:
        by_node: The processes that each node is asked for, by the node's id.
        nobody: Those of unknown nodes, where no node is up that could be asked.
    """

    by_node: dict[str, list[ProcessRef]]
    nobody: list[ProcessRef] = field(default_factory=list)


def nodes_to_ask(refs: Iterable[ProcessRef], nodes: Iterable[Mapping[str, Any]]) -> Asked:
    """Return which of Ray's nodes are asked for which processes.

    A process is looked for on its own node, and is gone with it. One that noted none, or one that
    this Ray never knew, since it was started anew, may run on any, and on one that is yet to come.

    Args:
        refs: The processes.
        nodes: As `ray.nodes` lists them, the dead ones too.
    """
    known = {node["NodeID"]: bool(node["Alive"]) for node in nodes}
    alive = [node_id for node_id, is_alive in known.items() if is_alive]
    asked = Asked({})
    for ref in refs:
        if ref.node_id not in known and not alive:
            asked.nobody.append(ref)
        for node_id in [ref.node_id] if ref.node_id in known else alive:
            if known[node_id]:
                asked.by_node.setdefault(node_id, []).append(ref)
    return asked


def sighted(asked: Asked, answers: Mapping[str, NodeAnswer | None]) -> Sighting:
    """Return what the answers of nodes prove.

    Args:
        asked: Which node was asked for which.
        answers: What each said; None where it did not answer. Such a node is asked again in the
            next loop, until Ray says that it is dead.
    """
    running: dict[ProcessRef, None] = {}
    silent: dict[ProcessRef, None] = {}
    strange: dict[ProcessRef, None] = {}
    gone: set[ProcessRef] = set()
    for node_id, refs in asked.by_node.items():
        answer = answers.get(node_id)
        if answer is None:
            silent.update(dict.fromkeys(refs))
            continue
        running.update(dict.fromkeys(answer.running))
        gone.update(ref for ref in refs if ref.boot_id == answer.boot_id)
        strange.update(dict.fromkeys(ref for ref in refs if ref.boot_id != answer.boot_id))
    maybe = [ref for ref in silent if ref not in running and ref not in gone]
    unknown = [r for r in strange if r not in running and r not in gone and r not in silent]
    return Sighting([*running, *maybe], [*unknown, *asked.nobody])


def local_processes(processes: list[ProcessRef], kill: bool) -> NodeAnswer:
    """Return which of the processes run on this machine, ending them if asked to."""
    running = []
    for ref in processes:
        if ref.identity.find() is None:
            continue
        if kill:
            with suppress(ProcessLookupError):
                os.kill(ref.pid, signal.SIGKILL)
        running.append(ref)
    return NodeAnswer(boot_id(), running)
