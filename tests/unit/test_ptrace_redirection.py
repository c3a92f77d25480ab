"""Redirecting the output of real processes while they run, and what keeps them from it; nothing else in them changes."""

from __future__ import annotations

import contextlib
import os
import platform
import random
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Collection, Iterator

import gevent
import psutil
import pytest
from gevent.os import make_nonblocking, nb_read
from machine import cannot, require
from support import wait_for, write_executable

from ginit.processes import procfs
from ginit.processes.ptrace import linux, processes, redirection
from ginit.processes.ptrace.architectures import ARCHITECTURES
from ginit.processes.ptrace.errors import EndedError, TraceError
from ginit.processes.ptrace.redirection import redirect
from ginit.processes.ptrace.tracee import Tracee

if platform.machine() not in ("x86_64", "aarch64"):
    pytest.skip(f"ginit doesn't redirect on {platform.machine()}", allow_module_level=True)

#: Of futex, nanosleep, read, getppid and exit, which ends a thread.
NUMBERS = {"x86_64": (202, 35, 0, 110, 60), "aarch64": (98, 101, 63, 173, 93)}[platform.machine()]
#: What the programs share: raw system calls, as Python's own functions hide what is interrupted, and a verdict a round.
PRELUDE = f"""
import ctypes, errno, itertools, os, time
libc = ctypes.CDLL(None, use_errno=True)
FUTEX, NANOSLEEP, READ, GETPPID, EXIT = {NUMBERS}
def call(number, *arguments):
    result = libc.syscall(ctypes.c_long(number), *arguments)
    return result if result >= 0 else -ctypes.get_errno()
class Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))
def verdict(right, *facts):
    os.write(1, b"right\\n" if right else b"wrong: %r\\n" % (facts,))
open("/proc/self/comm", "w").write("ready")
"""

LOOPS = {
    "system calls": """
        parent = os.getppid()
        while True:
            results = {call(GETPPID) for _ in range(2000)}
            verdict(results == {parent}, results)
    """,
    "computing": """
        import hashlib, math
        expected = None
        while True:
            digest, total = b"", 0.0
            for number in range(3000):
                digest = hashlib.sha256(digest).digest()
                total += math.sqrt(number) / 3
            expected = expected or (digest, total)
            verdict((digest, total) == expected, digest, total)
    """,
    "nanosleep": """
        while True:
            begin = time.monotonic()
            result = call(NANOSLEEP, ctypes.byref(Timespec(0, 5_000_000)), None)
            verdict(result == 0 and time.monotonic() - begin >= 0.005, result)
    """,
    "read on a pipe": """
        reader, writer = os.pipe()
        if os.fork() == 0:
            for number in itertools.count():
                time.sleep(0.003)
                os.write(writer, b"%8d" % (number % 10**8))
        buffer = ctypes.create_string_buffer(8)
        for number in itertools.count():
            result = call(READ, reader, buffer, ctypes.c_size_t(8))
            verdict((result, buffer.raw) == (8, b"%8d" % (number % 10**8)), result, buffer.raw)
    """,
    "futex wait": """
        word = ctypes.c_int(7)
        while True:
            begin = time.monotonic()
            result = call(FUTEX, ctypes.byref(word), 0, 7, ctypes.byref(Timespec(0, 5_000_000)), None, 0)
            verdict(result == -errno.ETIMEDOUT and time.monotonic() - begin >= 0.005, result)
    """,
    "main thread has ended": """
        import threading
        def go_on():
            while True:
                time.sleep(0.001)
                verdict(True)
        threading.Thread(target=go_on, daemon=True).start()
        call(EXIT, 0)
    """,
    "many threads": """
        import threading
        def count(counts, place):
            while True:
                counts[place] += 1
                if counts[place] % 1000 == 0:
                    time.sleep(0.001)
        counts = [0] * 20
        for place in range(20):
            threading.Thread(target=count, args=(counts, place), daemon=True).start()
        before = list(counts)
        while True:
            time.sleep(0.05)
            verdict(all(now >= then for now, then in zip(counts, before)), counts)
            before = list(counts)
    """,
}


