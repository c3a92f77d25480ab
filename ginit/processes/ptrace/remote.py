"""System calls made by another process, which is left as it was."""

from __future__ import annotations

import contextlib
import os
import struct
from types import TracebackType
from typing import final

from .. import procfs
from . import linux
from .architectures import NT_PRSTATUS, Architecture
from .errors import EndedError, TraceError
from .tracee import Tracee, ended_if_missing

#: Bytes of the page to work in; every machine's are at least as large.
PAGE = 4096
#: Bytes of a set of registers at most: SVE's are 9 KiB where a register has 256 bytes.
_SET_SIZE = 16384
#: The header of SVE's sets (struct user_sve_header): two sizes, two lengths of vectors, flags. And the flag of one in use.
_SET_HEADER = struct.Struct("<IIHHHH")
_SET_IN_USE = 1
_ALL_SIGNALS = b"\xff" * linux.SIGMASK_SIZE
#: Bytes of a program that are searched for an instruction at most, and how many at a time.
_SEARCHED = 16 * 1024 * 1024
_SEARCH_BLOCK = 65536
#: Results from here to -1 are errors (MAX_ERRNO, linux/err.h).
_FIRST_ERROR = -4095
_PROT_READ, _PROT_WRITE = 1, 2
_MAP_PRIVATE, _MAP_ANONYMOUS = 2, 0x20


class CallError(TraceError):
    """A system call that another process was made to make has failed."""


