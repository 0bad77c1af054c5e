"""What users of a store agreed on, as the loop goes by it."""

import logging
from collections.abc import Mapping

from orchestrator.errors import StoredFormError
from orchestrator.jobs.limits import Limits, read_limits
from orchestrator.jobs.queue import read_quotas
from orchestrator.store.objects import ObjectStore

logger = logging.getLogger(__name__)


class Agreed:
    """Quotas and limits as they were read last: what cannot be read changes nothing for anybody.

    Args:
        store: Where they lie.

    Attributes:
        quotas: Queue to the GPUs that its jobs may hold at once.
        limits: GPU-hours of queues, GPUs of submitters.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._reported = ""
        self.quotas: Mapping[str, float] = {}
        self.limits = Limits()

    def look(self) -> None:
        """Read them anew."""
        try:
            self.quotas, self.limits = read_quotas(self._store), read_limits(self._store)
            self._reported = ""
        except StoredFormError as error:
            if self._reported != str(error):
                logger.error("quotas and limits stay as they were: %s", error)
            self._reported = str(error)