def in_thread(function, *arguments, reaping=False):
    """Call a function in a thread of its own, which has ended when it returns; meanwhile, reap what ends, as ginit does."""
    outcome = []

    def run():
        try:
            outcome.append((function(*arguments), None))
        except Exception as error:  # noqa: BLE001  (to be raised again)
            outcome.append((None, error))

    thread = threading.Thread(target=run)
    thread.start()
    while thread.is_alive():
        if reaping:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(-1, os.WNOHANG)
        thread.join(0.001)
    ((result, error),) = outcome
    if error is not None:
        raise error
    return result


class Program:
    """A running program, whose output can be redirected to here."""

    def __init__(self, source: str, **popen) -> None:
        popen.setdefault("stdout", subprocess.DEVNULL)
        popen.setdefault("stderr", subprocess.DEVNULL)
        command = [sys.executable, "-c", PRELUDE + textwrap.dedent(source)] if isinstance(source, str) else source
        popen.setdefault("stdin", subprocess.DEVNULL)
        self.process = subprocess.Popen(command, **popen)
        self.pid = self.process.pid
        self.remarks = []
        self._read_ends = []

    def redirect(self, *, reaping: bool = False, own: Collection[int] = (), started: float = 0.1) -> int:
        """Redirect it, and return the read end of its stdout."""
        (out, out_there), (err, err_there) = os.pipe(), os.pipe()
        self._read_ends += [out, err]
        try:
            self.remarks += in_thread(redirect, self.pid, {1: out_there, 2: err_there}, own, started, reaping=reaping).remarks
        finally:
            os.close(out_there)
            os.close(err_there)
        make_nonblocking(out)
        return out

    def close_read_ends(self, *, but: int | None = None) -> None:
        for fd in self._read_ends:
            if fd != but:
                os.close(fd)
        self._read_ends = [] if but is None else [but]

    def descriptors(self) -> dict[int, str]:
        tid = procfs.living_thread(self.pid)
        return {int(fd): os.readlink(f"/proc/{tid}/fd/{fd}") for fd in os.listdir(f"/proc/{tid}/fd")}

    def end_main_thread(self) -> None:
        """Have the main thread end, of a program that does so when it may read."""
        self.process.stdin.close()
        wait_for(lambda: procfs.read_stat(self.pid).gone, "the end of its main thread")

    def wait_until_it_runs(self) -> None:
        """Wait until it is itself, and not the interpreter that starts."""
        wait_for(lambda: Path(f"/proc/{self.pid}/comm").read_text() == "ready\n")

    def close(self) -> None:
        if self.process.poll() is None:
            for process in [*psutil.Process(self.pid).children(recursive=True), self.process]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            self.process.wait()
        self.close_read_ends()


@pytest.fixture
def program():
    started = []

    def start(source, **popen):
        started.append(Program(source, **popen))
        return started[-1]

    yield start
    for each in started:
        each.close()


def prepared(program, source, **popen):
    """A program that has done what `source` says, and does nothing more until it's ended."""
    running = program(f"{source}\nos.write(2, b'ready')\ntime.sleep(1000)", stderr=subprocess.PIPE, **popen)
    assert running.process.stderr.read(5) == b"ready"
    return running


def read_lines(fd, count):
    data = b""
    while data.count(b"\n") < count:
        block = nb_read(fd, 65536)
        assert block, data
        data += block
    return data.split(b"\n")[:count]


def read_old_or_new(old, new):
    """What is in a pipe that nobody writes to any more, or where that's nothing, what comes from another one."""
    os.set_blocking(old, True)
    data = os.read(old, 65536)
    if not data:
        wait_for(lambda: select.select([new], [], [], 0)[0])
        data = os.read(new, 65536)
    return data


# Nothing else changes.


