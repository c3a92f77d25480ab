"""Redirecting the output of a running process, and of its descendants as far as they share it."""

from __future__ import annotations

import array
import contextlib
import os
import socket
import struct
from typing import Collection, Iterable, Iterator, Mapping, NamedTuple, Sequence

from .. import procfs
from .architectures import ARCHITECTURES, Architecture
from .descriptors import STREAM_NAMES, Original, Target, find_originals, find_pipelines, find_targets
from .errors import ChangedError, EndedError, TraceError
from .processes import StoppedProcess, wait_until_started
from .remote import CallError, RemoteCalls
from .tracee import Tracee

# The page in which a process works: where things are in it.
_ADDRESS, _MESSAGE, _VECTOR, _BYTE, _CONTROL = 0, 128, 192, 208, 256
#: struct msghdr: name, its size, vectors, their number, control messages, their size, flags (socket.h; the same on both
#: architectures).
_MSGHDR = struct.Struct("<QI4xQQQQI4x")
#: struct cmsghdr: size, level, type.
_CMSGHDR = struct.Struct("<Qii")

_MSG_DONTWAIT, _MSG_CMSG_CLOEXEC = 0x40, 0x40000000
_F_DUPFD_CLOEXEC = 1030
#: The first number that is none of the three standard ones.
_UNTAKEN = 3
#: Connections that may wait: others may call, by mistake or in bad faith, as the address isn't a secret.
_BACKLOG = 16


class Outcome(NamedTuple):
    """What has come of it."""

    #: Whether any descriptor of the process leads elsewhere now.
    redirected: bool
    remarks: Sequence[Remark]


class Remark(NamedTuple):
    """What stays as it was though the rest is redirected."""

    #: Of which process: a descendant's, if it isn't the one that was to be redirected.
    pid: int
    text: str


def redirect(pid: int, files: Mapping[int, int], own: Collection[int], started: float) -> Outcome:
    """Have the stdout and stderr of a process, and all copies of them in it and its descendants, lead elsewhere.

    To be called in a thread of its own that ends afterwards: it waits, and the kernel lets go then what can't be let go before.

    Args:
        pid: the process.
        files: the descriptors of this process's that they are to lead to, by the numbers 1 and 2. They are made to block, or
            not to, as what they stand in for did.
        own: the children that this process has started. A pipe that neither it nor they nor theirs read stays as it is.
        started: seconds of processor time after which a process has started; until then it isn't touched.

    Raises:
        TraceError: the process stays as it is, and so do its descendants; `EndedError` where it has ended.
        OSError: /proc can't be read, or no socket can be made.
    """
    architecture = ARCHITECTURES.get(os.uname().machine)
    if architecture is None:
        raise TraceError(f"ginit doesn't know how on {os.uname().machine}")
    redirection = _Redirection(architecture, files, started)
    redirection.run(pid, own)
    return Outcome(redirection.redirected, redirection.remarks)


class _Redirection:
    """One process's output, on its way to other files."""

    def __init__(self, architecture: Architecture, files: Mapping[int, int], started: float) -> None:
        self._architecture = architecture
        self._files = files
        self._started = started
        self._originals: dict[int, Original | None] = {}
        self.redirected = False
        self.remarks: list[Remark] = []

    def run(self, pid: int, own: Collection[int]) -> None:
        wait_until_started(pid, self._started)
        with _explained(pid):
            pipelines = find_pipelines(pid, own)
            with StoppedProcess(pid) as tracee:
                if not _is_reparented(pid, own):
                    return
                self._originals, kept = find_originals(tracee.tid, pipelines)
                for stream, original in self._originals.items():
                    os.set_blocking(self._files[stream], original is None or not original.flags & os.O_NONBLOCK)
                self._replace(pid, tracee, own=True)
                # Those that it starts from here on have what it has now.
                children = procfs.read_all_children(pid)
        for fd, other_use in kept.items():
            self.remarks.append(Remark(pid, f"its {STREAM_NAMES[fd]} stays where it was: it is {other_use}"))
        self._follow(children)

    def _follow(self, children: Iterable[int]) -> None:
        waiting = list(children)
        seen = set(waiting)
        while waiting:
            pid = waiting.pop(0)
            try:
                grandchildren = self._replace_copies(pid)
            except EndedError:
                continue  # and its children, if it had some, are others' now
            except (TraceError, OSError) as error:
                self.remarks.append(Remark(pid, f"its output stays where it was: {error}"))
                grandchildren = procfs.read_all_children(pid)
            waiting += [child for child in grandchildren if child not in seen]
            seen.update(grandchildren)

    def _replace_copies(self, pid: int) -> list[int]:
        """Redirect the copies that a descendant has, and return its children."""
        with _explained(pid):
            if find_targets(procfs.living_thread(pid), self._originals, own=False):  # who has none needn't be stopped
                wait_until_started(pid, self._started)
                with StoppedProcess(pid) as tracee:
                    self._replace(pid, tracee, own=False)
                    return procfs.read_all_children(pid)
        return procfs.read_all_children(pid)

    def _replace(self, pid: int, tracee: Tracee, *, own: bool) -> None:
        targets = find_targets(tracee.tid, self._originals, own)
        if not targets:
            return
        with RemoteCalls(tracee, self._architecture) as calls:
            failed = _place(calls, pid, targets, self._files)
            self.redirected = True
        for target, error in failed.items():
            self.remarks.append(Remark(pid, f"its descriptor {target.fd} stays where it was: {error}"))


