"""Orchestrators as processes: each turn is one round of the loop that the actor runs."""

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

from orchestrator.controller.lease import Lease
from orchestrator.controller.loop import Controller
from orchestrator.errors import (
    ConditionFailedError,
    LeaseLostError,
    OrchestratorError,
    RayUnavailableError,
    StoreUnavailableError,
    TrackingError,
)
from orchestrator.jobs.troubles import Troubles
from orchestrator.tracking.carrier import TrackingCarrier
from orchestrator.tracking.loop import carry_all, tracking_troubles
from tests.nemesis.doubles.actors import Actor
from tests.nemesis.doubles.cluster import SimulatedCluster, after
from tests.nemesis.doubles.store import View
from tests.support.fakes import MemoryTracking

CARRY_EVERY_S = 2
PAUSE_AFTER_ERROR_S = 10


class Orchestrator(Actor):
    """An orchestrator's process, as `OrchestratorActor` runs it.

    Args:
        view: The store as its loop sees it.
        tracking_view: The store as its thread for MLflow sees it.
        cluster: The cluster.
        server: MLflow.
        odd: Told of an error that the loop is not meant to meet.
        is_elsewhere: Whether it runs on another machine, where nobody can prove its end.
    """

    def __init__(
        self,
        view: View,
        tracking_view: View,
        cluster: SimulatedCluster,
        server: MemoryTracking,
        odd: Callable[[BaseException], None],
        *,
        is_elsewhere: bool = False,
    ) -> None:
        super().__init__(view)
        self.tracking_view = tracking_view
        self.is_elsewhere = is_elsewhere
        self._cluster, self._server, self._odd = cluster, server, odd
        self._lease: Lease | None = None
        self._controller: Controller | None = None
        self._tracking: tuple[TrackingCarrier, Troubles] | None = None
        self._carries_at: datetime | None = None

    @property
    def leads(self) -> bool:
        """Whether it believes that it holds the lease."""
        return self._controller is not None

    @property
    def owner(self) -> str:
        """What its lease calls it."""
        return self._lease.owner if self._lease else ""

    def kill(self) -> None:
        """End the process."""
        self.view.is_dead = self.tracking_view.is_dead = True

    def died(self) -> None:
        """End all of it with the thread that died."""
        self.kill()

    def act(self, now: datetime) -> None:
        """Go round once, then carry what there is for MLflow."""
        try:
            self._round()
        except (LeaseLostError, ConditionFailedError):
            self._stand_back()
        except (StoreUnavailableError, RayUnavailableError):
            self._stand_back()
        except Exception as error:
            # The top of the process, as the actor's: whatever else it is, it is told of.
            self._odd(error)
            self._stand_back()
        if self.leads:
            self._carry(now)

    def _round(self) -> None:
        if self._controller is None:
            self._lease = Lease(self.view, "simulated")
            if not self._lease.acquire():
                return
            self._controller = Controller(self.view, self._cluster, self._lease)
            self._controller.take_over()
            return
        self._controller.step()

    def _stand_back(self) -> None:
        self._controller = None
        if self._lease is not None:
            with suppress(OrchestratorError):
                self._lease.release()

    def _carry(self, now: datetime) -> None:
        """Do what the thread for MLflow does."""
        if self._carries_at is not None and now < self._carries_at:
            return
        self._carries_at = after(now, CARRY_EVERY_S)
        if self._tracking is None:
            carrier = TrackingCarrier(self.tracking_view, self._server)
            self._tracking = carrier, tracking_troubles(self.tracking_view, carrier)
        try:
            carry_all(self.tracking_view, *self._tracking)
        except (TrackingError, StoreUnavailableError):
            self._tracking = None
            self._carries_at = after(now, PAUSE_AFTER_ERROR_S)
        except Exception as error:
            # The top of a thread.
            self._odd(error)
            self._tracking = None