@pytest.mark.parametrize("name", LOOPS)
def test_a_program_goes_on_rightly_in_the_middle_of_what_it_does(program, name):
    running = program(LOOPS[name])
    running.wait_until_it_runs()
    for _ in range(50):
        out = running.redirect()
        assert set(read_lines(out, 2)) == {b"right"}
        gevent.sleep(random.random() / 300)  # to meet it somewhere else
    assert running.remarks == []


def test_five_hundred_redirections_leave_no_descriptor_behind_in_either_process(program):
    running = program(LOOPS["system calls"])
    running.wait_until_it_runs()
    before, here = set(running.descriptors()), len(os.listdir("/proc/self/fd"))
    for _ in range(500):
        last = running.redirect()
        running.close_read_ends(but=last)
    assert set(running.descriptors()) == before
    assert read_lines(last, 1) == [b"right"]
    running.close_read_ends()
    assert len(os.listdir("/proc/self/fd")) == here


@pytest.mark.parametrize("who", ["the process", "its child"])
def test_a_program_that_starts_keeps_its_stdout_until_it_sleeps(program, monkeypatch, tmp_path, who):
    # However slow this machine is.
    monkeypatch.setattr(processes, "_START_TIMEOUT", 1000.0)
    found = tmp_path / "found"
    running = program(
        f"""
        if {who == "its child"} and os.fork():
            time.sleep(1000)
        before = os.readlink("/proc/self/fd/1")
        open({str(tmp_path / "starting")!r}, "w").close()
        end = time.process_time() + 0.05
        while time.process_time() < end:
            pass
        unchanged = os.readlink("/proc/self/fd/1") == before
        open({str(tmp_path / "looked")!r}, "w").write(str(unchanged))
        os.rename({str(tmp_path / "looked")!r}, {str(found)!r})
        time.sleep(1000)
        """
    )
    wait_for((tmp_path / "starting").exists)
    running.redirect(started=1000.0)
    wait_for(found.exists)
    assert found.read_text() == "True"
    assert all(os.readlink(f"/proc/{pid}/fd/1").startswith("pipe:") for pid in (running.pid, *procfs.read_children(running.pid)))


def test_a_program_that_never_sleeps_is_redirected_all_the_same(program, monkeypatch):
    for started, timeout in (1000.0, 0.0), (0.0, 1000.0):
        monkeypatch.setattr(processes, "_START_TIMEOUT", timeout)
        running = program(LOOPS["system calls"])
        running.wait_until_it_runs()
        assert read_lines(running.redirect(started=started), 1) == [b"right"]


def test_its_memory_is_as_before(program):
    running = program("time.sleep(1000)")
    running.wait_until_it_runs()
    maps = Path(f"/proc/{running.pid}/maps")
    wait_for(lambda: psutil.Process(running.pid).status() == psutil.STATUS_SLEEPING)
    before = maps.read_bytes()
    running.redirect()
    assert maps.read_bytes() == before


def test_no_signal_is_lost_or_delivered_twice(program, tmp_path):
    # Real-time signals queue (signal(7)); the program counts them.
    go = tmp_path / "go"
    running = program(
        f"""
        import signal
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        signal.signal(signal.SIGRTMIN, lambda *_: None)
        signal.set_wakeup_fd(writer)  # which gets a byte a signal, where Python's own handlers are called once for several
        open("/proc/self/comm", "w").write("counting")
        count = 0
        while not os.path.exists({str(go)!r}):
            call(GETPPID)
            try:
                count += len(os.read(reader, 4096))
            except BlockingIOError:
                pass
        os.write(1, b"%d\\n" % count)
        time.sleep(1000)
        """
    )
    wait_for(lambda: Path(f"/proc/{running.pid}/comm").read_text() == "counting\n")
    sender = subprocess.Popen(
        [sys.executable, "-c", f"import os, time\nfor i in range(3000): os.kill({running.pid}, 34); i % 10 or time.sleep(0.001)"]
    )
    while sender.poll() is None:
        running.close_read_ends(but=running.redirect())
    out = running.redirect()
    wait_for(lambda: "ShdPnd:\t0000000000000000" in Path(f"/proc/{running.pid}/status").read_text())
    go.touch()
    assert read_lines(out, 1) == [b"3000"]
    status = Path(f"/proc/{running.pid}/status").read_text()
    assert "SigBlk:\t0000000000000000" in status


