"""Orphans: processes whose parents died and that became ginit's children; what the policy makes of them.

Being reparented sends no signal to the new parent, so ginit looks at the list of its children.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Collection, Protocol

import gevent
from gevent.event import Event

from ..output.log import Log, Subject
from ..patience import Patience
from ..settings import SPARE
from ..text import printable
from . import procfs
from .signals import let_happen
from .status import describe, exit_status

#: Seconds between two looks when nothing happens.
LOOK_INTERVAL = 1.0
#: The same while everything is being stopped.
STOPPING_LOOK_INTERVAL = 0.1
#: Seconds between two looks at least, however many processes end.
_LOOK_PAUSE = 0.01
#: Seconds a process must have lived to be looked at: a younger one may be between fork and exec, and not itself yet.
_GROWN_UP = 0.01
#: Seconds for which one that doesn't get to run may be held up between the two.
_HELD_UP = 1.0
#: The start time in /proc is cut to clock ticks of at most this many seconds.
_TICK = 0.01
#: Processes handled before other greenlets get their turn.
_BATCH = 32
#: Processes a second that get a message of their own; the others of that second share one.
_MESSAGES = 10


class _Orphan:
    """A reparented process that is alive."""

    def __init__(self, pid: int, command: bytes) -> None:
        self.pid = pid
        self.subject = Subject(command, str(pid), pid)
        #: Runs out when it's to be killed; None when it isn't.
        self.patience: Patience | None = None
        #: Whether it counts as a service.
        self.adopted = False
        #: Whether it was told to end.
        self.told = False


class _Youth:
    """How long a process counts as young."""

    __slots__ = ("grown_up", "held_up")

    def __init__(self) -> None:
        self.grown_up = Patience(_GROWN_UP, 2 * _GROWN_UP)
        self.held_up = Patience(_HELD_UP, 2 * _GROWN_UP)


class _Warnings:
    """Warnings about reparented processes, of which there may be thousands a second: the first few say all, a sum the rest."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._left = _MESSAGES
        self._renewed = 0.0
        self._unmentioned = 0

    def warn(self, message: str, subject: Subject) -> None:
        """Give the message, at debug level where this second has had its messages."""
        if self._left:
            self._left -= 1
            self._log.warn(message, subject)
        else:
            self._unmentioned += 1
            self._log.debug(message, subject)

    def renew(self) -> None:
        """Let there be messages again if a second has passed."""
        now = time.monotonic()
        if now - self._renewed >= 1:
            self._renewed = now
            self._left = _MESSAGES
            self.sum_up()

    def sum_up(self) -> None:
        """Say how many had no message of their own."""
        if self._unmentioned:
            count, self._unmentioned = self._unmentioned, 0
            self._log.warn(f"{count} more reparented processes were terminated or killed, too many to name each")


class Owner(Protocol):
    """Who decides what becomes of a reparented process that is adopted."""

    def adopt(self, subject: Subject) -> None:
        """Take a process in; must not block."""

    def adopted_ended(self, subject: Subject, status: int) -> None:
        """It has ended, with an exit status, or the negated number of a signal; must not block."""

    def look_failed(self, error: Exception) -> None:
        """Looking for reparented processes has failed; it goes on all the same."""


