"""Rescan: follows the directory of services, as runsvdir(8) does."""

from __future__ import annotations

import os
from typing import Callable, Tuple

import gevent
from gevent.event import Event

from ..output.log import Log
from ..services.directory import find_services
from ..services.service import Service
from ..text import printable

#: Seconds between two looks at the directory; runsvdir(8) looks every five.
_INTERVAL = 2.0
#: Seconds that a service is gone, at least, before it's started again: long enough for `sv exit` to see it.
_ABSENCE = 1.0

_Identity = Tuple[int, int]


class Rescan:
    """A greenlet that starts the services that appear in a directory, and stops those that vanish.

    A service is told by device and inode, so that one under another name is the same, and another under its name isn't.
    """

    def __init__(self, directory: bytes, add: Callable[[bytes], Service], log: Log) -> None:
        """Begin to look as soon as the hub runs.

        Args:
            directory: an absolute path. It needn't be there yet.
            add: starts the service in a directory.
            log: for messages.
        """
        self._directory = directory
        self._add = add
        self._log = log
        self._services: dict[_Identity, Service] = {}
        #: Set when one of them has ended.
        self._has_ended = Event()
        self._error = ""
        self._greenlet = gevent.spawn(self._run)

    def close(self) -> None:
        """Look no more."""
        self._greenlet.kill()

    def _run(self) -> None:
        while True:
            self._look()
            if self._has_ended.wait(_INTERVAL):
                self._has_ended.clear()
                gevent.sleep(_ABSENCE)

    def _look(self) -> None:
        try:
            found = self._find()
        except OSError as error:
            # What is told again and again is told once.
            if self._error != str(error):
                self._error = str(error)
                shown = printable(self._directory)
                self._log.warn(f"can't read the directory of services {shown}: {error.strerror}; waiting until it can be read")
            return
        self._error = ""
        for identity, service in list(self._services.items()):
            if service.ended:
                del self._services[identity]
            elif identity not in found:
                service.stop()
        for identity, path in found.items():
            if identity in self._services:
                self._services[identity].name = os.path.basename(path)
            else:
                service = self._services[identity] = self._add(path)
                service.greenlet.rawlink(lambda _: self._has_ended.set())

    def _find(self) -> dict[_Identity, bytes]:
        found: dict[_Identity, bytes] = {}
        for path in find_services(self._directory):
            try:
                status = os.stat(path)
            except OSError:
                continue  # it has vanished
            found.setdefault((status.st_dev, status.st_ino), path)
        return found