def test_a_process_that_is_stopped_and_continued_meanwhile_ends_up_as_it_was_told(program):
    running = program(LOOPS["system calls"])
    running.wait_until_it_runs()
    reasons = set()
    teller = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import os, time\nfor i in range(2000): os.kill({running.pid}, {[19, 18]}[i % 2]); time.sleep(0.0003)",
        ]
    )
    while teller.poll() is None:
        try:
            running.close_read_ends(but=running.redirect())
        except TraceError as error:
            reasons.add(str(error))
    assert reasons <= {"it is stopped by a signal"}
    wait_for(lambda: psutil.Process(running.pid).status() != psutil.STATUS_STOPPED)
    assert read_lines(running.redirect(), 1) == [b"right"]


def test_one_that_ends_half_way_is_no_error(program):
    for _ in range(60):
        running = program(["sleep", "1000"])
        killer = subprocess.Popen(
            [sys.executable, "-S", "-c", f"import os, time; time.sleep({random.random() / 200}); os.kill({running.pid}, 9)"]
        )
        while True:
            try:
                running.close_read_ends(but=running.redirect())
            except TraceError:
                break
        killer.wait()
        assert running.process.wait() == -signal.SIGKILL


def test_one_that_ends_while_everything_is_put_back_is_no_error(program, monkeypatch):
    leave = Tracee.leave_system_call

    def leave_and_end(tracee):
        leave(tracee)
        os.kill(tracee.tid, signal.SIGKILL)
        wait_until_ended(tracee.tid)

    monkeypatch.setattr(Tracee, "leave_system_call", leave_and_end)
    running = program(["sleep", "1000"])
    with pytest.raises(EndedError):
        running.redirect()


def wait_until_ended(pid):
    while not procfs.read_stat(pid).ended:  # not by `wait_for`, as it's another thread that waits
        time.sleep(0.001)


def test_a_thread_that_ends_or_begins_meanwhile_is_no_error(program):
    running = program(
        """
        import threading
        threading.Thread(target=lambda: [verdict(True) or time.sleep(0.01) for _ in range(10**6)], daemon=True).start()
        while True:
            threads = [threading.Thread(target=time.sleep, args=(0.001,)) for _ in range(10)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        """
    )
    running.wait_until_it_runs()
    for _ in range(50):
        assert read_lines(running.redirect(), 1) == [b"right"]


# What can't be redirected.


def test_a_process_that_was_started_on_purpose_is_left_alone(program):
    # The PID was that of a reparented one before.
    running = program(LOOPS["nanosleep"])
    running.wait_until_it_runs()
    before = running.descriptors()
    running.redirect(own=(running.pid,))
    assert (running.descriptors(), running.remarks) == (before, [])


def test_a_process_of_somebody_else_s_is_left_alone(program):
    running = program("import subprocess; subprocess.run(['sleep', '1000'])")
    (child,) = wait_for(psutil.Process(running.pid).children)
    wait_for(lambda: child.name() == "sleep")
    other = Program(["true"])
    other.pid = child.pid
    other.redirect()
    assert {os.path.basename(path) for path in other.descriptors().values()} == {"null"}
    other.pid = other.process.pid
    other.close()


def assert_refused(running, why):
    """It isn't redirected, for that reason, and is as before."""
    before = running.descriptors()
    with pytest.raises(TraceError, match=why):
        running.redirect()
    assert running.descriptors() == before
    assert running.process.poll() is None


def test_a_stopped_process_is_refused_and_stays_stopped(program):
    running = program(LOOPS["system calls"])
    running.wait_until_it_runs()
    running.process.send_signal(signal.SIGSTOP)
    wait_for(lambda: psutil.Process(running.pid).status() == psutil.STATUS_STOPPED)
    assert_refused(running, "it is stopped by a signal")
    wait_for(lambda: psutil.Process(running.pid).status() == psutil.STATUS_STOPPED)
    running.process.send_signal(signal.SIGCONT)
    assert read_lines(running.redirect(), 1) == [b"right"]