class Orphans:
    """Looks for reparented processes, and has them terminated, adopted or ignored; the reaper reaps them."""

    def __init__(self, log: Log, policy: str, kill_timeout: float, owner: Owner, started: float) -> None:
        """
        Args:
            log: ginit's messages.
            policy: of `settings.POLICIES`, or `settings.SPARE`.
            kill_timeout: seconds between TERM and KILL for one that is terminated.
            owner: is told of those that are adopted.
            started: seconds of processor time after which a process has started.
        """
        self._log = log
        self._policy = policy
        self._kill_timeout = kill_timeout
        self._started = started
        self._owner = owner
        self._own: Collection[int] = ()
        self._wake = Event()
        self._stopping = False
        #: Those that were too young to be met, and how long each may count as that.
        self._young: dict[int, _Youth] = {}
        self._orphans: dict[int, _Orphan] = {}
        self._warnings = _Warnings(log)
        self._greenlet: gevent.Greenlet[[], None] | None = None

    def start(self, own: Collection[int]) -> None:
        """Begin to look; `own` are, at any time, the children that aren't reparented ones."""
        self._own = own
        self._greenlet = gevent.spawn(self._run)

    def look(self) -> None:
        """Look at once, or within `_LOOK_PAUSE`; may be called in the hub."""
        self._wake.set()

    @property
    def waited_for(self) -> list[Subject]:
        """The reparented processes that ginit doesn't exit before."""
        return [orphan.subject for orphan in self._orphans.values() if orphan.told]

    def stop(self) -> None:
        """Tell those to end that are adopted, adopt no more, and look more often."""
        self._stopping = True
        self._wake.set()
        if self._policy == SPARE:
            self._policy = "terminate"
            self._orphans = {}  # they are to be met again
        for orphan in list(self._orphans.values()):
            if orphan.adopted:
                self._tell_to_end(orphan)

    def close(self) -> None:
        """Look no more."""
        if self._greenlet is not None:
            self._greenlet.kill()
        self._warnings.sum_up()

    def reaped(self, pid: int, status: int) -> None:
        """Forget a process that has ended; may be called in the hub.

        Args:
            pid: its PID, which may be another process's from now on.
            status: as waitpid(2) gives it.
        """
        self._young.pop(pid, None)
        orphan = self._orphans.pop(pid, None)
        if orphan is None:
            return
        if orphan.adopted:
            self._owner.adopted_ended(orphan.subject, exit_status(status))
        else:
            self._log.info(f"reparented process {describe(exit_status(status))}", orphan.subject)

    def _run(self) -> None:
        pause = LOOK_INTERVAL
        last_look = 0.0
        while True:
            if self._wake.wait(pause):
                gevent.sleep(max(0.0, last_look + _LOOK_PAUSE - time.monotonic()))
            self._wake.clear()
            last_look = time.monotonic()
            pause = STOPPING_LOOK_INTERVAL
            try:
                self._look()
                self._kill_overdue()
                pause = self._pause()
            except Exception as error:  # noqa: BLE001  (whatever it is, the next look may succeed)
                self._owner.look_failed(error)

    def _pause(self) -> float:
        """Seconds until the next look."""
        if self._young:
            return _GROWN_UP
        pause = STOPPING_LOOK_INTERVAL if self._stopping else LOOK_INTERVAL
        due = [orphan.patience.left for orphan in self._orphans.values() if orphan.patience is not None]
        return max(0.0, min(pause, *due)) if due else pause

    def _look(self) -> None:
        self._warnings.renew()
        for orphan in list(self._orphans.values()):
            # It may not have been stopped yet when it was told; and no KILL comes that would end it all the same.
            if orphan.told and orphan.adopted:
                self._continue(orphan)
        strangers = [pid for pid in procfs.read_children(os.getpid()) if pid not in self._own and pid not in self._orphans]
        for index, pid in enumerate(strangers):
            if index % _BATCH == _BATCH - 1:
                gevent.sleep(0)
            # Others had their turn, so this may be another process by now, even one that ginit started.
            if pid not in self._own:
                self._meet(pid)

    def _meet(self, pid: int) -> None:
        stat = procfs.read_stat(pid)
        hidden = stat is None and procfs.is_hidden_child(pid)
        if not hidden and (stat is None or stat.parent != os.getpid() or stat.ended):
            self._young.pop(pid, None)
            return
        if self._may_be_between_fork_and_exec(stat, self._young.setdefault(pid, _Youth())):
            return
        self._young.pop(pid, None)
        command = stat.command if stat is not None else b"?"
        orphan = self._orphans[pid] = _Orphan(pid, command)
        command_line = printable(procfs.read_command_line(pid) or command)
        if self._policy in ("ignore", SPARE):
            self._log.info(f"ignoring a reparented process: {command_line}", orphan.subject)
        elif self._policy == "adopt" and not self._stopping:
            orphan.adopted = True
            try:
                self._log.warn(f"adopting a reparented process: {command_line}", orphan.subject)
            finally:  # whatever becomes of the message, as below
                self._owner.adopt(orphan.subject)
        else:
            try:
                self._warnings.warn(f"terminating a reparented process: {command_line}", orphan.subject)
            finally:
                orphan.patience = Patience(self._kill_timeout, 2 * LOOK_INTERVAL)
                self._tell_to_end(orphan)

    def _may_be_between_fork_and_exec(self, stat: procfs.Stat | None, youth: _Youth) -> bool:
        """Whether a process isn't itself yet: named as another, and with that one's answers to signals."""
        is_grown_up, may_be_held_up = youth.grown_up.is_over(), not youth.held_up.is_over()
        if stat is None:
            return not is_grown_up
        # By its start time or by our own clock: the one is coarse, the other doesn't know how old it was at first sight.
        if stat.age < _GROWN_UP + _TICK and not is_grown_up:
            return True
        # Where a processor is hard to get, it may be older.
        waits_for_processor = not stat.executed and not stat.sleeps and stat.processor_time < self._started
        return waits_for_processor and may_be_held_up

    def _tell_to_end(self, orphan: _Orphan) -> None:
        if orphan.told:
            return
        self._kill(orphan, signal.SIGTERM)
        orphan.told = True
        self._continue(orphan)

    def _continue(self, orphan: _Orphan) -> None:
        if procfs.may_be_stopped(orphan.pid):
            self._kill(orphan, signal.SIGCONT)  # or it couldn't act on TERM

    def _kill_overdue(self) -> None:
        overdue = [orphan for orphan in self._orphans.values() if orphan.patience is not None and orphan.patience.is_over()]
        if overdue:
            let_happen()
        for orphan in overdue:
            if orphan.pid in self._orphans:  # it hasn't ended just now
                orphan.patience = None
                self._warnings.warn(f"killing a reparented process, {self._kill_timeout:g} s after TERM", orphan.subject)
                self._kill(orphan, signal.SIGKILL)

    def _kill(self, orphan: _Orphan, signum: signal.Signals) -> None:
        try:
            os.kill(orphan.pid, signum)
        except OSError as error:
            # Another user's (PermissionError). It stays ours to wait for.
            self._log.error(f"can't send {signum.name}: {error.strerror}", orphan.subject)
