"""Restart: whether a program that has ended is started again, and after how long."""

from __future__ import annotations

from typing import NamedTuple, Protocol

#: The exit status by which a service says that it has nothing to do (dinit's convention).
DISABLED = 115
#: Seconds before the first restart, and at most; each pause is twice the one before (Docker's restart policies, docker run(1)).
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 60.0
#: Seconds of life after which the next pause is the first one again; Docker's, too.
_HEALTHY = 10.0
#: Seconds that runsv(8) waits after a program that lived for less.
_RUNIT_PAUSE = 1.0


class RestartPolicy(NamedTuple):
    """When programs that end are started again, in Docker's words."""

    #: `no`, `on-failure` or `always`; or `runit`, which is always, too, but paced as runsv(8) does it.
    mode: str = "no"
    #: The most restarts of a program under `on-failure`; None for any number.
    limit: int | None = None

    def begin(self) -> Restarts:
        """The restarts of one program, of which there were none yet."""
        return _AsRunit() if self.mode == "runit" else _AsDocker(self)


class Restarts(Protocol):
    """Decides the restarts of one program."""

    def pause(self, status: int, lived: float) -> float | None:
        """Seconds until the program is to be started again; None if it isn't.

        Args:
            status: its exit status, or the negated number of the signal that ended it.
            lived: seconds from its start to its end.
        """


class _AsDocker:
    def __init__(self, policy: RestartPolicy) -> None:
        self._policy = policy
        self._count = 0
        self._next = _FIRST_PAUSE

    def pause(self, status: int, lived: float) -> float | None:
        mode, limit = self._policy
        if mode == "no" or status == DISABLED:
            return None
        if mode == "on-failure" and (status == 0 or self._count == limit):
            return None
        self._count += 1
        pause = _FIRST_PAUSE if lived >= _HEALTHY else self._next
        self._next = min(2 * pause, _LONGEST_PAUSE)
        return pause


class _AsRunit:
    def pause(self, status: int, lived: float) -> float | None:  # noqa: ARG002
        return 0.0 if lived >= _RUNIT_PAUSE else _RUNIT_PAUSE