@final
class RemoteCalls:
    """Borrows a tracee to make system calls with, and a page of memory to work in.

    A context manager; when it is left, registers, memory and blocked signals are as before. Signals that come meanwhile stay
    pending, but for KILL and STOP, which nothing holds up.
    """

    def __init__(self, tracee: Tracee, architecture: Architecture) -> None:
        """
        Args:
            tracee: one that stands still because it was interrupted.
            architecture: this machine's.
        """
        self._tracee = tracee
        self._architecture = architecture
        #: The address of the page.
        self.page = 0

    def __enter__(self) -> RemoteCalls:
        """Borrow it.

        Raises:
            TraceError: it can't be used.
        """
        tid = self._tracee.tid
        with ended_if_missing(), contextlib.ExitStack() as stack:
            self._check_mask()
            self._saved = _Registers(tid, self._architecture)
            try:
                self._memory = os.open(f"/proc/{tid}/mem", os.O_RDWR | os.O_CLOEXEC)
                stack.callback(os.close, self._memory)
                self._instruction = self._find_instruction()
            except PermissionError as error:
                raise TraceError(f"its memory can't be read: {error.strerror}") from error
            self._section = _CriticalSection(tid, self._memory)
            self._blocked = linux.read_blocked_signals(tid)
            linux.write_blocked_signals(tid, _ALL_SIGNALS)
            stack.callback(self._put_back)
            self.page = self.call("mmap", 0, PAGE, _PROT_READ | _PROT_WRITE, _MAP_PRIVATE | _MAP_ANONYMOUS, -1, 0)
            stack.callback(self.call, "munmap", self.page, PAGE)
            self._cleanup = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Put everything back.

        Raises:
            EndedError: it has ended.
        """
        self._cleanup.__exit__(kind, error, trace)

    def call(self, name: str, *arguments: int) -> int:
        """Have it make the system call `name`, one of its architecture's, and return the result.

        Raises:
            CallError: the call has failed.
            EndedError: the process has ended.
        """
        architecture = self._architecture
        with ended_if_missing():
            self._saved.write_general(architecture.prepare_call(self._saved.general, self._instruction, name, arguments))
        self._tracee.go_to_system_call()
        self._tracee.go_to_system_call()
        with ended_if_missing():
            result = architecture.read_result(self._saved.read_general())
        if _FIRST_ERROR <= result < 0:
            # Not PermissionError and its like: those are said of what ginit itself does.
            raise CallError(f"its system call {name} failed: {os.strerror(-result)}")
        return result

    def read(self, offset: int, size: int) -> bytes:
        """What is in the page.

        Raises:
            EndedError: the process has ended.
        """
        data = os.pread(self._memory, size, self.page + offset)
        if len(data) < size:
            raise EndedError
        return data

    def write(self, offset: int, data: bytes) -> None:
        """Put something into the page.

        Raises:
            EndedError: the process has ended.
        """
        if os.pwrite(self._memory, data, self.page + offset) < len(data):
            raise EndedError

    def _check_mask(self) -> None:
        # Before, the kernel told the signals that are blocked for the length of that call, and forgot the others.
        if linux.kernel_release() < (5, 2) and self._tracee.interrupted_call in self._architecture.masking_calls:
            raise TraceError("it waits for signals, and this kernel can't tell which ones it blocks; Linux 5.2 can")

    def _find_instruction(self) -> int:
        """The address of an instruction that enters the kernel; its program has one, and the kernel gives it some."""
        wanted, alignment = self._architecture.instruction, self._architecture.alignment
        left = _SEARCHED
        for start, end in procfs.read_executable_ranges(self._tracee.tid):
            while start < end and left > 0:
                try:
                    block = os.pread(self._memory, min(_SEARCH_BLOCK, end - start), start)
                except OSError:
                    break  # mapped from a file that isn't as long
                place = block.find(wanted)
                while place >= 0 and place % alignment:
                    place = block.find(wanted, place + 1)
                if place >= 0:
                    return start + place
                start += _SEARCH_BLOCK
                left -= _SEARCH_BLOCK
        raise TraceError("its program has no instruction for system calls")

    def _put_back(self) -> None:
        # From the return of a system call to where the kernel looks at the registers for one that is to be restarted.
        self._tracee.leave_system_call()
        with ended_if_missing(), contextlib.ExitStack() as stack:
            # Each of them, whatever becomes of the others.
            stack.callback(linux.write_blocked_signals, self._tracee.tid, self._blocked)
            if self._architecture.restarts_itself:
                stack.callback(self._enter_system_call)
            stack.callback(self._saved.restore, self._tracee.interrupted_call)
            stack.callback(self._section.restore)

    def _enter_system_call(self) -> None:
        """Go on to the beginning of a system call that it makes next.

        The kernel has it made anew, and has forgotten that it was interrupted. A signal that is handled before it would be
        handled without ending it.
        """
        instruction = self._architecture.instruction
        counter = self._architecture.unpack(self._saved.read_general())[self._architecture.program_counter]
        if os.pread(self._memory, len(instruction), counter) == instruction:
            self._tracee.go_to_system_call()


class _Registers:
    """All of a tracee's registers that a system call changes."""

    def __init__(self, tid: int, architecture: Architecture) -> None:
        self._tid = tid
        self._architecture = architecture
        self.general = self.read_general()
        self._further: dict[int, bytes] = {}
        for kind in architecture.further_sets:
            with contextlib.suppress(OSError):  # this machine hasn't got it
                registers = linux.read_registers(tid, kind, _SET_SIZE)
                *_, flags, _ = _SET_HEADER.unpack_from(registers)
                if flags & _SET_IN_USE:
                    self._further[kind] = registers

    def read_general(self) -> bytes:
        registers = linux.read_registers(self._tid, NT_PRSTATUS, self._architecture.size)
        if len(registers) != self._architecture.size:
            raise TraceError("it is a 32-bit program")
        return registers

    def write_general(self, registers: bytes) -> None:
        linux.write_registers(self._tid, NT_PRSTATUS, registers)

    def restore(self, interrupted_call: int | None) -> None:
        architecture = self._architecture
        general = self.general
        if interrupted_call is not None:
            general = architecture.pack(architecture.restart(architecture.unpack(general), interrupted_call))
        for kind, registers in self._further.items():
            linux.write_registers(self._tid, kind, registers)
        self.write_general(general)


class _CriticalSection:
    """The restartable sequence that a tracee is in, if it is (rseq(2)).

    The kernel forgets it when it finds the thread elsewhere, as it will in a system call of ours. Once it is noted again, the
    kernel has the thread begin that section anew, as whenever it didn't run in one go.
    """

    def __init__(self, tid: int, memory: int) -> None:
        self._memory = memory
        self._address = linux.find_critical_section(tid)
        self._noted = b""
        if self._address is not None:
            with contextlib.suppress(OSError):  # that memory isn't there any more
                self._noted = os.pread(memory, 8, self._address)

    def restore(self) -> None:
        if self._address is not None and any(self._noted):
            os.pwrite(self._memory, self._noted, self._address)
