"""What can happen to a simulated life."""

from collections.abc import Callable, Mapping

from orchestrator.store import keys
from orchestrator.store.keys import JobPaths
from tests.nemesis.doubles.cluster import Process, after
from tests.nemesis.doubles.store import Strike, View, seconds
from tests.nemesis.doubles.world import World
from tests.nemesis.plan import PlannedFault

Fault = Callable[[World, PlannedFault], bool]
_GROUPS = ("", "orchestrator", "tracking", "driver", "user")


def _views(world: World) -> list[View]:
    leading = [view for one in world.orchestrators for view in (one.view, one.tracking_view)]
    return [*leading, *(driver.view for driver in world.drivers.values()), world.users.view]


def _call_of_any(mode: str, **options: bool) -> Fault:
    """Return a fault at one of the next calls of some process."""

    def strike(world: World, planned: PlannedFault) -> bool:
        views = _views(world)
        view = views[int(planned.draw * len(views))]
        view.strike = Strike(mode, world.draw(12), world.draw(3) > 0)
        return True

    return strike


def _orchestrators_call(mode: str) -> Fault:
    """Return a fault at one of the next writes of an orchestrator's loop or of a verb."""

    def strike(world: World, planned: PlannedFault) -> bool:
        views = [one.view for one in world.orchestrators if one.leads]
        views += [one.tracking_view for one in world.orchestrators if one.leads]
        view = [*views, *views, world.users.view][int(planned.draw * (2 * len(views) + 1))]
        view.strike = Strike(mode, world.draw(12), writes_only=True)
        return True

    return strike


def _waiting(least: int, most: int) -> Fault:
    """Return a fault that holds up one call, for as long as a lease lives or longer."""

    def strike(world: World, planned: PlannedFault) -> bool:
        views = _views(world)
        view = views[world.draw(len(views))]
        wait_s = int(planned.between(least, most))
        view.strike = Strike("waits", world.draw(12), world.draw(2) > 0, wait_s)
        return True

    return strike


def _store_down(world: World, planned: PlannedFault) -> bool:
    group = _GROUPS[world.draw(len(_GROUPS))]
    world.weather.down_until[group] = world.store.clock + seconds(planned.between(3, 60))
    return True


def _object_refused(world: World, planned: PlannedFault) -> bool:
    jobs = sorted(world.users.wishes)
    own = [JobPaths(jobs[int(planned.draw * len(jobs))])] if jobs else []
    chosen = [key for job in own for key in (job.spec, job.record, job.attempt(1).outcome)]
    chosen += [keys.INDEX, keys.LEASE, keys.SNAPSHOT]
    world.weather.refused_key = chosen[world.draw(len(chosen))]
    world.weather.refused_until = world.store.clock + seconds(planned.between(3, 40))
    return True


def _orchestrator_killed(world: World, planned: PlannedFault) -> bool:
    for one in world.orchestrators[:1]:
        one.kill()
    return bool(world.orchestrators)


def _orchestrator_stopped(world: World, planned: PlannedFault) -> bool:
    for one in world.orchestrators[:1]:
        one.stopped_until = after(world.store.clock, planned.between(3, 60))
        if planned.draw > 0.5:
            world.start_orchestrator()  # a user's `up` found it silent
    return bool(world.orchestrators)


def _second_orchestrator(world: World, planned: PlannedFault) -> bool:
    if len(world.orchestrators) > 2:
        return False
    world.start_orchestrator()
    return True


def _ray_silent(world: World, planned: PlannedFault) -> bool:
    world.cluster.silent_until = after(world.store.clock, planned.between(3, 60))
    return True


def _answer_of_ray_lost(world: World, planned: PlannedFault) -> bool:
    world.cluster.loses_answers = 1
    return True


def _head_lost(*, nodes_live_on: bool) -> Fault:
    def strike(world: World, planned: PlannedFault) -> bool:
        for one in world.orchestrators:
            one.kill()
        world.cluster.lose_head(int(planned.between(3, 30)), nodes_live_on=nodes_live_on)
        return True

    return strike


