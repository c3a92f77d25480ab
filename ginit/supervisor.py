"""Supervisor: starts the services, decides when to stop, waits for everything, and gives the exit status."""

from __future__ import annotations

import os
import signal
from types import TracebackType
from typing import TYPE_CHECKING, Callable, Mapping

import gevent
from gevent.event import Event

from .output.log import Subject
from .output.output import Output
from .patience import Patience, time_to_start
from .processes import procfs
from .processes.adoption import Adopter
from .processes.child import Spawner
from .processes.diagnosis import StartError, shortage
from .processes.orphans import STOPPING_LOOK_INTERVAL, Orphans
from .processes.reaper import Reaper, become_subreaper
from .processes.signals import Signals, let_happen
from .processes.status import describe, signal_name
from .restart import DISABLED
from .services.directory import find_services
from .services.service import OpenControls, Service
from .settings import Settings
from .text import printable

if TYPE_CHECKING:
    from .runit.rescan import Rescan

#: ginit's exit statuses.
SUCCESS = 0
FAILURE = 1
SERVICE_FAILURE = 3
#: runsvdir(8)'s, when it's told by HUP to stop.
HANGUP = 111

#: Seconds after which it's told for the first time who is waited for; then after twice as long each time.
_FIRST_NOTE = 5.0
#: How often stopping is begun again after an unexpected error.
_ATTEMPTS = 20


