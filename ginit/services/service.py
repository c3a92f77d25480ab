"""Service: one directory, with its `run`, `log/run`, `finish` and `terminate`, and a greenlet that lives as long as they do."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import Callable, Mapping, Optional, Protocol, Sequence

import gevent

from ..output.log import Subject
from ..output.output import Output
from ..output.pipes import has_writers, reopen_read_end
from ..processes.child import Child, Spawner, open_pipe
from ..processes.diagnosis import StartError
from ..processes.status import describe
from ..restart import RestartPolicy
from ..text import printable
from .programs import Logger, Program, Run
from .task import Want


class Owner(Protocol):
    """Who decides what a service's life means for the others."""

    @property
    def stopping(self) -> bool:
        """Whether nothing is to be started any more."""

    def start_failed(self, subject: Subject, error: StartError) -> bool:
        """A program of a service's can't be started.

        Returns:
            Whether another try is to be made. What of the service did start is waited for.
        """

    def program_ended(self, service: Service, subject: Subject, status: int, pause: float | None) -> bool:
        """A program of the service's has ended that was to run.

        Args:
            service: whose.
            subject: the program.
            status: its exit status, or the negated number of the signal that ended it.
            pause: seconds until it's to be started again, or None if it isn't.

        Returns:
            Whether it is started again.
        """


class Closeable(Protocol):
    """What is open until it's closed."""

    def close(self) -> None:
        """Close it."""


#: Lets others see and control a program until what it returns is closed; returns None where that can't be done, and raises a
#: StartError where somebody else controls it.
OpenControls = Callable[[Program], Optional[Closeable]]


