"""Controls: sv(8)'s commands are done, and the state that it shows is kept up to date."""

from __future__ import annotations

import contextlib
import os
import signal
from contextlib import closing
from functools import partial
from typing import Callable

import gevent

from ..output.log import Log
from ..processes.diagnosis import StartError
from ..services.programs import Program
from ..services.task import State
from ..text import printable
from .supervise import HeldError, Status, Supervise

#: The commands that send a signal, as runsv(8) has them.
_SIGNALS = {
    b"p": signal.SIGSTOP,
    b"c": signal.SIGCONT,
    b"h": signal.SIGHUP,
    b"a": signal.SIGALRM,
    b"i": signal.SIGINT,
    b"q": signal.SIGQUIT,
    b"1": signal.SIGUSR1,
    b"2": signal.SIGUSR2,
    b"k": signal.SIGKILL,
}
#: Bytes of commands that one read takes.
_BLOCK = 64
_READABLE = 1


class ControlsOpener:
    """Opens the controls of tasks, each in the `supervise` directory beside its program."""

    def __init__(self, log: Log) -> None:
        """
        Args:
            log: for messages.
        """
        self._log = log
        self._warned: set[str] = set()

    def __call__(self, task: Program) -> Controls | None:
        """Make a task controllable that hasn't begun; return None where that can't be.

        Raises:
            StartError: another process controls it.
        """
        directory = os.path.dirname(task.executable)
        try:
            return Controls(task, Supervise(directory), partial(self._warn, directory))
        except HeldError:
            path = printable(directory)
            raise StartError(f"can't start {path}: its supervise is held by a runsv or another ginit that runs it") from None
        except OSError as error:
            self._warn(directory, error)
            return None

    def _warn(self, directory: bytes, error: OSError) -> None:
        """Say that what sv needs can't be kept; once for each reason, as on a read-only root it is so for all."""
        reason = error.strerror or str(error)
        if reason not in self._warned:
            self._warned.add(reason)
            path = printable(os.path.join(directory, os.fsencode(error.filename or b"supervise")))
            self._log.warn(f"can't use {path}: {reason}; sv can't control this service, nor others where it is so")


class Controls:
    """The controls of one task."""

    def __init__(self, task: Program, supervise: Supervise, failed: Callable[[OSError], None]) -> None:
        """
        Args:
            task: what is controlled.
            supervise: the files for it, which are closed with this.
            failed: called when the task's state can't be written.
        """
        self._task = task
        self._supervise = supervise
        self._failed = failed
        self._is_busy = False
        self._closing = False
        self._told: Status | None = None
        task.changed = self._tell
        self._tell()
        self._greenlet = gevent.spawn(self._run)

    def close(self) -> None:
        """Let nobody control it any more, once the command is done that is being done."""
        self._closing = True
        if not self._is_busy:
            self._greenlet.kill()
        self._greenlet.join()
        self._task.changed = lambda: None
        self._supervise.close()

    def _tell(self) -> None:
        task = self._task
        status = Status(task.state, task.since, task.pid, task.paused, task.told, task.want.name.lower())
        if status == self._told:
            return
        self._told = status
        try:
            self._supervise.write(status)
        except FileNotFoundError:
            pass  # the directory is gone, as that of a service that is removed
        except OSError as error:
            self._failed(error)

    def _run(self) -> None:
        hub = gevent.get_hub()
        fd = self._supervise.control
        with closing(hub.loop.io(fd, _READABLE)) as watcher:
            while not self._closing:
                hub.wait(watcher)
                with contextlib.suppress(BlockingIOError):  # somebody else reads commands, too
                    self._obey(os.read(fd, _BLOCK))
                gevent.sleep(0)  # whoever writes without end

    def _obey(self, commands: bytes) -> None:
        self._is_busy = True
        try:
            for command in commands:
                if not self._closing:
                    self._do(bytes([command]))
        finally:
            self._is_busy = False

    def _do(self, command: bytes) -> None:
        """Do what a command of runsv(8) says; what is none does nothing."""
        task = self._task
        if command == b"u":
            task.up()
        elif command == b"o":
            task.once()
        elif command == b"d":
            task.down()
            self._end(command)
        elif command == b"x" and task.can_exit:
            task.exit()
            self._end(command)
        elif command == b"t":
            self._end(command)
        elif command in _SIGNALS and task.state is State.RUN:
            task.control(command, _SIGNALS[command])

    def _end(self, command: bytes) -> None:
        if self._task.state is State.RUN:
            self._task.tell_to_end(command)