@contextlib.contextmanager
def traced_by_strace(tid: int) -> Iterator[int]:
    """Somebody else traces a thread; gives the PID of that."""
    require("strace")
    tracer = subprocess.Popen(["strace", "-o", "/dev/null", "-p", str(tid)], stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: f"TracerPid:\t{tracer.pid}\n" in Path(f"/proc/{tid}/status").read_text())
        yield tracer.pid
    finally:
        tracer.terminate()
        tracer.wait()


def test_a_process_that_somebody_else_traces_is_refused(program):
    running = program(LOOPS["nanosleep"])
    running.wait_until_it_runs()
    with traced_by_strace(running.pid) as tracer:
        assert_refused(running, f"process {tracer} traces it")


#: Another thread goes on, and the main one ends when it is told to.
MAIN_THREAD_ENDS = """
import threading
threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
os.write(2, b"ready")
os.read(0, 1)
call(EXIT, 0)
"""


def test_a_thread_that_somebody_else_traces_is_refused_though_the_main_one_has_ended(program):
    running = program(MAIN_THREAD_ENDS, stdin=subprocess.PIPE)
    running.end_main_thread()
    with traced_by_strace(procfs.living_thread(running.pid)) as tracer:
        assert_refused(running, f"process {tracer} traces it")


def test_a_pipe_to_another_process_stays_though_the_main_threads_of_both_have_ended(program):
    read_end, write_end = os.pipe()
    reader = program(f"os.dup2({read_end}, 5)\n{MAIN_THREAD_ENDS}", stdin=subprocess.PIPE, pass_fds=(read_end,))
    writer = program(MAIN_THREAD_ENDS, stdin=subprocess.PIPE, stdout=write_end)
    os.close(read_end)
    os.close(write_end)
    reader.end_main_thread()
    writer.end_main_thread()
    before = writer.descriptors()[1]
    writer.redirect()
    assert writer.descriptors()[1] == before
    assert f"a pipe to process {reader.pid}" in " ".join(remark.text for remark in writer.remarks)


def test_a_child_is_redirected_though_its_main_thread_has_ended(program, tmp_path):
    with (tmp_path / "file").open("w") as file:
        running = program(f"if os.fork():\n    time.sleep(1000)\n{MAIN_THREAD_ENDS}", stdin=subprocess.PIPE, stdout=file)
    (child,) = wait_for(lambda: procfs.read_children(running.pid))
    running.process.stdin.close()
    wait_for(lambda: procfs.read_stat(child).gone, "the end of the child's main thread")
    running.redirect()
    assert os.readlink(f"/proc/{procfs.living_thread(child)}/fd/1").startswith("pipe:")
    assert running.remarks == []


def test_a_process_that_has_ended_is_refused(program):
    running = program(["true"])
    wait_for(lambda: psutil.Process(running.pid).status() == psutil.STATUS_ZOMBIE)
    with pytest.raises(TraceError, match="it has ended"):
        running.redirect()


#: Allows everything but connect(2), for which the process would be killed (seccomp(2), linux/filter.h).
FILTER = """
import struct
SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_ALLOW = 0x80000000, 0x7FFF0000
connect = {"x86_64": 42, "aarch64": 203}[os.uname().machine]
code = [(0x20, 0, 0, 0), (0x15, 0, 1, connect), (0x06, 0, 0, SECCOMP_RET_KILL_PROCESS), (0x06, 0, 0, SECCOMP_RET_ALLOW)]
filters = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *each) for each in code))
program = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", len(code), ctypes.addressof(filters)))
assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
assert libc.prctl(22, 2, ctypes.c_void_p(ctypes.addressof(program)), 0, 0) == 0  # PR_SET_SECCOMP
open("/proc/self/comm", "w").write("filtered")  # which the kernel doesn't tell from a container's filter
"""


