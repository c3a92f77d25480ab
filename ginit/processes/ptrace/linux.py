"""The tracer's system calls, for which Python has no functions: ptrace(2), one function a request."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import signal
from typing import NamedTuple

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
_libc.ptrace.restype = ctypes.c_long

# linux/ptrace.h
_CONT = 7
_DETACH = 17
_SYSCALL = 24
_GETSIGINFO = 0x4202
_GETREGSET = 0x4204
_SETREGSET = 0x4205
_SEIZE = 0x4206
_INTERRUPT = 0x4207
_GETSIGMASK = 0x420A
_SETSIGMASK = 0x420B
_GET_RSEQ_CONFIGURATION = 0x420F
#: Marks the stops at system calls, which otherwise look like a SIGTRAP.
_O_TRACESYSGOOD = 1
_SYSTEM_CALL_STOP = signal.SIGTRAP | 0x80
_EVENT_STOP = 128

#: Bytes of the kernel's set of signals, on all architectures but MIPS.
SIGMASK_SIZE = 8
#: Bytes of a siginfo_t (SI_MAX_SIZE, asm-generic/siginfo.h).
_SIGINFO_SIZE = 128
#: Bytes of a struct ptrace_rseq_configuration (linux/ptrace.h).
_RSEQ_SIZE = 24
#: Where the pointer to a critical section is in a struct rseq (linux/rseq.h).
_RSEQ_CS = 8


class Stop(NamedTuple):
    """Why a tracee stands still: the first fields of its siginfo (ptrace(2), "PTRACE_GETSIGINFO")."""

    signum: int
    code: int

    @property
    def is_system_call(self) -> bool:
        """Whether it is about to enter the kernel, or about to leave it."""
        return self.signum == signal.SIGTRAP and self.code == _SYSTEM_CALL_STOP

    @property
    def is_event(self) -> bool:
        """Whether it was interrupted, or its whole process is stopped by `signum` (SIGSTOP, say)."""
        return self.code == _EVENT_STOP << 8 | self.signum

    @property
    def stops_process(self) -> bool:
        """Whether its whole process is stopped."""
        return self.is_event and self.signum != signal.SIGTRAP

    @property
    def pending_signal(self) -> int:
        """The signal that it is about to get, and gets if it goes on with it; 0 where it stands still for another reason."""
        return 0 if self.is_system_call or self.is_event else self.signum


class _Vector(ctypes.Structure):
    """A struct iovec."""

    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))


def _ptrace(request: int, tid: int, address: int = 0, data: int = 0) -> None:
    if _libc.ptrace(request, tid, address, data) == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def kernel_release() -> tuple[int, ...]:
    """The first two numbers of this kernel's version."""
    return tuple(int(number) for number in re.findall(r"\d+", os.uname().release)[:2])


def is_allowed() -> bool:
    """Whether this process may call ptrace(2) at all, which a seccomp filter can forbid."""
    try:
        _ptrace(_CONT, os.getpid())
    except ProcessLookupError:
        return True  # the right answer: it isn't traced by itself
    except OSError:
        pass
    return False


def seize(tid: int) -> None:
    """Become the tracer of a thread, without stopping it.

    Raises:
        OSError: EPERM or ESRCH, mostly.
    """
    _ptrace(_SEIZE, tid, 0, _O_TRACESYSGOOD)


def interrupt(tid: int) -> None:
    """Have a tracee stop as soon as it can, with an event stop."""
    _ptrace(_INTERRUPT, tid)


def read_stop(tid: int) -> Stop | None:
    """Why a tracee stands still; None while it doesn't, or isn't there any more.

    waitpid(2) would say the same, but only to the first who asks, and that may be the reaper.
    """
    info = ctypes.create_string_buffer(_SIGINFO_SIZE)
    try:
        _ptrace(_GETSIGINFO, tid, 0, ctypes.addressof(info))
    except ProcessLookupError:
        return None
    signum, _, code = (ctypes.c_int * 3).from_buffer(info)
    return Stop(signum, code)


def resume(tid: int, signum: int = 0) -> None:
    """Let a stopped tracee go on, and deliver `signum`, if it stands still before that."""
    _ptrace(_CONT, tid, 0, signum)


def resume_to_system_call(tid: int, signum: int = 0) -> None:
    """The same, up to the next entry to a system call or the next return from one."""
    _ptrace(_SYSCALL, tid, 0, signum)


def detach(tid: int) -> None:
    """Let a stopped tracee go on, and not be one any more."""
    _ptrace(_DETACH, tid)


def read_registers(tid: int, kind: int, size: int) -> bytes:
    """A set of registers of a stopped tracee, up to `size` bytes; `kind` is its note type (NT_*, linux/elf.h).

    Raises:
        OSError: EINVAL or ENODEV where the machine hasn't got it.
    """
    buffer = ctypes.create_string_buffer(size)
    vector = _Vector(ctypes.addressof(buffer), size)
    _ptrace(_GETREGSET, tid, kind, ctypes.addressof(vector))
    return buffer.raw[: vector.size]


def write_registers(tid: int, kind: int, registers: bytes) -> None:
    """Set what `read_registers` reads."""
    buffer = ctypes.create_string_buffer(registers, len(registers))
    vector = _Vector(ctypes.addressof(buffer), len(registers))
    _ptrace(_SETREGSET, tid, kind, ctypes.addressof(vector))


def read_blocked_signals(tid: int) -> bytes:
    """The mask of blocked signals of a stopped tracee."""
    buffer = ctypes.create_string_buffer(SIGMASK_SIZE)
    _ptrace(_GETSIGMASK, tid, SIGMASK_SIZE, ctypes.addressof(buffer))
    return buffer.raw


def write_blocked_signals(tid: int, mask: bytes) -> None:
    """Set what `read_blocked_signals` reads."""
    buffer = ctypes.create_string_buffer(mask, SIGMASK_SIZE)
    _ptrace(_SETSIGMASK, tid, SIGMASK_SIZE, ctypes.addressof(buffer))


def find_critical_section(tid: int) -> int | None:
    """Where in its memory a stopped tracee notes the restartable sequence that it is in (rseq(2)); None where it can't have one.

    Raises:
        ProcessLookupError: it has ended.
    """
    buffer = ctypes.create_string_buffer(_RSEQ_SIZE)
    try:
        _ptrace(_GET_RSEQ_CONFIGURATION, tid, _RSEQ_SIZE, ctypes.addressof(buffer))
    except OSError as error:
        if error.errno == errno.ESRCH:
            raise
        return None  # before Linux 5.13
    address = ctypes.c_uint64.from_buffer(buffer).value
    return address + _RSEQ_CS if address else None
