"""Why a process can't be traced."""

from __future__ import annotations


class TraceError(Exception):
    """A process can't be traced, or can't do what it is to do; the text says why, in words that follow "because"."""

    #: Whether it may be different in a moment.
    temporary = False


class EndedError(TraceError):
    """The thread has ended, or is ending."""

    def __init__(self) -> None:
        super().__init__("it has ended")


class ChangedError(TraceError):
    """The thread has ended, but its process hasn't: another one has taken its place by execve(2)."""

    temporary = True

    def __init__(self) -> None:
        super().__init__("it executed another program just then")


class StuckError(TraceError):
    """The thread doesn't stop: it waits for a disk, or for a process that it has forked by vfork(2); or for a processor."""

    temporary = True

    def __init__(self, state: bytes) -> None:
        """`state` is the letter of proc_pid_stat(5)."""
        super().__init__("it waits in the kernel and can't be interrupted" if state == b"D" else "it doesn't get to run")