class Supervisor:
    """One run of ginit, from the first service's start to the last line."""

    def __init__(self, settings: Settings, environ: Mapping[bytes, bytes], start_cost: float = 0.0) -> None:
        """
        Args:
            settings: what the person wants.
            environ: the services' environment.
            start_cost: seconds of processor time that ginit's own imports took, by which a slow machine is known.

        Raises:
            OSError: stdout, stderr or /dev/null can't be used.
        """
        self._settings = settings
        self._stop_requested = Event()
        #: Set when a process or a service's greenlet has ended.
        self._changed = Event()
        self._status: int | None = None
        self._failures: set[str] = set()
        self._services: list[Service] = []
        self._disabled: set[bytes] = set()
        #: Adopted processes whose end hasn't had its consequences yet.
        self._undecided = 0
        self._output = Output(settings, self._output_failed, self._failed)
        self._log = self._output.log
        started = time_to_start(start_cost)
        self._adopter = Adopter(self._output, started)
        self._orphans = Orphans(self._log, settings.reparenting_policy, settings.kill_timeout, self, started)
        self._reaper = Reaper(self._orphans.reaped, self._on_reaped)
        self._spawner = Spawner(self._reaper, environ, settings.sessions)
        self._open_controls = self._import_controls() if settings.supervise else None
        self._rescan: Rescan | None = None
        #: In runsvdir's place, by program: why it couldn't be started since it ran last.
        self._start_errors: dict[str, set[str]] = {}

    def run(self) -> int:
        """Run the services until they are to stop and have stopped.

        Returns:
            The exit status.
        """
        hub = gevent.get_hub()
        # Each greenlet's and each callback's unexpected error comes here, so that none dies unnoticed.
        hub.handle_error = self._greenlet_failed  # type: ignore[method-assign,assignment]
        signals = Signals(self._on_signal)
        try:
            self._attempt(self._start)
            self._attempt(self._stop_requested.wait)
            if self._rescan is not None:
                self._rescan.close()
            notes = gevent.spawn(self._tell_who_is_waited_for)
            # An error in ginit itself doesn't keep it from stopping what runs, unless it is there to stay.
            for _ in range(_ATTEMPTS):
                if self._attempt(self._orphans.stop) and self._attempt(self._wait):
                    break
                gevent.sleep(STOPPING_LOOK_INTERVAL)
            self._attempt(self._orphans.close)
            self._log.info(f"exiting with status {self._status}")
            for phase in (self._output.end_streams, self._flush_output):
                self._attempt(phase) or self._attempt(phase)
            notes.kill()
        finally:
            signals.close()
            self._reaper.close()
            self._spawner.close()
            del hub.handle_error
        return FAILURE if self._status is None else self._status

    def _attempt(self, phase: Callable[[], object]) -> bool:
        """Run a phase, and say whether it went without an unexpected error."""
        try:
            phase()
        except Exception as error:  # noqa: BLE001
            self._failed(error)
            return False
        return True

    def _flush_output(self) -> None:
        if self._output.flush():
            self._status = FAILURE

    # What services tell; see `service.Owner`.

    @property
    def stopping(self) -> bool:
        """Whether a reason to stop has come."""
        return self._status is not None

    def start_failed(self, subject: Subject, error: StartError) -> bool:
        """Stop everything: a program of a service's can't be started. In runsvdir's place, have it tried again."""
        if not self._settings.runsvdir:
            self._fail(str(error))
            return False
        told = self._start_errors.setdefault(str(subject), set())
        if str(error) not in told:  # what comes again and again is told once
            told.add(str(error))
            self._log.error(f"{error}; trying again until it can be")
        return True

    def program_ended(self, service: Service, subject: Subject, status: int, pause: float | None) -> bool:
        """Decide what the end of a service's program means."""
        self._start_errors.pop(str(subject), None)
        if pause is not None and not self._is_told_to_stop():
            self._log.warn(f"{describe(status)}; starting it again{f' in {pause:g} s' if pause else ''}", subject)
            return True
        if self._has_disabled_itself(subject, status):
            self._disabled.add(service.name)
            service.stop()
            self._stop_if_nothing_is_left()
        return False

    def _is_told_to_stop(self) -> bool:
        """Whether everything is to be stopped, by now."""
        if not self.stopping:
            # Ctrl-C reaches ginit and its services at the same time, and the hub may come to the death first. The kernel
            # sends the signal to all of a terminal's processes before one of them can die, so it's there to be handled.
            let_happen()
        return self.stopping

    def _has_disabled_itself(self, subject: Subject, status: int) -> bool:
        """Whether the others go on though a service has ended; if they don't, request the stop."""
        if self._is_told_to_stop():
            self._log.info(describe(status), subject)
        elif status == DISABLED:
            self._log.info("has disabled itself", subject)
            return True
        else:
            hint = f"; with status {DISABLED} the others would go on" if status >= 0 else ""
            self._log.why_stopping(f"{describe(status)}; stopping everything{hint}", subject, failure=status != 0)
            self._request_stop(SERVICE_FAILURE if status else SUCCESS)
        return False

    def _stop_if_nothing_is_left(self) -> None:
        if self.stopping or self._undecided or not self._services or self._settings.runsvdir:
            return
        if not all(service.ended or service.name in self._disabled for service in self._services):
            return
        # A service may have left a daemon behind, and perhaps it hasn't been looked at yet.
        if self._settings.reparenting_policy != "adopt" or self._reaper.childless():
            what = "has" if len(self._disabled) == len(self._services) else "is down or has"
            self._log.warn(f"every service {what} disabled itself, nothing is left to run")
            self._request_stop(SUCCESS)

    # What becomes of reparented processes; see `orphans.Owner`.

    def adopt(self, subject: Subject) -> None:
        """Have a process's output redirected."""
        self._adopter.adopt(subject, self._reaper.watched)

    def adopted_ended(self, subject: Subject, status: int) -> None:
        """Decide what the end of an adopted process means: what a service's would."""
        self._undecided += 1
        gevent.spawn(self._decide, subject, status)

    def _decide(self, subject: Subject, status: int) -> None:
        try:
            self._has_disabled_itself(subject, status)
        finally:
            self._undecided -= 1
        self._stop_if_nothing_is_left()

    def look_failed(self, error: Exception) -> None:
        """Stop everything: something is wrong in ginit itself. Where something is short only, look again."""
        reason = shortage(error)
        if reason is None:
            self._failed(error)
        elif reason not in self._failures:  # what comes again and again is told once
            self._failures.add(reason)
            self._log.error(f"can't look for reparented processes: {reason}; trying again until it can be done")

    # The phases of a run.

    def _start(self) -> None:
        if not procfs.is_of_this_namespace():
            self._fail("/proc is another PID namespace's, whose processes aren't ginit's; mount one (unshare --mount-proc)")
            return
        if not procfs.is_mounted():
            self._log.warn("no /proc is mounted: reparented processes can't be seen, so they aren't terminated or waited for")
        if os.getpid() != 1:
            self._become_subreaper()
        self._orphans.start(self._reaper.watched)
        # The signals that came while ginit was starting are handled before anything is started.
        let_happen()
        directory = self._settings.directory
        if self._settings.runsvdir:
            from .runit.rescan import Rescan  # in runsvdir's place alone

            self._rescan = Rescan(directory, self._add, self._log)
            return
        try:
            paths = find_services(directory)
        except OSError as error:
            advice = "set GINIT_DIR or name the directory as an argument"
            self._fail(f"can't read the directory of services {printable(directory)}: {error.strerror}; {advice}")
            return
        if not paths:
            self._log.warn(f"there is no service in {printable(directory)}, nothing to run")
            self._request_stop(SUCCESS)
        for path in paths:
            self._add(path)

    def _add(self, path: bytes) -> Service:
        """Start a service."""
        if self._rescan is not None:
            self._services = [service for service in self._services if not service.ended]
        service = Service(
            path, self._spawner, self._output, self, self._settings.restart, self._open_controls, follow=self._settings.runsvdir
        )
        service.greenlet.rawlink(self._on_service_over)
        self._services.append(service)
        return service

    def _on_service_over(self, _: object) -> None:
        self._stop_if_nothing_is_left()
        self._changed.set()

    def _import_controls(self) -> OpenControls:
        from .runit.controls import ControlsOpener  # where it's asked for

        return ControlsOpener(self._log)

    def _wait(self) -> None:
        """Stop the services, and stay until nothing runs any more that ginit waits for."""
        patience: Patience | None = None
        while not all(service.ended for service in self._services) or not self._orphans_ended():
            for service in self._services:
                service.stop()
            self._changed.clear()
            changed = self._changed.wait(STOPPING_LOOK_INTERVAL)
            if not changed and self._reaper.childless():
                return  # though a service doesn't know it: its end was lost in an error
            if not self._only_loggers_wait_in_vain():
                patience = None
                continue
            patience = patience or Patience(self._settings.drain_timeout, 2 * STOPPING_LOOK_INTERVAL)
            if patience.is_over():
                let_happen()
                waiting = [printable(service.name) for service in self._services if not service.ended]
                if waiting:
                    names = ", ".join(waiting)
                    self._log.warn(f"not waiting for the log program of {names}: an ignored process holds its stdin open")
                return

    def _orphans_ended(self) -> bool:
        return self._leaves_orphans() or self._reaper.childless()

    def _leaves_orphans(self) -> bool:
        """Whether reparented processes are neither terminated nor waited for."""
        return self._settings.reparenting_policy == "ignore" or not procfs.is_mounted()

    def _only_loggers_wait_in_vain(self) -> bool:
        """Whether log programs are all that's left, and wait for what a process prevents that ginit leaves alone."""
        return self._leaves_orphans() and all(service.ended or service.log_waits_in_vain for service in self._services)

    # Reasons to stop.

    def _request_stop(self, status: int) -> None:
        if self._status is None:
            self._status = status
        self._stop_requested.set()

    def _fail(self, message: str) -> None:
        self._status = FAILURE
        self._stop_requested.set()
        self._log.error(message)

    def _failed(self, error: BaseException) -> None:
        """Something unexpected has happened in ginit itself."""
        message = f"unexpected error, stopping everything: {type(error).__name__}: {error}"
        if message in self._failures:
            return  # an error that comes again and again is told once
        self._failures.add(message)
        self._fail(message)
        self._log.trace(error)

    def _greenlet_failed(
        self, _context: object, kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        """Called by gevent for an error that leaves a greenlet or a callback."""
        if not issubclass(kind, gevent.GreenletExit):
            self._failed(error.with_traceback(trace))

    def _output_failed(self, name: str, error: OSError) -> None:
        reason = "its reader has closed it" if isinstance(error, BrokenPipeError) else error.strerror
        self._fail(f"can't write to {name}: {reason}; stopping everything")

    def _on_reaped(self) -> None:
        self._orphans.look()
        self._stop_if_nothing_is_left()
        self._changed.set()

    def _on_signal(self, number: int) -> None:
        name = signal_name(number)
        if self.stopping:
            self._log.warn(f"{name} while stopping changes nothing; waiting for {self._waited_for()}")
            return
        self._log.info(f"{name}: stopping everything")
        self._request_stop(HANGUP if number == signal.SIGHUP and self._settings.runsvdir else SUCCESS)

    def _waited_for(self) -> str:
        """Who keeps ginit from exiting."""
        names = [process for service in self._services for process in service.waited_for]
        names += map(str, self._orphans.waited_for)
        return ", ".join(names or self._output.waited_for) or "processes that can't be seen"

    def _tell_who_is_waited_for(self) -> None:
        waited, pause = 0.0, _FIRST_NOTE
        while True:
            gevent.sleep(pause)
            waited += pause
            pause = waited
            self._log.warn(f"still waiting for {self._waited_for()}, {waited:g} s after the stop was asked for")

    def _become_subreaper(self) -> None:
        try:
            become_subreaper()
        except OSError as error:
            self._log.warn(f"not PID 1, and can't become a child subreaper: {error}; daemonized processes won't be seen")
        else:
            self._log.info("not PID 1: reaping as a child subreaper")
