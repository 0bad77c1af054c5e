"""The one form of what is kept as JSON: written with its version, read also where it is older.

Unknown keys are passed over and missing ones take their defaults, so that two versions may meet
at one object. What only a newer version can read is refused in one line.
"""

import functools
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Generic, TypeVar

from orchestrator.errors import ObjectNotFoundError, StoredFormError
from orchestrator.store.objects import ObjectStore, StoredObject

if TYPE_CHECKING:
    from pydantic import TypeAdapter

VERSION_KEY = "format_version"
_T = TypeVar("_T")
Upgrade = Callable[[dict[str, object]], dict[str, object]]


class Codec(Generic[_T]):
    """Writes and reads one kind of object.

    Args:
        form: Its class: a frozen dataclass.
        noun: What messages call it: "heartbeat".
        version: The version that is written, and the newest that is read.
        upgrade: Turns the keys of an older version into those of this one.
        indent: For what people read in the store themselves.
    """

    def __init__(
        self,
        form: type[_T],
        noun: str,
        *,
        version: int = 1,
        upgrade: Upgrade = lambda value: value,
        indent: int | None = None,
    ) -> None:
        self._form = form
        self._noun = noun
        self._version = version
        self._upgrade = upgrade
        self._indent = indent

    @functools.cached_property
    def _adapter(self) -> "TypeAdapter[_T]":
        # Built at the first use: it takes longer than most verbs do, and they read few forms.
        from pydantic import TypeAdapter

        return TypeAdapter(self._form)

    def as_json(self, value: _T) -> dict[str, object]:
        """Return a value in plain JSON types."""
        plain: dict[str, object] = self._adapter.dump_python(value, mode="json")
        return plain

    def encode(self, value: _T) -> bytes:
        """Return a value as it is stored."""
        return json.dumps(
            {VERSION_KEY: self._version, **self.as_json(value)}, indent=self._indent
        ).encode()

    def decode(self, body: bytes, where: str = "") -> _T:
        """Return what is stored.

        Args:
            body: What the store holds.
            where: Its key, for messages.

        Raises:
            StoredFormError: It is damaged, or of a newer version.
        """
        try:
            values = json.loads(body)
        except ValueError as error:
            raise StoredFormError(f"{self._noun} {where} cannot be read: {error}") from error
        return self.of(values, where)

    def of(self, values: Mapping[str, object], where: str = "") -> _T:
        """Return what is stored as part of something else, from its JSON values.

        Raises:
            StoredFormError: It is damaged, or of a newer version.
        """
        named = f"{self._noun} {where}".rstrip()
        try:
            value: dict[str, object] = {**values}
            version = int(str(value.get(VERSION_KEY, 0)))
            if version > self._version:
                raise StoredFormError(
                    f"{named}: a newer version wrote it (format {version}, this one reads up to "
                    f"{self._version}); use that version"
                )
            value = self._upgrade(value) if version < self._version else value
            return self._adapter.validate_python(value)
        except (ValueError, AttributeError, TypeError, KeyError) as error:
            message = " ".join(str(error).split())
            raise StoredFormError(f"{named} cannot be read: {message[:300]}") from error

    def read(self, store: ObjectStore, key: str) -> tuple[_T, StoredObject] | None:
        """Return what lies at a key and how it was stored, or None where there is nothing.

        Raises:
            StoredFormError: It is damaged, or of a newer version.
        """
        try:
            stored = store.get(key)
        except ObjectNotFoundError:
            return None
        return self.decode(stored.body, key), stored

    def value(self, store: ObjectStore, key: str) -> _T | None:
        """Return what lies at a key, or None where there is nothing; raises as `read` does."""
        read = self.read(store, key)
        return read[0] if read is not None else None
