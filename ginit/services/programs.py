"""Programs: the two of a service, `run` with the scripts that go with it, and `log/run`; what their ends mean."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Mapping, Sequence

from ..output.log import Log, Subject
from ..patience import Patience
from ..processes.child import Child
from ..processes.diagnosis import StartError
from ..processes.procfs import may_be_stopped
from ..processes.signals import let_happen
from ..processes.status import describe, exit_status, signal_name
from ..restart import DISABLED, RestartPolicy, Restarts
from .task import Task, Want

if TYPE_CHECKING:
    from .service import Service

#: Seconds within which the end of `run` counts more than that of `log/run`.
_GRACE = 0.01
#: Seconds until another try to start what couldn't be started, where another try is made; as runsv(8) does it.
_RETRY_PAUSE = 1.0
#: What `finish` is told, in a status of waitpid(2), when `run` can't be started: that it exited with 111 (runsv(8)).
_NOT_STARTED = 111 << 8


class Program(Task):
    """One of a service's two programs."""

    __slots__ = ("_is_asked", "_log", "_policy", "_restarts", "_sent", "_service")

    #: How it's called in messages and in the output.
    stage: str
    #: Where it is in the service's directory.
    name: bytes
    #: Whether it can be told to exit, which takes the service with it.
    can_exit = False

    def __init__(self, service: Service, restart: RestartPolicy, want: Want) -> None:
        """
        Args:
            service: whose it is.
            restart: whether that is started again when it ends.
            want: whether it's to be started.
        """
        super().__init__(want)
        self._service = service
        self._log: Log = service.log
        self._policy = restart
        self._restarts: Restarts | None = None  # until it ends: a thousand services take less memory so
        # Whether its program was told to end, and the signals that it was sent.
        self._is_asked = False
        self._sent: tuple[int, ...] = ()

    @property
    def end_was_asked_for(self) -> bool:
        """Whether its program was told to end, or has died of a signal that it was sent."""
        status = self.child.status if self.child is not None else None
        return self._is_asked or (status is not None and -status in self._sent)

    @property
    def executable(self) -> bytes:
        """The path of its program."""
        return self._service.file(self.name)

    def kill(self, signum: int) -> None:
        """Send its program a signal, if it runs."""
        if self.child is None:
            return
        self._sent += (signum,) if signum not in self._sent else ()
        try:
            self.child.kill(signum)
        except PermissionError as error:
            advice = "it runs as another user, stop it in a terminate file"
            self._log.error(f"can't send {signal_name(signum).replace('SIG', '')}: {error.strerror}; {advice}", self._subject())

    def control(self, command: bytes, signum: int) -> None:
        """Do what a command of runsv(8) says that stands for a signal: by the service's own script, or by sending that."""
        child = self.child
        done = self.customize(command)
        if self.child is not child or not self.running:
            return  # it has ended meanwhile, and the next one isn't meant
        if not done:
            self.kill(signum)
        if signum in (signal.SIGSTOP, signal.SIGCONT):
            self._set_paused(signum == signal.SIGSTOP)

    def customize(self, command: bytes) -> bool:  # noqa: ARG002
        """Run the service's own script for a command of runsv(8), and say whether that has done the work."""
        return False

    def tell_to_end(self, command: bytes) -> None:  # noqa: ARG002
        """Have its program end, and wait until that is told.

        Args:
            command: the command of runsv(8) that asks for it, `d`, `x` or `t`.
        """
        self._is_asked = True
        self._send_term()
        self.kill(signal.SIGCONT)

    def _send_term(self) -> None:
        self._log.info("sending TERM", self._subject())
        self.kill(signal.SIGTERM)
        self._was_told()

    def _set_paused(self, paused: bool) -> None:
        self.paused = paused
        self.changed()

    def _was_told(self) -> None:
        self.told = self.running
        self.changed()

    def _subject(self) -> Subject:
        return Subject(self._service.name, self.stage, self.child.pid if self.child else None)

    def _before_start(self) -> None:
        self._is_asked = False
        self._sent = ()

    def _may_start(self) -> bool:
        return not self._service.owner.stopping

    def _start_failed(self, error: StartError) -> float | None:
        return _RETRY_PAUSE if self._service.owner.start_failed(self._subject(), error) else None

    def _ended(self, child: Child, lived: float) -> float | None:
        assert child.status is not None
        if self.want is not Want.UP:
            self._log.info(describe(child.status), self._subject())
            return 0.0
        if self._restarts is None:
            self._restarts = self._policy.begin()
        pause = self._restarts.pause(child.status, lived)
        if pause is None and child.status != DISABLED and self.end_was_asked_for:
            pause = 0.0  # by whoever controls it, and not to stay down
        again = self._service.owner.program_ended(self._service, self._subject(), child.status, pause)
        return pause if again else None


