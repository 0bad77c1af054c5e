"""What stands before the store: passes all on, or is slow, silent, overloaded, or loses answers."""

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress

HOST = "127.0.0.1"
_CHUNK = 1 << 16
_SLOW_DOWN = (
    b"HTTP/1.1 %s\r\nContent-Type: application/xml\r\nContent-Length: %d\r\n"
    b"Connection: close\r\n\r\n%s"
)
_ERRORS = {
    "500": (b"500 Internal Server Error", b"<Error><Code>InternalError</Code></Error>"),
    "503": (b"503 Service Unavailable", b"<Error><Code>SlowDown</Code></Error>"),
}
MODES = ("slow", "silent", "refused", "500", "503", "answers lost")


class Proxy:
    """A proxy on loopback, in a thread of its own.

    Args:
        port: Says where the store is; it may move when it is started again.

    Attributes:
        url: Where clients find it.
        mode: "" passes on; else one of `MODES`.
        until: When it passes on again, by the monotonic clock.
    """

    def __init__(self, port: Callable[[], int]) -> None:
        self._port = port
        self.mode, self.until = "", 0.0
        self._ready = threading.Event()
        self._number = 0
        threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True).start()
        assert self._ready.wait(10)

    def disturb(self, mode: str, seconds: float) -> None:
        """Be otherwise for some seconds."""
        self.mode, self.until = mode, time.monotonic() + seconds

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connected, HOST, 0)
        self.url = f"http://{HOST}:{server.sockets[0].getsockname()[1]}"
        self._ready.set()
        async with server:
            await server.serve_forever()

    def _now(self) -> str:
        return self.mode if time.monotonic() < self.until else ""

    async def _connected(self, client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        try:
            store, out = await asyncio.open_connection(HOST, self._port())
        except OSError:
            back.close()
            return
        there = asyncio.create_task(self._asked(client, out, back))
        here = asyncio.create_task(self._answered(store, back))
        await asyncio.wait({there, here}, return_when=asyncio.FIRST_COMPLETED)
        for task in (there, here):
            task.cancel()
        for writer in (out, back):
            with suppress(OSError):
                writer.close()

    async def _asked(
        self, client: asyncio.StreamReader, out: asyncio.StreamWriter, back: asyncio.StreamWriter
    ) -> None:
        with suppress(OSError):
            while chunk := await client.read(_CHUNK):
                mode = self._now()
                if mode in _ERRORS:
                    status, body = _ERRORS[mode]
                    back.write(_SLOW_DOWN % (status, len(body), body))
                    await back.drain()
                if mode in _ERRORS or mode == "refused":
                    return
                await self._delay(mode)
                out.write(chunk)
                await out.drain()

    async def _answered(self, store: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while chunk := await store.read(_CHUNK):
                self._number += 1
                if self._now() == "answers lost" and self._number % 3 == 0:
                    return
                back.write(chunk)
                await back.drain()

    async def _delay(self, mode: str) -> None:
        if mode == "slow":
            await asyncio.sleep(0.4)
        while self._now() == "silent":
            await asyncio.sleep(0.1)