def _node_lost(world: World, planned: PlannedFault) -> bool:
    node = planned.chosen(world.cluster.node_ids)
    if node:
        world.cluster.lose_node(node)
    return bool(node)


def _node_unknown(world: World, planned: PlannedFault) -> bool:
    node = planned.chosen(world.cluster.node_ids)
    world.cluster.unknown[node] = after(world.store.clock, planned.between(3, 60))
    return bool(node)


def _ray_lies(world: World, planned: PlannedFault) -> bool:
    drivers = [process for process in _working(world) if process.ref.role == "driver"]
    if not drivers:
        return False
    victim = drivers[int(planned.draw * len(drivers))]
    name = f"{victim.job_id}.{victim.attempt}"
    world.cluster.lies[name] = after(world.store.clock, 300.0)
    world.cluster.end(victim)
    return True


def _killed(what: str) -> Fault:
    """Return the fault that kills one process of an attempt, or all of them at once."""

    def strike(world: World, planned: PlannedFault) -> bool:
        found = _working(world)
        if what in ("driver", "worker"):
            found = [process for process in found if process.ref.role.startswith(what)]
        if not found:
            return False
        victim = found[int(planned.draw * len(found))]
        doomed = [victim]
        if what == "all":
            doomed = world.cluster.processes_of(victim.job_id, victim.attempt)
        for process in doomed:
            world.cluster.end(process)
        return True

    return strike


def _driver_stopped(world: World, planned: PlannedFault) -> bool:
    drivers = list(world.drivers.values())
    if not drivers:
        return False
    driver = drivers[int(planned.draw * len(drivers))]
    driver.stopped_until = after(world.store.clock, 3 + world.draw(60))
    return True


def _mlflow_call(is_done: bool) -> Fault:
    def strike(world: World, planned: PlannedFault) -> bool:
        world.server.fail_at = world.server.num_calls + 1 + int(planned.between(0, 10))
        world.server.after = is_done
        return True

    return strike


def _working(world: World) -> list[Process]:
    return [process for process in world.cluster.processes.values() if process.is_alive]


FAULTS: Mapping[str, tuple[float, Fault]] = {
    "a call is refused": (3, _call_of_any("refused")),
    "an answer is lost": (3, _call_of_any("unanswered")),
    "a call is sent twice": (2, _call_of_any("repeated")),
    "a call waits": (3, _waiting(2, 19)),
    "a call waits longer than a lease": (3, _waiting(20, 90)),
    "the store is down": (1, _store_down),
    "an object is refused": (1.5, _object_refused),
    "death before a write": (5, _orchestrators_call("dies before")),
    "death after a write": (5, _orchestrators_call("dies after")),
    "orchestrator killed": (2, _orchestrator_killed),
    "orchestrator stopped": (1.5, _orchestrator_stopped),
    "a second orchestrator": (1.5, _second_orchestrator),
    "Ray does not answer": (1, _ray_silent),
    "Ray's answer is lost": (2, _answer_of_ray_lost),
    "Ray is lost": (0.7, _head_lost(nodes_live_on=False)),
    "Ray's head is lost, its nodes live on": (0.7, _head_lost(nodes_live_on=True)),
    "a node is lost": (1, _node_lost),
    "a node can't be asked": (1.5, _node_unknown),
    "Ray takes a dead driver for alive": (0.5, _ray_lies),
    "driver killed": (3, _killed("driver")),
    "worker killed": (4, _killed("worker")),
    "all of an attempt killed": (1.5, _killed("all")),
    "driver stopped": (1.5, _driver_stopped),
    "MLflow fails a call": (2, _mlflow_call(is_done=False)),
    "MLflow's answer is lost": (2, _mlflow_call(is_done=True)),
}
"""How often each fault comes beside the others, and what does it (false where it has no victim)."""
