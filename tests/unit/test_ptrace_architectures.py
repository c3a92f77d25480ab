"""The tables of the architectures, against what the kernel's own headers and a disassembler say."""

from __future__ import annotations

import re
from pathlib import Path

import capstone
import pytest
from machine import cannot, install

from ginit.processes.ptrace.architectures import AARCH64, ARCHITECTURES, X86_64

#: Debian's packages of the kernel's headers, and where they put them.
PACKAGES = {"x86_64": ("libc6-dev", "linux-libc-dev"), "aarch64": ("linux-libc-dev-arm64-cross",)}
HEADERS = {"x86_64": Path("/usr/include/x86_64-linux-gnu"), "aarch64": Path("/usr/aarch64-linux-gnu/include")}
NUMBERS = {"x86_64": "asm/unistd_64.h", "aarch64": "asm-generic/unistd.h"}
REGISTERS = {"x86_64": ("sys/user.h", "user_regs_struct"), "aarch64": ("asm/ptrace.h", "user_pt_regs")}
#: The registers that a system call takes its number and arguments from (syscall(2)).
CONVENTIONS = {
    "x86_64": ("orig_rax rax rip", "rdi rsi rdx r10 r8 r9"),
    "aarch64": ("pstate x8 pc", "x0 x1 x2 x3 x4 x5"),
}
DISASSEMBLERS = {
    "x86_64": (capstone.CS_ARCH_X86, capstone.CS_MODE_64, "syscall"),
    "aarch64": (capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM, "svc #0"),
}
EACH = pytest.mark.parametrize("architecture", [X86_64, AARCH64], ids=lambda architecture: architecture.machine)


def header(architecture, name):
    path = HEADERS[architecture.machine] / name
    if not path.exists():
        cannot(f"the kernel's headers of {architecture.machine} aren't installed", install(*PACKAGES[architecture.machine]))
    return path.read_text()


def register_names(architecture):
    """The names of the general registers in the order in which the kernel has them."""
    name, struct = REGISTERS[architecture.machine]
    body = re.search(rf"struct {struct}\s*{{(.*?)}}", header(architecture, name), re.DOTALL)[1]
    names = []
    for field in re.findall(r"(\w+(?:\[\d+\])?);", body):
        array = re.fullmatch(r"regs\[(\d+)\]", field)
        names += [f"x{number}" for number in range(int(array[1]))] if array else [field]
    return names


@EACH
def test_the_numbers_are_those_of_the_kernel(architecture):
    text = header(architecture, NUMBERS[architecture.machine])
    numbers = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", text))
    assert {name: int(numbers[name]) for name in architecture.syscalls} == architecture.syscalls


@EACH
def test_the_calls_that_block_signals_are_those_of_the_kernel(architecture):
    text = header(architecture, NUMBERS[architecture.machine])
    numbers = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", text))
    names = ("rt_sigsuspend", "ppoll", "pselect6", "epoll_pwait")
    assert [int(numbers[name]) for name in names] == list(architecture.masking_calls)


@EACH
def test_the_registers_are_in_the_kernel_s_order(architecture):
    names = register_names(architecture)
    others, arguments = (text.split() for text in CONVENTIONS[architecture.machine])
    assert len(names) == architecture.register_count
    assert [names[place] for place in architecture.arguments] == arguments
    assert [names[architecture.number], names[architecture.program_counter]] == others[1:]
    assert [names[place] for place in architecture.others] == others[:1]
    assert names[architecture.result] in ("rax", "x0")


@EACH
def test_the_instruction_enters_the_kernel(architecture):
    kind, mode, expected = DISASSEMBLERS[architecture.machine]
    (found,) = capstone.Cs(kind, mode).disasm(architecture.instruction, 0)
    assert f"{found.mnemonic} {found.op_str}".strip() == expected
    assert found.size == len(architecture.instruction)


@EACH
def test_a_call_changes_the_registers_that_it_takes_and_no_others(architecture):
    before = list(range(1000, 1000 + architecture.register_count))
    after = architecture.unpack(architecture.prepare_call(architecture.pack(before), 0x7F00, "mmap", (1, 2, 3, 4, -1, 6)))
    assert after[architecture.program_counter] == 0x7F00
    assert after[architecture.number] == architecture.syscalls["mmap"]
    assert [after[place] for place in architecture.arguments] == [1, 2, 3, 4, 2**64 - 1, 6]
    touched = {architecture.program_counter, architecture.number, *architecture.arguments, *architecture.others}
    assert all(after[place] == before[place] for place in range(architecture.register_count) if place not in touched)


@EACH
@pytest.mark.parametrize(("raw", "result"), [(0, 0), (5, 5), (2**64 - 9, -9), (2**47 - 4096, 2**47 - 4096)])
def test_a_result_is_a_signed_number(architecture, raw, result):
    registers = [0] * architecture.register_count
    registers[architecture.result] = raw
    assert architecture.read_result(architecture.pack(registers)) == result


def test_x86_64_leaves_restarts_to_the_kernel_and_says_that_none_is_due_before():
    assert X86_64.restart([1, 2, 3], 35) == [1, 2, 3]
    assert [value(5) for value in X86_64.others.values()] == [2**64 - 1]  # orig_rax


def test_aarch64_does_not_come_from_a_branch():
    (pstate,) = AARCH64.others.values()
    assert pstate(0x60000C00) == 0x60000000


NANOSLEEP, CLOCK_NANOSLEEP, FUTEX, READ, RESTART = 101, 115, 98, 63, 128
ABSOLUTE, PRIVATE, WAIT_BITSET = 1, 128, 9


@pytest.mark.parametrize(
    ("number", "operation", "timeout", "restarted"),
    [
        (NANOSLEEP, 0x7F00, 0, True),
        (CLOCK_NANOSLEEP, 0, 0x7F00, True),
        (CLOCK_NANOSLEEP, ABSOLUTE, 0x7F00, False),
        (FUTEX, PRIVATE, 0x7F00, True),
        (FUTEX, PRIVATE, 0, False),
        (FUTEX, PRIVATE | WAIT_BITSET, 0x7F00, False),
        (READ, 0, 0, False),
    ],
)
def test_aarch64_waits_for_the_rest_of_a_span_of_time_only(number, operation, timeout, restarted):
    registers = [0] * AARCH64.register_count
    registers[8], registers[1], registers[3] = number, operation, timeout
    expected = list(registers)
    if restarted:
        expected[8] = RESTART
    assert list(AARCH64.restart(registers, number)) == expected
    # One that is about to be made, but wasn't when the thread was interrupted, hasn't waited yet.
    assert list(AARCH64.restart(registers, READ + 1)) == registers


def test_a_machine_is_found_by_its_name():
    assert ARCHITECTURES["x86_64"] is X86_64
    assert ARCHITECTURES["aarch64"] is AARCH64
    assert X86_64.size == 216
    assert AARCH64.size == 272
