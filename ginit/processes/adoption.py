"""Adoption: what processes print that run already is brought into pipes of ginit's."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Collection, Mapping

import gevent
from gevent.lock import BoundedSemaphore

from ..output.log import Subject
from ..output.output import Output
from .child import open_pipe
from .diagnosis import StartError
from .ptrace.errors import EndedError, TraceError

if TYPE_CHECKING:
    from .ptrace.redirection import Outcome

#: Seconds after which a process that couldn't be stopped is tried again.
_PAUSES = (0.1, 0.4, 1.5)


class Adopter:
    """Redirects the output of reparented processes to ginit, one after the other."""

    def __init__(self, output: Output, started: float) -> None:
        """
        Args:
            output: takes what they print.
            started: seconds of processor time after which a process has started.
        """
        self._output = output
        self._started = started
        self._log = output.log
        # In turns, because the descendant of one may be the next one.
        self._turn = BoundedSemaphore()

    def adopt(self, subject: Subject, own: Collection[int]) -> None:
        """Redirect what a process prints, and its descendants where they share its output; soon, in a greenlet.

        Args:
            subject: the process, and what its lines are labelled with.
            own: at any time, the children that ginit has started.
        """
        gevent.spawn(self._adopt, subject, own)

    def _adopt(self, subject: Subject, own: Collection[int]) -> None:
        with self._turn:
            try:
                self._redirect(subject, own)
            except (TraceError, StartError, OSError, ImportError) as error:
                reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
                self._log.warn(f"its output stays where it was: {reason}", subject)
            except Exception as error:  # noqa: BLE001  (whatever it is, the process is adopted all the same)
                message = f"its output may have stayed where it was: unexpected error: {type(error).__name__}: {error}"
                self._log.warn(message, subject)
                self._log.trace(error, subject)

    def _redirect(self, subject: Subject, own: Collection[int]) -> None:
        from gevent.threadpool import ThreadPool  # rarely needed, as is all that's imported in that thread

        assert subject.pid is not None
        service = os.fsencode(subject.service)
        with contextlib.ExitStack() as stack:
            files = {}
            for fd, pump in ((1, self._output.pump_stdout), (2, self._output.pump_stderr)):
                read_end, files[fd] = open_pipe(service)
                stack.callback(os.close, files[fd])
                pump(read_end, service, subject.stage)
            for pause in (*_PAUSES, None):
                pool = ThreadPool(1)
                outcome = pool.apply(_redirect_here, (subject.pid, files, own, self._started))
                pool.kill()
                if pause is None or not (isinstance(outcome, TraceError) and outcome.temporary):
                    break
                gevent.sleep(pause)
        if isinstance(outcome, Exception):
            raise outcome
        if outcome is None:
            return  # it has ended, which is told when it's reaped
        for pid, text in outcome.remarks:
            whose = "" if pid == subject.pid else f"of its descendant {pid}: "
            self._log.warn(whose + text, subject)
        if outcome.redirected:
            self._log.info("its output is redirected", subject)


def _redirect_here(pid: int, files: Mapping[int, int], own: Collection[int], started: float) -> Outcome | Exception | None:
    """Redirect a process in this thread, which holds nobody up while it waits.

    Returns:
        What has come of it; None if the process has ended; an error, because gevent prints what is raised in a thread.
    """
    try:
        from .ptrace.redirection import redirect  # with ctypes, which not every Python has

        return redirect(pid, files, own, started)
    except EndedError:
        return None
    except Exception as error:  # noqa: BLE001
        return error
