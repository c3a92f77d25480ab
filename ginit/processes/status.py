"""Exit statuses: as waitpid(2) gives them, as ginit has them, and in words."""

from __future__ import annotations

import os
import signal


def exit_status(status: int) -> int:
    """The exit status in a status of waitpid(2), or the negated number of the signal that ended the process."""
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def describe(status: int) -> str:
    """An exit status in words."""
    return f"ended with status {status}" if status >= 0 else f"was ended by {signal_name(-status)}"


def signal_name(signum: int) -> str:
    """`SIGTERM` for 15; `signal 40` for one without a name."""
    try:
        return signal.Signals(signum).name
    except ValueError:
        return f"signal {signum}"
