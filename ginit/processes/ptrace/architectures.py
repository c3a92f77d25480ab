"""How a system call is made on each architecture: registers, numbers, and the instruction. A small table each.

Both are little-endian machines of 64 bits, and their general registers are an array of 64-bit words in the note NT_PRSTATUS.
"""

from __future__ import annotations

import struct
from typing import Callable, Collection, Mapping, NamedTuple, Sequence

#: Note types of register sets (linux/elf.h).
NT_PRSTATUS = 1
_NT_ARM_SVE = 0x405
_NT_ARM_SSVE = 0x40B

_WORD = (1 << 64) - 1


class Architecture(NamedTuple):
    """One kind of machine."""

    #: What uname(2) calls it.
    machine: str
    #: The machine code of the instruction that enters the kernel, and the multiple of what it stands at.
    instruction: bytes
    alignment: int
    #: How many general registers there are; a program of another word size has fewer.
    register_count: int
    #: The places of registers among them.
    program_counter: int
    arguments: Sequence[int]
    number: int
    result: int
    #: What else has to have a certain value for a call, and which: given the old value.
    others: Mapping[int, Callable[[int], int]]
    #: The numbers of system calls.
    syscalls: Mapping[str, int]
    #: Those of them by which a thread waits with other signals blocked than before: rt_sigsuspend, ppoll, pselect6, epoll_pwait.
    masking_calls: Collection[int]
    #: Register sets besides that a system call may change (`svc` drops what SVE adds to the registers, and leaves SME's mode).
    further_sets: Sequence[int]
    #: Whether a system call that was interrupted is made anew by going on, and no more known to the kernel as interrupted.
    restarts_itself: bool
    #: Given the registers, and the number of the system call that was interrupted: the registers to go on with.
    restart: Callable[[Sequence[int], int], Sequence[int]]

    @property
    def size(self) -> int:
        """Bytes of the general registers."""
        return 8 * self.register_count

    def unpack(self, registers: bytes) -> list[int]:
        """The general registers, each as a number without sign."""
        return list(struct.unpack(f"<{self.register_count}Q", registers))

    def pack(self, registers: Sequence[int]) -> bytes:
        """What `unpack` unpacks."""
        return struct.pack(f"<{self.register_count}Q", *registers)

    def prepare_call(self, registers: bytes, instruction: int, name: str, arguments: Sequence[int]) -> bytes:
        """The general registers for a system call.

        Args:
            registers: as they are.
            instruction: the address of an `instruction`.
            name: one of `syscalls`.
            arguments: up to six; negative ones as their two's complement.
        """
        words = self.unpack(registers)
        for place, value in self.others.items():
            words[place] = value(words[place])
        for place, argument in zip(self.arguments, arguments):
            words[place] = argument & _WORD
        words[self.number] = self.syscalls[name]
        words[self.program_counter] = instruction
        return self.pack(words)

    def read_result(self, registers: bytes) -> int:
        """What a system call has returned: an error as its negated number."""
        result = self.unpack(registers)[self.result]
        return result - (1 << 64) if result >> 63 else result


def _restart_by_kernel(registers: Sequence[int], interrupted: int) -> Sequence[int]:  # noqa: ARG001
    """Nothing is to be done: the kernel restarts the call by what it finds in the registers when the tracee goes on."""
    return registers


# struct user_regs_struct, asm/user_64.h: r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp
# ss fs_base gs_base ds es fs gs. The numbers are those of asm/unistd_64.h.
X86_64 = Architecture(
    machine="x86_64",
    instruction=b"\x0f\x05",  # syscall
    alignment=1,
    register_count=27,
    program_counter=16,
    arguments=(14, 13, 12, 7, 9, 8),
    number=10,
    result=10,
    others={15: lambda _: _WORD},  # orig_rax: it isn't within a system call that might have to be restarted
    syscalls={"mmap": 9, "munmap": 11, "socket": 41, "connect": 42, "recvmsg": 47, "fcntl": 72, "dup3": 292, "close": 3},
    masking_calls=(130, 271, 270, 281),
    further_sets=(),
    restarts_itself=False,
    restart=_restart_by_kernel,
)

_SVC_SIZE = 4
_RESTART_SYSCALL, _FUTEX, _NANOSLEEP, _CLOCK_NANOSLEEP = 128, 98, 101, 115
_TIMER_ABSTIME = 1
_FUTEX_COMMAND, _FUTEX_WAIT = 0x7F, 0


def _restart_aarch64(registers: Sequence[int], interrupted: int) -> Sequence[int]:
    """Have a call that waits for a span of time wait for the rest of it, and not for all of it again.

    This kernel puts the registers back for a restart before the tracer sees them (`do_signal`, arch/arm64/kernel/signal.c). It
    would replace the number by that of restart_syscall(2) afterwards, if no other call had come between.
    """
    number, operation, timeout = registers[8], registers[1], registers[3]
    spans = (
        number == _NANOSLEEP
        or (number == _CLOCK_NANOSLEEP and not operation & _TIMER_ABSTIME)
        or (number == _FUTEX and operation & _FUTEX_COMMAND == _FUTEX_WAIT and timeout != 0)
    )
    if number != interrupted or not spans:
        return registers
    return [_RESTART_SYSCALL if place == 8 else value for place, value in enumerate(registers)]


# struct user_pt_regs, asm/ptrace.h: x0 to x30, sp, pc, pstate. The numbers are those of asm-generic/unistd.h.
AARCH64 = Architecture(
    machine="aarch64",
    instruction=b"\x01\x00\x00\xd4",  # svc #0
    alignment=_SVC_SIZE,
    register_count=34,
    program_counter=32,
    arguments=(0, 1, 2, 3, 4, 5),
    number=8,
    result=0,
    others={33: lambda pstate: pstate & ~0xC00},  # PSTATE.BTYPE: it doesn't come from a branch
    syscalls={"mmap": 222, "munmap": 215, "socket": 198, "connect": 203, "recvmsg": 212, "fcntl": 25, "dup3": 24, "close": 57},
    masking_calls=(133, 73, 72, 22),
    further_sets=(_NT_ARM_SVE, _NT_ARM_SSVE),
    restarts_itself=True,
    restart=_restart_aarch64,
)

ARCHITECTURES: Mapping[str, Architecture] = {architecture.machine: architecture for architecture in (X86_64, AARCH64)}
