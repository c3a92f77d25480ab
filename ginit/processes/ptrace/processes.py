"""Stopping a whole process, and why that can't always be."""

from __future__ import annotations

import contextlib
import os
import time
from types import TracebackType
from typing import final

from ...patience import Patience
from .. import procfs
from . import linux
from .errors import EndedError, TraceError
from .tracee import Tracee

#: Seconds for which a thread may wait where it can't be interrupted, while the others stand still already. One that runs, or
#: waits for something that can be interrupted, takes microseconds, unless the machine is busy.
_STOP_TIMEOUT = 0.3
#: Seconds to wait for a process to have started, at most.
_START_TIMEOUT = 1.0
#: Seconds between two looks whether it has.
_START_PAUSE = 0.002
#: Seconds until it is tried again to trace what another thread of this process traces.
_PAUSE = 0.001
#: From here on Yama lets at most those trace who have SYS_PTRACE; 1 lets ancestors, as ginit is (admin-guide/LSM/Yama.rst).
_SCOPE_ADMIN = 2


def wait_until_started(pid: int, started: float) -> None:
    """Wait until a process that may be starting sleeps.

    A program that starts looks at its stdout and stderr more than once, and may not stand it when they are others the second
    time. Python ends with "can't initialize sys standard streams" when what it found to be seekable isn't any more.

    Args:
        pid: the process.
        started: seconds of processor time after which it has started.
    """
    patience = Patience(_START_TIMEOUT, 2 * _START_PAUSE)
    while _may_be_starting(pid, started) and not patience.is_over():
        time.sleep(_START_PAUSE)


def _may_be_starting(pid: int, started: float) -> bool:
    process = procfs.read_stat(pid)
    if process is None or process.processor_time >= started:
        return False
    threads = map(procfs.read_stat, procfs.read_threads(pid))
    return any(thread is not None and thread.state in b"RD" for thread in threads)


@final
class StoppedProcess:
    """All threads of a process stand still while this context lasts, and go on afterwards.

    All, because another one could open and close files while one is busy with them.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._tracees: dict[int, Tracee] = {}

    def __enter__(self) -> Tracee:
        """Stop them, and give one that can be worked with.

        Raises:
            TraceError: it can't be done.
        """
        try:
            self._stop_all()
            tracee = self._choose()
            _check_filters(tracee.tid)
        except BaseException:
            self._let_go()
            raise
        return tracee

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Let them go on."""
        self._let_go()

    def _stop_all(self) -> None:
        while True:
            # As long as one isn't stopped, it may start another one.
            new = [tid for tid in procfs.read_threads(self._pid) if tid not in self._tracees and _is_alive(tid)]
            if not new:
                return
            for tid in new:
                self._seize(tid)
            for tid in new:
                if tid in self._tracees:
                    with contextlib.suppress(EndedError):
                        self._tracees[tid].wait(_STOP_TIMEOUT)

    def _seize(self, tid: int) -> None:
        patience = Patience(_STOP_TIMEOUT, 10 * _PAUSE)
        while True:
            is_over = patience.is_over()
            try:
                self._tracees[tid] = Tracee(tid)
            except ProcessLookupError:
                pass  # it has ended
            except OSError as error:
                if _is_traced_from_here(tid) and not is_over:
                    time.sleep(_PAUSE)  # by a thread that is about to end
                    continue
                if _is_alive(tid):
                    raise TraceError(_why_not(tid)) from error
            return

    def _choose(self) -> Tracee:
        for tracee in self._tracees.values():
            if tracee.stop is not None:
                if tracee.stop.stops_process:
                    raise TraceError("it is stopped by a signal")
                return tracee
        raise EndedError

    def _let_go(self) -> None:
        for tracee in self._tracees.values():
            if tracee.stop is not None:
                tracee.detach()
        # One that didn't stop can't be detached; the kernel does it when this thread ends.


def _is_traced_from_here(tid: int) -> bool:
    tracer = procfs.read_status(tid).get(b"TracerPid", b"0")
    return tracer != b"0" and procfs.read_status(int(tracer)).get(b"Tgid", b"%d" % os.getpid()) == b"%d" % os.getpid()


def _is_alive(tid: int) -> bool:
    stat = procfs.read_stat(tid)
    return stat is not None and not stat.gone


def _why_not(tid: int) -> str:
    """Why ptrace(2) isn't permitted on a thread."""
    if not linux.is_allowed():
        return (
            "ptrace isn't allowed here; Docker's default seccomp profile allows it from Linux 4.8 and Docker 19.03 on, "
            "elsewhere allow it or add the capability SYS_PTRACE"
        )
    status = procfs.read_status(tid)
    tracer = status.get(b"TracerPid", b"0").decode()
    if tracer != "0":
        return f"process {tracer} traces it"
    scope = procfs.read_ptrace_scope()
    if scope >= _SCOPE_ADMIN:
        return f"kernel.yama.ptrace_scope is {scope}"
    users = set(status.get(b"Uid", b"").split()[:3])
    if users and users != {b"%d" % os.geteuid()}:
        return "it runs, or has run, as another user, and ginit hasn't got the capability SYS_PTRACE"
    return "the kernel doesn't permit it; the process may have protected itself, or a security module forbids it"


def _check_filters(tid: int) -> None:
    """Refuse a thread that has seccomp filters of its own: one of those might end it for the system calls to be made."""
    own, its = procfs.read_status(os.getpid()), procfs.read_status(tid)
    # From Linux 5.9 on the kernel counts them. Before, whoever has no special rights has to give up new ones for a filter.
    for field in (b"Seccomp", b"Seccomp_filters", b"NoNewPrivs"):
        if its.get(field, own.get(field)) != own.get(field) and not (field == b"NoNewPrivs" and b"Seccomp_filters" in own):
            raise TraceError("it has limited its own system calls by seccomp")