def _is_reparented(pid: int, own: Collection[int]) -> bool:
    """Whether it's a child that this process didn't start: it may have been reaped, and the PID be another's by now."""
    stat = procfs.read_stat(pid)
    return stat is not None and stat.parent == os.getpid() and pid not in own


@contextlib.contextmanager
def _explained(pid: int) -> Iterator[None]:
    """Says of errors what they mean for the redirection of `pid`."""
    try:
        yield
    except (TraceError, PermissionError) as error:
        stat = procfs.read_stat(pid)
        hidden = stat is None and procfs.is_hidden_child(pid)
        if not hidden and (stat is None or stat.ended):
            raise EndedError from error  # its memory and its descriptors went first
        if not hidden and isinstance(error, EndedError):
            raise ChangedError from error
        if not hidden and isinstance(error, TraceError):
            raise
        raise TraceError("it may not be looked into; it may run as another user") from error


def _place(calls: RemoteCalls, pid: int, targets: Collection[Target], files: Mapping[int, int]) -> dict[Target, CallError]:
    """Put descriptors of this process's in place of `targets` of the process that makes `calls`.

    Returns:
        Those that it couldn't be done with, and why.

    Raises:
        TraceError: it couldn't be done with any.
    """
    streams = sorted({target.stream for target in targets})
    failed: dict[Target, CallError] = {}
    with contextlib.ExitStack() as opened:
        sources = dict(zip(streams, _hand_over(calls, pid, [files[stream] for stream in streams], opened)))
        for target in targets:
            try:
                calls.call("dup3", sources[target.stream], target.fd, os.O_CLOEXEC if target.close_on_exec else 0)
            except CallError as error:
                failed[target] = error
    if len(failed) == len(targets):
        raise next(iter(failed.values()))
    return failed


def _hand_over(calls: RemoteCalls, pid: int, fds: Sequence[int], opened: contextlib.ExitStack) -> list[int]:
    """Give the process that makes `calls` copies of this process's descriptors `fds`, which `opened` closes again.

    Returns:
        Their numbers there, none of which is that of a stdin, stdout or stderr.
    """
    name = b"\0ginit-" + os.urandom(16).hex().encode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.setblocking(False)
        listener.bind(name)
        listener.listen(_BACKLOG)
        address = struct.pack("<H", socket.AF_UNIX) + name
        calls.write(_ADDRESS, address)
        there = calls.call("socket", socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, 0)
        try:
            calls.call("connect", there, calls.page + _ADDRESS, len(address))
            with _accept(listener, pid) as here:
                here.sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])
                return _receive(calls, there, len(fds), opened)
        finally:
            calls.call("close", there)


def _accept(listener: socket.socket, pid: int) -> socket.socket:
    while True:
        connection, _ = listener.accept()
        caller, _, _ = struct.unpack("iII", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if caller == pid:
            return connection
        connection.close()


def _receive(calls: RemoteCalls, there: int, count: int, opened: contextlib.ExitStack) -> list[int]:
    page, size = calls.page, _CMSGHDR.size + 4 * count
    calls.write(_VECTOR, struct.pack("<QQ", page + _BYTE, 1))
    calls.write(_MESSAGE, _MSGHDR.pack(0, 0, page + _VECTOR, 1, page + _CONTROL, size, 0))
    calls.call("recvmsg", there, page + _MESSAGE, _MSG_DONTWAIT | _MSG_CMSG_CLOEXEC)
    # Of fewer descriptors than there's room for, only the header's own length says how many there are.
    length, _, _ = _CMSGHDR.unpack(calls.read(_CONTROL, _CMSGHDR.size))
    control = calls.read(_CONTROL, max(length, _CMSGHDR.size))
    received = [fd for (fd,) in struct.iter_unpack("<i", control[_CMSGHDR.size :])]
    with contextlib.ExitStack() as low:
        for fd in received:
            # A stdout or stderr that isn't open has left its number to what is opened next, and is to get it back.
            (low if fd < _UNTAKEN else opened).callback(calls.call, "close", fd)
        if len(received) < count:
            raise TraceError("it may not open more files")
        numbers = []
        for fd in received:
            number = fd
            if fd < _UNTAKEN:
                number = calls.call("fcntl", fd, _F_DUPFD_CLOEXEC, _UNTAKEN)
                opened.callback(calls.call, "close", number)
            numbers.append(number)
        return numbers
