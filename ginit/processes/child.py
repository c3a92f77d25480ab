"""Child: one executable, started with its pipes; its exit status."""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import Mapping, Sequence

from gevent.event import Event
from gevent.monkey import get_original

from ..text import printable
from .diagnosis import StartError, shortage, why_not_started
from .reaper import Reaper
from .status import exit_status

#: The standard library's, patched or not. It forks by vfork(2) from Python 3.10 on, where gevent's forks in Python: 0.6 ms a
#: process against 3.3 ms. posix_spawn(3) would do as well, but glibc's leaves two signals ignored that it uses itself.
_Popen: type[subprocess.Popen[bytes]] = get_original("subprocess", "Popen")


class Child:
    """A process that ginit started."""

    __slots__ = ("exited", "pid", "status", "wait_status")

    def __init__(self, pid: int) -> None:
        self.pid = pid
        #: Set when the process has ended and is reaped.
        self.exited = Event()
        #: The exit status, or the negated number of the signal that ended the process; None while it runs.
        self.status: int | None = None
        #: The same as waitpid(2) gives it.
        self.wait_status = 0

    def kill(self, signum: int) -> None:
        """Send a signal, unless the process has ended.

        Raises:
            PermissionError: the process has become another user's.
        """
        # The PID is the process's until it is reaped, and then `status` is set before anything else can run.
        if self.status is None:
            os.kill(self.pid, signum)

    def reaped(self, status: int) -> None:
        """Take note of its end.

        Args:
            status: as waitpid(2) gives it.
        """
        self.wait_status = status
        self.status = exit_status(status)
        self.exited.set()


class Spawner:
    """Starts processes with a clean slate: a directory, descriptors 0 to 2 alone, no ignored signals.

    That none is blocked or ignored takes `signals`, too: here only those are restored that the interpreter ignores.
    """

    def __init__(self, reaper: Reaper, environ: Mapping[bytes, bytes], sessions: bool = False) -> None:
        """
        Args:
            reaper: gets the statuses.
            environ: what each process has in its environment.
            sessions: whether each process gets a session and a process group of its own.
        """
        self._sessions = sessions
        self._reaper = reaper
        self._environ = dict(environ)
        self._null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)

    def spawn(
        self,
        executable: bytes,
        directory: bytes,
        environ: Mapping[bytes, bytes],
        stdin: int | None,
        stdout: int,
        stderr: int,
        arguments: Sequence[bytes] = (),
    ) -> Child:
        """Start `executable`.

        Args:
            executable: an absolute path.
            directory: the working directory.
            environ: what is added to the environment.
            stdin: a descriptor, or None for `/dev/null`.
            stdout: a descriptor.
            stderr: a descriptor.
            arguments: what it's told.

        Raises:
            StartError: it can't be started.
        """
        try:
            process = _Popen(
                [executable, *arguments],
                executable=executable,
                cwd=directory,
                env={**self._environ, **environ},
                stdin=self._null if stdin is None else stdin,
                stdout=stdout,
                stderr=stderr,
                close_fds=True,
                restore_signals=True,
                start_new_session=self._sessions,
            )
        except OSError as error:
            raise StartError(f"can't start {printable(executable)}: {why_not_started(executable, directory, error)}") from error
        process.returncode = 0  # so that it never waits: that is the reaper's
        child = Child(process.pid)
        self._reaper.watch(child.pid, child.reaped)
        return child

    def close(self) -> None:
        """Release what it holds."""
        os.close(self._null)


def open_pipe(name: bytes) -> tuple[int, int]:
    """A pipe's read end and write end, neither of them inherited.

    Each user may open it for writing, so that a program that has become another one can open `/dev/stdout`; nobody but those who
    have it finds it in /proc.

    Args:
        name: the service that needs it.

    Raises:
        StartError: too many open files.
    """
    try:
        read_end, write_end = os.pipe()
    except OSError as error:
        raise StartError(f"can't make a pipe for {printable(name)}: {shortage(error) or error.strerror}") from error
    with contextlib.suppress(OSError):
        os.fchmod(write_end, 0o622)
    return read_end, write_end