def test_a_process_whose_system_calls_are_filtered_is_refused(program):
    running = program(FILTER + textwrap.dedent(LOOPS["nanosleep"]))
    wait_for(lambda: Path(f"/proc/{running.pid}/comm").read_text() == "filtered\n")
    assert_refused(running, "it has limited its own system calls by seccomp")


def test_a_process_that_waits_and_cannot_be_interrupted_is_refused_and_let_go_when_it_has_waited(program, tmp_path):
    # posix_spawn(3) is vfork(2), which waits for the child's exec; and the child waits for somebody to write to a FIFO.
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    running = program(
        f"""
        os.posix_spawn("/bin/true", ["true"], {{}}, file_actions=[(os.POSIX_SPAWN_OPEN, 9, {str(fifo)!r}, os.O_RDONLY, 0)])
        while True:
            verdict(True)
            time.sleep(0.01)
        """
    )
    wait_for(lambda: psutil.Process(running.pid).children() and psutil.Process(running.pid).status() == psutil.STATUS_DISK_SLEEP)
    before = running.descriptors()
    with pytest.raises(TraceError, match="can't be interrupted"):
        running.redirect()
    assert running.descriptors() == before
    fifo.write_bytes(b"")
    assert read_lines(running.redirect(), 1) == [b"right"]


def test_a_32_bit_program_is_refused(program, tmp_path):
    if platform.machine() != "x86_64":
        pytest.skip("of x86_64")
    path = write_executable(tmp_path / "program", "")
    path.write_bytes(make_32_bit_program())
    try:
        running = program([str(path)])
    except OSError as error:
        cannot(f"this kernel runs no 32-bit programs: {error}")
    assert_refused(running, "it is a 32-bit program")


def make_32_bit_program():
    """An executable for i386 (elf(5)) that calls pause(2) for ever."""
    import struct

    code = b"\xb8\x1d\x00\x00\x00\xcd\x80\xeb\xf7"  # mov eax, 29; int 0x80; jmp back
    base, header = 0x8048000, 52 + 32
    ident = b"\x7fELF\x01\x01\x01" + bytes(9)
    elf = ident + struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, base + header, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    segment = struct.pack("<IIIIIIII", 1, 0, base, base, header + len(code), header + len(code), 5, 4096)
    return elf + segment + code


def test_an_unknown_architecture_is_named(program, monkeypatch):
    running = program(LOOPS["nanosleep"])
    running.wait_until_it_runs()
    monkeypatch.setattr(redirection, "ARCHITECTURES", {})
    assert_refused(running, f"ginit doesn't know how on {platform.machine()}")


def test_before_linux_5_2_a_process_that_waits_with_other_signals_blocked_is_refused(program, monkeypatch):
    running = program("libc.ppoll(None, 0, None, ctypes.byref(ctypes.c_ulong(0)))")
    wait_for(lambda: procfs.read_system_call(running.pid) in ARCHITECTURES[platform.machine()].masking_calls)
    monkeypatch.setattr(linux, "kernel_release", lambda: (4, 19))
    assert_refused(running, "Linux 5.2")
    monkeypatch.undo()
    running.redirect()


@pytest.mark.parametrize(
    ("limit", "why"),
    [
        ("RLIMIT_NOFILE, (3, 3)", "its system call socket failed: Too many open files"),
        ("RLIMIT_NOFILE, (4, 4)", "it may not open more files"),
        ("RLIMIT_NOFILE, (5, 5)", "it may not open more files"),
        ("RLIMIT_AS, (4096, 4096)", "its system call mmap failed: Cannot allocate memory"),
    ],
)
def test_a_process_that_has_reached_a_limit_is_refused(program, limit, why):
    running = prepared(program, f"import resource; resource.setrlimit(resource.{limit})")
    assert_refused(running, why)