class Service:
    """A service and all its processes."""

    __slots__ = (
        "_keeps_write_end",
        "_open_controls",
        "_output",
        "_path",
        "_place",
        "_read_end",
        "_scripts",
        "_spawner",
        "_stopper",
        "_write_end",
        "controlled",
        "greenlet",
        "log",
        "logger",
        "name",
        "owner",
        "restarts",
        "run",
    )

    def __init__(
        self,
        path: bytes,
        spawner: Spawner,
        output: Output,
        owner: Owner,
        restart: RestartPolicy,
        open_controls: OpenControls | None = None,
        *,
        follow: bool = False,
    ) -> None:
        """Start it as soon as the hub runs.

        Args:
            path: the service's directory, absolute.
            spawner: starts its processes.
            output: takes what they print.
            owner: is told what happens.
            restart: whether its programs are started again when they end.
            open_controls: makes it controllable.
            follow: whether its directory may be renamed, and is the same one then.
        """
        self.name = os.path.basename(path)
        self.owner = owner
        self.log = output.log
        self._path = os.path.realpath(path)  # a link may be taken away while the service runs
        self._place = _open_place(path) if follow else None
        self._spawner = spawner
        self._output = output
        self._open_controls = open_controls
        #: Whether its programs are started again when they end.
        self.restarts = restart.mode != "no"
        #: Whether it's controlled as runsv(8) does it.
        self.controlled = open_controls is not None
        # Whether others write into the pipe to the log program after this `run`; else the end is `run`'s alone.
        self._keeps_write_end = self.restarts or self.controlled or self.has_file(b"finish")
        self._read_end: int | None = None
        self._write_end: int | None = None
        want = Want.DOWN if self.has_file(b"down") else Want.UP
        self.run = Run(self, restart, want)
        self.logger: Logger | None = None
        if self.has_file(b"log/run"):
            want = Want.DOWN if self.has_file(b"log/down") else Want.UP
            self.logger = Logger(self, restart, want)
        # Those that may run still of the scripts that go with `run`.
        self._scripts: tuple[tuple[str, Child], ...] = ()
        self._stopper: gevent.Greenlet[[bytes], None] | None = None
        self.greenlet = gevent.spawn(self._live)

    @property
    def waited_for(self) -> list[str]:
        """Its processes that run, each with its PID."""
        named = [
            ("run", self.run.child),
            ("finish", self.run.finisher),
            ("log", self.logger.child if self.logger else None),
            *self._scripts,
        ]
        return [
            f"{printable(self.name)}/{stage} (PID {child.pid})"
            for stage, child in named
            if child is not None and child.status is None
        ]

    @property
    def ended(self) -> bool:
        """Whether nothing of it runs any more, nor will."""
        return bool(self.greenlet.dead) and all(task.pid is None for task in self._tasks())

    @property
    def log_waits_in_vain(self) -> bool:
        """Whether `run` is over, but another process holds the pipe open whose end its log program waits for."""
        logger = self.logger
        return (
            logger is not None
            and logger.running
            and self.run.ended
            and self._write_end is None
            and self._read_end is not None
            and has_writers(self._read_end)
        )

    def stop(self) -> None:
        """Have its `run` ended, and nothing of it started again; once more, if an error kept that from happening.

        A log program isn't stopped: it ends when its stdin does.
        """
        self.run.exit()
        stopper = self._stopper
        if self.run.running and (stopper is None or (stopper.dead and not stopper.successful())):
            self._stopper = gevent.spawn(self.run.tell_to_end, b"x")
        if self.logger is not None:
            if self.logger.running:
                self._let_read_on(self.logger)
            else:
                self.logger.exit()
                self.take_over_pipe()

    def _tasks(self) -> list[Program]:
        return [self.run] if self.logger is None else [self.logger, self.run]

    def _live(self) -> None:
        if self.owner.stopping:
            return
        controls: dict[Program, Closeable] = {}
        try:
            if self._open_controls is not None:
                self._control(self._open_controls, controls)
            if self.run.want is Want.DOWN and self.run not in controls:
                self.log.info("is down", Subject(self.name, "run"))  # and nobody can change that
                return
            if self.logger is not None and self.logger.want is Want.DOWN and self.logger not in controls:
                self.logger = None
            if self.logger is None:
                self.run.live()
            else:
                self._live_with(self.logger)
            if self._stopper is not None:
                self._stopper.join()
        except StartError as error:
            self.owner.start_failed(Subject(self.name, "run"), error)
        finally:
            # An error leaves at once, whatever runs still: it's the owner who stops that.
            self._close_write_end()
            for opened in controls.values():
                opened.close()
            if self._place is not None:
                place, self._place = self._place, None
                os.close(place)

    def _live_with(self, logger: Logger) -> None:
        self._read_end, self._write_end = open_pipe(self.name)
        logging = gevent.spawn(logger.live)
        gevent.sleep(0)  # it comes first
        self.run.live()
        self._close_write_end()
        logger.exit()
        self._let_read_on(logger)
        logging.join()
        logger.join()
        self.take_over_pipe()

    def _let_read_on(self, logger: Logger) -> None:
        """Have a log program go on that is paused, once there is an end to what it reads."""
        if self._write_end is None:
            logger.read_on()

    def _control(self, open_controls: OpenControls, opened: dict[Program, Closeable]) -> None:
        for task in self._tasks():
            controls = open_controls(task)
            if controls is not None:
                opened[task] = controls

    # The pipe between `run` and its log program.

    def take_over_pipe(self) -> None:
        """Pass on what nobody reads any more that was meant for the log program."""
        if self._read_end is not None:
            read_end, self._read_end = self._read_end, None
            # What the log program has left running may read on.
            self._output.pump_stdout(reopen_read_end(read_end), self.name, "run")

    def _close_write_end(self) -> None:
        if self._write_end is not None:
            write_end, self._write_end = self._write_end, None
            os.close(write_end)

    def start_run(self) -> Child:
        """Start `run`; see `spawn`."""
        try:
            return self.spawn("run", self.run.executable, stdout=self._write_end)
        finally:
            if not self._keeps_write_end:
                self._close_write_end()  # so that the log program's stdin ends when `run` does

    def start_logger(self, executable: bytes) -> Child:
        """Start `log/run`; see `spawn`."""
        assert self._read_end is not None
        # It stays open here, too: so it's seen whether somebody writes still, and what the log program leaves is passed on.
        return self.spawn("log", executable, stdin=self._read_end)

    def start_script(self, stage: str, name: bytes, arguments: Sequence[bytes], environ: Mapping[bytes, bytes]) -> Child:
        """Start one of the scripts that go with `run`; see `spawn`."""
        # As runsv(8) does, but for `terminate`, whose lines are told from those of `run`.
        stdout = None if stage == "term" else self._write_end
        child = self.spawn(stage, self.file(name), None, stdout, arguments, environ)
        self._scripts = tuple((name, script) for name, script in self._scripts if script.status is None)
        if stage != "finish":
            self._scripts += ((stage, child),)
        child.exited.rawlink(lambda _: self._script_ended(stage, child))
        return child

    def _script_ended(self, stage: str, child: Child) -> None:
        assert child.status is not None
        if stage != "term" or child.status == 0:  # else it has a consequence, which is told with it
            self.log.info(describe(child.status), Subject(self.name, stage, child.pid))

    def file(self, name: bytes) -> bytes:
        """The path of something in the service's directory."""
        if self._place is not None:
            with contextlib.suppress(OSError):
                self._path = os.readlink(b"/proc/self/fd/%d" % self._place)
        return os.path.join(self._path, name)

    def has_file(self, name: bytes) -> bool:
        """Whether something of that name is in the service's directory."""
        return os.path.lexists(self.file(name))

    def has_script(self, name: bytes) -> bool:
        """Whether a file of that name is in the service's directory, and its owner may execute it."""
        try:
            mode = os.stat(self.file(name)).st_mode
        except OSError:
            return False
        return stat.S_ISREG(mode) and bool(mode & stat.S_IXUSR)

    def spawn(
        self,
        stage: str,
        executable: bytes,
        stdin: int | None = None,
        stdout: int | None = None,
        arguments: Sequence[bytes] = (),
        environ: Mapping[bytes, bytes] | None = None,
    ) -> Child:
        """Start one of the service's executables, and pass on what it prints.

        Args:
            stage: whose stderr lines and messages these are.
            executable: its path.
            stdin: a descriptor instead of `/dev/null`.
            stdout: a descriptor instead of a pipe to the output.
            arguments: what it's told.
            environ: what it has in its environment besides.

        Raises:
            StartError: it can't be started.
        """
        write_ends: list[int] = []
        try:
            # The pumps first: an error in one of them must not leave a process that nobody knows.
            read_end, write_end = open_pipe(self.name)
            write_ends.append(write_end)
            self._output.pump_stderr(read_end, self.name, stage)
            if stdout is None:
                read_end, write_end = open_pipe(self.name)
                write_ends.append(write_end)
                # What a log program prints is what `run` has to say.
                self._output.pump_stdout(read_end, self.name, "run" if stage == "log" else stage)
            child = self._spawner.spawn(
                executable,
                os.path.dirname(executable) if stage == "log" else self._path,
                {b"GINIT_SERVICE": self.name, **(environ or {})},
                stdin,
                write_end if stdout is None else stdout,
                write_ends[0],
                arguments,
            )
        finally:
            for write_end in write_ends:
                os.close(write_end)
        self.log.info("started", Subject(self.name, stage, child.pid))
        return child


def _open_place(path: bytes) -> int | None:
    """A descriptor by which a directory is found under whatever name; None where none can be had."""
    try:
        return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
