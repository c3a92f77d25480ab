"""A command as PID 1 of a PID namespace of its own, as in a container; nothing of it stays behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Mapping, Sequence, final

from . import procfs
from .results import HangError, PeerError

#: util-linux has both.
NEEDED = ("setpriv", "unshare")
#: Seconds between two looks.
_PAUSE = 0.002
#: Seconds that `unshare` gets to start, and the kernel to end a namespace.
_PATIENCE = 20


def missing_tools() -> list[str]:
    """The programs that a namespace takes and that aren't there."""
    return [tool for tool in NEEDED if shutil.which(tool) is None]


def _prefix() -> list[str]:
    # The kernel ends it all, also when this process is killed: it ends `unshare`, which ends PID 1, which ends the rest.
    command = ["setpriv", "--pdeathsig", "KILL", "unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if os.geteuid() != 0:
        command[4:4] = ["--user", "--map-root-user"]
    return command


@final
class Namespace:
    """A running command. As a context manager it kills all that is in the namespace when it's left."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], directory: Path, stdout: int, stderr: int) -> None:
        """
        Args:
            command: becomes PID 1.
            environ: its environment.
            directory: its working directory.
            stdout: a descriptor.
            stderr: a descriptor.
        """
        #: When it was started, in seconds on the monotonic clock.
        self.started = time.monotonic()
        self._outside = subprocess.Popen(
            [*_prefix(), *command],
            env=dict(environ),
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
        self._init: int | None = None

    @property
    def init(self) -> int:
        """The PID of PID 1, as it is outside.

        Raises:
            PeerError: there's none, as the command has ended or couldn't be started.
        """
        deadline = time.monotonic() + _PATIENCE
        while self._init is None:
            children = [process for process in procfs.processes() if process.parent == self._outside.pid]
            if children:
                self._init = children[0].pid
            elif self._outside.poll() is not None:
                raise PeerError(f"ended with status {self._outside.returncode}")
            elif time.monotonic() > deadline:
                raise HangError("has no PID 1")
            else:
                time.sleep(_PAUSE)
        return self._init

    @property
    def status(self) -> int | None:
        """The command's exit status, negated where a signal ended it; None while it runs."""
        return self._outside.poll()

    def processes(self) -> list[procfs.Process]:
        """All processes in it."""
        return procfs.descendants(self.init)

    def stop(self, timeout: float) -> None:
        """Send PID 1 a TERM, where it hasn't ended yet, and wait until it has.

        Raises:
            HangError: it hasn't within `timeout` seconds.
        """
        self._signal(signal.SIGTERM)
        self.wait(timeout)

    def wait(self, timeout: float) -> None:
        """Wait until PID 1 has ended.

        Raises:
            HangError: it hasn't within `timeout` seconds.
        """
        try:
            self._outside.wait(timeout)
        except subprocess.TimeoutExpired:
            raise HangError(f"didn't end within {timeout:g} s") from None

    def __enter__(self) -> Namespace:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        try:
            self._signal(signal.SIGKILL)
        except HangError:
            self._outside.kill()
        self._outside.wait(_PATIENCE)

    def _signal(self, number: signal.Signals) -> None:
        if self.status is not None:
            return
        try:
            os.kill(self.init, number)
        except HangError:
            raise
        except (PeerError, ProcessLookupError):
            pass  # it has ended since that look
