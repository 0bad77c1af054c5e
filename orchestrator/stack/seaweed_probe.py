"""Asks the embedded store whether it keeps objects, with nothing of the user's AWS settings.

A client of boto3 reads profiles and variables that have nothing to do with this store, and may fail
over them; three signed requests need none of that.

SeaweedFS keeps its index of objects in eight databases, and which one has an object follows from
its folder. One that met a full disk refuses all that is written from then on, until the store is
started anew, while the others go on. So an object is kept in each.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.cluster.http_client import ask
from orchestrator.stack.files import StackSecrets
from orchestrator.stack.parts import BUCKET, REGION
from orchestrator.stack.ports import LOOPBACK

_TIMEOUT_S = 5.0
_NUM_DATABASES = 8
_BODY = b"ready"
_OK, _EXISTS = 200, 409


@dataclass(frozen=True)
class SeaweedProbe:
    """Looks at one store.

    Attributes:
        port: Of its S3 server.
        secrets: Of the stack.
    """

    port: int
    secrets: StackSecrets

    def keeps_objects(self) -> bool:
        """Make the bucket if it is not there, write into each database of it and read back.

        A store that lists its buckets may refuse for seconds what needs a volume: writes of more
        than no bytes, and reads of what it held before it was started.
        """
        if self._ask("HEAD", f"/{BUCKET}")[0] != _OK:
            made, _ = self._ask("PUT", f"/{BUCKET}")
            if made not in (_OK, _EXISTS):
                return False
        return all(self._keeps(f"/{BUCKET}/{key}") for key in probe_keys())

    def _keeps(self, path: str) -> bool:
        return self._ask("PUT", path, _BODY)[0] == _OK and self._ask("GET", path) == (_OK, _BODY)

    def _ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Return status and body of a signed request; the status is 0 where nobody answers."""
        from botocore.auth import S3SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials

        host = f"{LOOPBACK}:{self.port}"
        request = AWSRequest(method, f"http://{host}{path}", {"Host": host}, body)
        own = Credentials(self.secrets.access_key_id, self.secrets.secret_access_key)
        S3SigV4Auth(own, "s3", REGION).add_auth(request)
        headers = dict(request.headers.items())
        url = f"http://{host}{path}"
        try:
            answer = ask(url, method=method, body=body, headers=headers, timeout_s=_TIMEOUT_S)
        except OSError:
            return 0, b""
        return answer.status, answer.body


def database_of(key: str) -> int:
    """Return which of the index's databases has an object: the last byte of its folder's MD5."""
    folder = f"/buckets/{BUCKET}/{key}".rpartition("/")[0]
    return hashlib.md5(folder.encode(), usedforsecurity=False).digest()[-1] % _NUM_DATABASES


def probe_keys() -> Iterator[str]:
    """Yield keys of objects that lie in one database each, until each has one."""
    missing, number = set(range(_NUM_DATABASES)), 0
    while missing:
        key = f"ready-{number}/ready"
        if database_of(key) in missing:
            missing.remove(database_of(key))
            yield key
        number += 1