def test_a_copy_with_a_number_that_it_may_not_have_any_more_stays_as_it_was(program, tmp_path):
    with (tmp_path / "file").open("w") as file:
        source = "import resource; os.dup2(1, 100); resource.setrlimit(resource.RLIMIT_NOFILE, (50, 50))"
        running = prepared(program, source, stdout=file)
    running.redirect()
    assert running.descriptors()[100] == str(tmp_path / "file")
    assert running.descriptors()[1].startswith("pipe:")
    assert [remark.text.split(":")[0] for remark in running.remarks] == ["its descriptor 100 stays where it was"]


def test_a_file_with_a_lock_is_no_output(program, tmp_path):
    with (tmp_path / "lock").open("w") as file:
        running = prepared(program, "import fcntl; fcntl.lockf(1, fcntl.LOCK_EX)", stdout=file)
    running.redirect()
    assert running.descriptors()[1] == str(tmp_path / "lock")
    assert [remark.text for remark in running.remarks] == ["its stdout stays where it was: it is a file with a lock"]


#: Waits in each of these calls for a signal, one after the other, and says what they return when one was handled.
WAITS = {
    "sigsuspend": "libc.sigsuspend(none)",
    "ppoll": "libc.ppoll(None, 0, None, none)",
    "pause": "libc.pause()",
    "read": "libc.read(reader, buffer, 1)",
    "nanosleep": "libc.nanosleep(ctypes.byref(Timespec(1000, 0)), None)",
    "epoll_wait": "libc.epoll_wait(epoll.fileno(), buffer, 1, -1)",
}


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_a_call_that_a_signal_ends_is_ended_by_a_signal_that_comes_meanwhile(program, wait):
    running = program(
        f"""
        import select, signal
        handled = 0
        def handle(*_):
            global handled
            handled += 1
        signal.signal(signal.SIGUSR1, handle)
        signal.siginterrupt(signal.SIGUSR1, True)
        none = ctypes.byref((ctypes.c_ulong * 16)())
        reader, writer = os.pipe()
        buffer = ctypes.create_string_buffer(100)
        epoll = select.epoll()
        while True:
            result = {wait}
            verdict(result == -1 and ctypes.get_errno() == errno.EINTR, result, ctypes.get_errno())
        """
    )
    running.wait_until_it_runs()
    before = running.redirect()
    for _ in range(30):
        wait_for(lambda: psutil.Process(running.pid).status() == psutil.STATUS_SLEEPING)
        sender = threading.Timer(random.random() / 500, os.kill, (running.pid, signal.SIGUSR1))
        sender.start()
        after = running.redirect()
        sender.join()
        # It may have come, and been told of, before the redirection. Linux has epoll_wait return for any stop, so once more.
        told = read_old_or_new(before, after)
        assert set(told.split()) == {b"right"}
        running.close_read_ends(but=after)
        before = after


def test_a_thread_that_executes_another_program_meanwhile_is_no_error(program):
    for _ in range(20):
        running = program(
            """
            import threading
            for _ in range(20):
                threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
            def execute():
                time.sleep(0.002)
                os.execv("/bin/sleep", ["sleep", "1000"])
            os.write(2, b"ready")
            threading.Thread(target=execute).start()
            time.sleep(1000)
            """,
            stderr=subprocess.PIPE,
        )
        assert running.process.stderr.read(5) == b"ready"
        executed = False
        while not executed:
            executed = Path(f"/proc/{running.pid}/comm").read_text() == "sleep\n"
            with contextlib.suppress(TraceError):
                # An execve waits until the other threads are reaped, and so does who wants to trace it.
                running.close_read_ends(but=running.redirect(reaping=True))
        status = Path(f"/proc/{running.pid}/status")
        wait_for(lambda status=status: "State:\tS" in status.read_text())
        assert "TracerPid:\t0\n" in status.read_text()


def test_a_signal_is_blocked_again_that_was_blocked_before(program):
    running = prepared(program, "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [10, 12])")
    running.redirect()
    assert "SigBlk:\t0000000000000a00" in Path(f"/proc/{running.pid}/status").read_text()
