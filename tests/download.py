"""A client of nginx in the middle of a large answer."""

from __future__ import annotations

import contextlib
import http.client

#: Bytes; more than the kernel takes in for a client that doesn't read.
LARGE = 64 << 20


class Download:
    """An answer that has begun, and doesn't go on before it's read."""

    def __init__(self, host: str, port: int, path: str) -> None:
        self._connection = http.client.HTTPConnection(host, port, timeout=60)
        self._connection.request("GET", path)
        self._response = self._connection.getresponse()

    def finish(self, patience: float = 60) -> int:
        """Read the rest, as far as it comes within so many seconds of the last, and return how many bytes there were."""
        self._connection.sock.settimeout(patience)
        received = 0
        with contextlib.closing(self._connection), contextlib.suppress(OSError):
            while block := self._response.read(1 << 16):
                received += len(block)
        return received