class Run(Program):
    """`run`, with what goes with it: `finish`, `terminate` and `control/`."""

    __slots__ = ()
    stage = "run"
    name = b"run"
    can_exit = True

    def customize(self, command: bytes) -> bool:
        """Run `control/`COMMAND, if there is one, and say whether it has done the work."""
        if not self._service.controlled:
            return False
        name = b"control/" + command
        pid = b"%d" % self.child.pid if self.child is not None and self.running else b""
        return self._service.has_script(name) and self._run_script("control", name, (pid,), {})

    def tell_to_end(self, command: bytes) -> None:
        """Have it end, by `control/t`, `terminate` or TERM, and wait until that is told; see `Program.tell_to_end`."""
        self._is_asked = True
        child = self.child
        done = False
        try:
            done = self.customize(b"t") or self._terminate()
        finally:
            if not done and self.child is child:  # for whatever reason
                self._send_term()
        if self.child is not child:
            return  # it has ended, and the next one isn't meant
        if command == b"t" and self._service.controlled:
            return
        if self._service.controlled or (self.child is not None and may_be_stopped(self.child.pid)):
            self.kill(signal.SIGCONT)  # or it couldn't act on TERM
        self.customize(command)

    def _terminate(self) -> bool:
        child = self.child
        if not self._service.has_file(b"terminate") or child is None:
            return False
        pid = b"%d" % child.pid
        done = self._run_script("term", b"terminate", (), {b"GINIT_PID": pid, b"DINIT_PID": pid})
        if done and self.child is child:
            self._was_told()
        return done

    def _run_script(self, stage: str, name: bytes, arguments: Sequence[bytes], environ: Mapping[bytes, bytes]) -> bool:
        """Run a script and wait for it, and say whether it did its work."""
        consequence = "; sending TERM" if stage == "term" else ""
        try:
            child = self._service.start_script(stage, name, arguments, environ)
        except StartError as error:
            self._log.error(f"{error}{consequence}", Subject(self._service.name, stage))
            return False
        child.exited.wait()
        assert child.status is not None
        if child.status != 0 and stage == "term":
            self._log.error(f"terminate {describe(child.status)}; sending TERM", Subject(self._service.name, stage, child.pid))
        return child.status == 0

    def _before_start(self) -> None:
        super()._before_start()
        self.customize(b"u")

    def _start(self) -> Child:
        return self._service.start_run()

    def _start_failed(self, error: StartError) -> float | None:
        pause = super()._start_failed(error)
        if pause is not None:
            self._finish(_NOT_STARTED)
        return pause

    def _start_finish(self, wait_status: int) -> Child | None:
        if not self._service.has_file(b"finish"):
            return None
        status = exit_status(wait_status)
        arguments = (b"%d" % max(status, -1), b"%d" % (wait_status & 0xFF))
        try:
            return self._service.start_script("finish", b"finish", arguments, {})
        except StartError as error:
            self._log.error(str(error), Subject(self._service.name, "finish"))
            return None


class Logger(Program):
    """`log/run`."""

    __slots__ = ()
    stage = "log"
    name = b"log/run"

    def read_on(self) -> None:
        """Have it go on if it is paused."""
        if self.child is not None and self.running and may_be_stopped(self.child.pid):
            self.kill(signal.SIGCONT)
            self._set_paused(False)

    def _start(self) -> Child:
        return self._service.start_logger(self.executable)

    def _ended(self, child: Child, lived: float) -> float | None:
        run = self._service.run
        assert child.status is not None
        if self.want is Want.EXIT or self._service.owner.stopping:
            self._log.info(describe(child.status), self._subject())
            self._service.take_over_pipe()
            return None
        if not self._service.restarts and run.child is not None and run.want is Want.UP:
            patience = Patience(_GRACE, _GRACE / 10)
            while run.running and not patience.is_over():
                run.child.exited.wait(_GRACE / 10)
            let_happen()
            if not run.running and not run.end_was_asked_for:
                self._log.info(describe(child.status), self._subject())
                return None  # what `run` says counts
        return super()._ended(child, lived)
