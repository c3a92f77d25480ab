"""Service: one directory, with its `run`, `log/run` and `terminate`, and a greenlet that lives as long as they do."""

from __future__ import annotations

import os
import signal
from typing import Mapping, Protocol

import gevent

from .child import Child, Spawner, StartError, describe, open_pipe
from .log import Subject
from .output import Output
from .procfs import has_writers, read_stat

#: The exit status by which a service says that it has nothing to do (dinit's convention).
DISABLED = 115
#: Seconds within which the end of `run` counts more than that of `log/run`.
_GRACE = 0.01


class Owner(Protocol):
    """Who decides what a service's life means for the others."""

    @property
    def stopping(self) -> bool:
        """Whether nothing is to be started any more."""

    def start_failed(self, error: StartError) -> None:
        """An executable of the service can't be started. What of it did start is waited for."""

    def service_ended(self, service: Service, subject: Subject, status: int) -> None:
        """The service has ended: its `run`, or its `log/run` before that."""


class Service:
    """A service and all its processes."""

    def __init__(self, path: bytes, spawner: Spawner, output: Output, owner: Owner) -> None:
        """Start it as soon as the hub runs.

        Args:
            path: the service's directory, absolute.
            spawner: starts its processes.
            output: takes what they print.
            owner: is told what happens.
        """
        self.name = os.path.basename(path)
        self._path = path
        self._spawner = spawner
        self._output = output
        self._log = output.log
        self._owner = owner
        self._run: Child | None = None
        self._logger: Child | None = None
        self._stopper: gevent.Greenlet[[], None] | None = None
        self.greenlet = gevent.spawn(self._live)

    @property
    def running(self) -> int | None:
        """The PID of its `run`, while that runs."""
        return self._run.pid if self._run is not None and self._run.status is None else None

    @property
    def ended(self) -> bool:
        """Whether nothing of it runs any more, nor will."""
        processes = (self._run, self._logger)
        return bool(self.greenlet.dead) and all(child is None or child.status is not None for child in processes)

    @property
    def log_waits_in_vain(self) -> bool:
        """Whether `run` has ended, but another process holds the pipe open whose end its log program waits for."""
        logger = self._logger
        return logger is not None and logger.status is None and not self.running and has_writers(logger.pid, 0)

    def stop(self) -> None:
        """Have its `run` stopped, by `terminate` or TERM; again, if an error kept that from happening.

        A log program isn't stopped: it ends when its stdin does.
        """
        stopper = self._stopper
        if self.running and (stopper is None or (stopper.dead and not stopper.successful())):
            self._stopper = gevent.spawn(self._stop)

    def _live(self) -> None:
        if self._owner.stopping:
            return
        try:
            self._start()
        except StartError as error:
            self._owner.start_failed(error)
        if self._run is not None:
            self._await_end(self._run)
        for child in (self._run, self._logger):
            if child is not None:
                child.exited.wait()
        if self._stopper is not None:
            self._stopper.join()

    def _start(self) -> None:
        logger = os.path.join(self._path, b"log", b"run")
        run = os.path.join(self._path, b"run")
        if not os.path.lexists(logger):
            self._run = self._spawn("run", run)
            return
        read_end, write_end = open_pipe()
        try:
            self._logger = self._spawn("log", logger, stdin=read_end)
            self._run = self._spawn("run", run, stdout=write_end)
        finally:
            # The two processes hold it now, and nobody else: so the log program's stdin ends when `run` does.
            os.close(read_end)
            os.close(write_end)

    def _await_end(self, run: Child) -> None:
        logger = self._logger
        if logger is not None:
            gevent.wait([run.exited, logger.exited], count=1)
            run.exited.wait(_GRACE)
        else:
            run.exited.wait()
        for stage, child in (("run", run), ("log", logger)):
            if child is not None and child.status is not None:
                self._owner.service_ended(self, Subject(self.name, stage, child.pid), child.status)
                return

    def _stop(self) -> None:
        terminate = os.path.join(self._path, b"terminate")
        done = False
        try:
            done = os.path.lexists(terminate) and self._terminate(terminate)
        finally:
            if not done:  # for whatever reason
                self._send_term()

    def _terminate(self, executable: bytes) -> bool:
        """Run it, and say whether it did its work."""
        assert self._run is not None
        pid = b"%d" % self._run.pid
        try:
            child = self._spawn("term", executable, environ={b"GINIT_PID": pid, b"DINIT_PID": pid})
        except StartError as error:
            self._log.error(f"{error}; sending TERM", Subject(self.name, "term"))
            return False
        child.exited.wait()
        assert child.status is not None
        if child.status != 0:
            self._log.error(f"terminate {describe(child.status)}; sending TERM", Subject(self.name, "term", child.pid))
        return child.status == 0

    def _send_term(self) -> None:
        run = self._run
        assert run is not None
        subject = Subject(self.name, "run", run.pid)
        try:
            self._log.info("sending TERM", subject)
            run.kill(signal.SIGTERM)
            stat = read_stat(run.pid) if run.status is None else None
            if stat is not None and stat.stopped:
                run.kill(signal.SIGCONT)  # or it couldn't act on TERM
        except PermissionError as error:
            self._log.error(f"can't send TERM: {error.strerror}; it runs as another user, stop it in a terminate file", subject)

    def _spawn(
        self,
        stage: str,
        executable: bytes,
        stdin: int | None = None,
        stdout: int | None = None,
        environ: Mapping[bytes, bytes] | None = None,
    ) -> Child:
        """Start one of the service's executables in its directory, and pass on what it prints.

        Args:
            stage: whose stderr lines and messages these are.
            executable: its path.
            stdin: a descriptor instead of `/dev/null`.
            stdout: a descriptor instead of a pipe to the output.
            environ: what it has in its environment besides.

        Raises:
            StartError: it can't be started.
        """
        write_ends: list[int] = []
        try:
            # The pumps first: an error in one of them must not leave a process that nobody knows.
            read_end, write_end = open_pipe()
            write_ends.append(write_end)
            self._output.pump_stderr(read_end, self.name, stage)
            if stdout is None:
                read_end, write_end = open_pipe()
                write_ends.append(write_end)
                # What a log program prints is what `run` has to say.
                self._output.pump_stdout(read_end, self.name, "run" if stage == "log" else stage)
            child = self._spawner.spawn(
                executable,
                os.path.dirname(executable),
                {b"GINIT_SERVICE": self.name, **(environ or {})},
                stdin,
                write_end if stdout is None else stdout,
                write_ends[0],
            )
        finally:
            for write_end in write_ends:
                os.close(write_end)
        self._log.info("started", Subject(self.name, stage, child.pid))
        return child
