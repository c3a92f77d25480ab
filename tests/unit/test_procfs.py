"""What /proc says of real processes."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from typing import Iterator

import pytest
from support import wait_for

from ginit.processes import procfs

#: A process whose main thread ends while another thread goes on.
MAIN_THREAD_ENDS = """
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(1000,)).start()
ctypes.CDLL(None).pthread_exit(None)
"""


@pytest.fixture
def start() -> Iterator:
    """Starts processes, and ends them and theirs after the test."""
    started = []

    def start(*command: str, **popen) -> subprocess.Popen:
        process = subprocess.Popen(command, start_new_session=True, **popen)
        started.append(process)
        return process

    yield start
    for process in started:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture
def no_process() -> int:
    """The PID of a process that was there."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    return gone.pid


def state_of(process: subprocess.Popen) -> bytes:
    return procfs.read_stat(process.pid).state


def test_a_running_process_is_described(start):
    sleep = start("sleep", "1000")
    wait_for(lambda: procfs.read_stat(sleep.pid).command == b"sleep", "the exec")
    stat = procfs.read_stat(sleep.pid)
    assert (stat.parent, stat.threads) == (os.getpid(), 1)
    assert not stat.ended
    assert not stat.stopped


@pytest.mark.parametrize(
    "name", [b"a b", b"(", b")", b") R 1 (", b"a)b) Z 7", b"a\nb", b"\n", b" ", b"\\", b"\xff\xfe", b"(sd-pam)"]
)
def test_a_command_may_have_any_name(start, tmp_path, name):
    program = os.path.join(os.fsencode(tmp_path), name)
    shutil.copy(shutil.which("sleep"), program)
    sleep = start(program, "1000")
    wait_for(lambda: procfs.read_stat(sleep.pid).command == name, "the exec")
    stat = procfs.read_stat(sleep.pid)
    assert (stat.parent, stat.threads) == (os.getpid(), 1)


def test_a_zombie_has_ended(start):
    process = start("sh", "-c", "exit 0")
    wait_for(lambda: procfs.read_stat(process.pid).ended, "its end")
    stat = procfs.read_stat(process.pid)
    assert stat.state == b"Z"
    assert stat.parent == os.getpid()
    assert not stat.stopped
    assert procfs.read_command_line(process.pid) == b""


def test_a_process_whose_main_thread_has_ended_goes_on(start):
    process = start(sys.executable, "-c", MAIN_THREAD_ENDS)
    wait_for(lambda: state_of(process) == b"Z", "the end of its main thread")
    assert not procfs.read_stat(process.pid).ended
    process.kill()
    wait_for(lambda: procfs.read_stat(process.pid).ended, "the end of the other one")


def test_a_process_whose_main_thread_has_ended_is_looked_into_by_one_that_lives(start):
    assert procfs.living_thread(os.getpid()) == os.getpid()
    process = start(sys.executable, "-c", MAIN_THREAD_ENDS, stdin=subprocess.PIPE)
    wait_for(lambda: state_of(process) == b"Z", "the end of its main thread")
    tid = procfs.living_thread(process.pid)
    assert tid != process.pid
    assert tid in procfs.read_threads(process.pid)
    assert procfs.list_descriptors(tid)
    assert b"pthread_exit" in procfs.read_command_line(process.pid)
    assert procfs.reads_from(process.pid, procfs.read_file_name(os.getpid(), process.stdin.fileno()))
    assert not procfs.may_be_stopped(process.pid)
    process.send_signal(signal.SIGSTOP)
    wait_for(lambda: procfs.read_stat(tid).stopped, "the stop")
    assert procfs.may_be_stopped(process.pid)
    process.kill()
    wait_for(lambda: procfs.read_stat(process.pid).ended, "the end of the other one")
    assert procfs.living_thread(process.pid) == process.pid
    assert not procfs.may_be_stopped(process.pid)


def test_a_stopped_process_is_told_from_a_running_one(start):
    sleep = start("sleep", "1000")
    sleep.send_signal(signal.SIGSTOP)
    wait_for(lambda: procfs.read_stat(sleep.pid).stopped, "the stop")
    assert not procfs.read_stat(sleep.pid).ended
    sleep.send_signal(signal.SIGCONT)
    wait_for(lambda: not procfs.read_stat(sleep.pid).stopped, "the continuation")


def test_a_process_that_is_gone_has_nothing_to_say(no_process):
    assert procfs.read_stat(no_process) is None
    assert procfs.read_command_line(no_process) == b""
    assert procfs.read_children(no_process) == []
    assert procfs.scan_children(no_process) == []


def test_a_process_is_as_old_as_it_is(start):
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    sleep = start("sleep", "1000")
    after = time.clock_gettime(time.CLOCK_BOOTTIME)
    stat = procfs.read_stat(sleep.pid)
    tick = 1 / os.sysconf("SC_CLK_TCK")
    assert before - tick <= stat.started <= after
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert now - after <= stat.age <= time.clock_gettime(time.CLOCK_BOOTTIME) - before + tick


def test_a_command_line_has_spaces_between_its_arguments(start):
    shell = start("sh", "-c", "read line", "a b", "", "\n", stdin=subprocess.PIPE)
    wait_for(lambda: procfs.read_command_line(shell.pid).startswith(b"sh"), "the exec")
    assert procfs.read_command_line(shell.pid) == b"sh -c read line a b  \n"


def test_a_long_command_line_is_cut(start):
    shell = start("sh", "-c", "read line", "x" * 100000, stdin=subprocess.PIPE)
    wait_for(lambda: procfs.read_command_line(shell.pid).startswith(b"sh"), "the exec")
    line = procfs.read_command_line(shell.pid)
    assert line.startswith(b"sh -c read line xxx")
    assert len(line) < 10000


@pytest.mark.parametrize("find", [procfs.read_children, procfs.scan_children])
def test_the_children_of_a_process_are_found_alive_or_dead(start, find):
    # A shell may reap; the program that it becomes doesn't.
    script = "for each in 1 2 3; do sleep 1000 >/dev/null & echo $!; done; exec tail -f /dev/null"
    parent = start("sh", "-c", script, stdout=subprocess.PIPE)
    expected = sorted(int(parent.stdout.readline()) for _ in range(3))
    wait_for(lambda: procfs.read_stat(parent.pid).command == b"tail", "the exec")
    os.kill(expected[1], signal.SIGKILL)
    wait_for(lambda: procfs.read_stat(expected[1]).ended, "the zombie")
    assert sorted(find(parent.pid)) == expected


@pytest.mark.parametrize("find", [procfs.read_children, procfs.scan_children])
def test_a_process_without_children_has_none(start, find):
    assert find(start("sleep", "1000").pid) == []


def test_where_the_kernel_keeps_no_list_of_children_all_processes_are_asked(start, monkeypatch):
    sleep = start("sleep", "1000")

    def open_all_but_lists(path, *arguments, **options):
        if path.endswith("/children"):
            raise FileNotFoundError
        return open(path, *arguments, **options)

    monkeypatch.setattr(procfs, "open", open_all_but_lists, raising=False)
    assert sleep.pid in procfs.read_children(os.getpid())


def test_threads_and_their_children_are_found():
    script = "import os, subprocess, threading\n" + (
        "threading.Thread(target=lambda: subprocess.Popen(['sleep', '1000']).wait(), daemon=True).start()\n"
        "os.write(1, b'ready'); input()"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        wait_for(lambda: procfs.read_all_children(process.pid))
        assert len(procfs.read_threads(process.pid)) == 2
        assert procfs.read_children(process.pid) == []  # of the main thread
        (child,) = procfs.read_all_children(process.pid)
        assert procfs.read_stat(child).parent == process.pid
    finally:
        for pid in [*procfs.read_all_children(process.pid), process.pid]:
            os.kill(pid, signal.SIGKILL)
        process.communicate()
    assert procfs.read_threads(process.pid) == []
    assert procfs.read_all_children(process.pid) == []
    assert procfs.read_status(process.pid) == {}


def test_a_descriptor_is_described(tmp_path):
    path = tmp_path / "file"
    pid = os.getpid()
    with path.open("ab") as file:
        fd = file.fileno()
        assert fd in procfs.list_descriptors(pid)
        assert procfs.read_file_name(pid, fd) == os.fsencode(path)
        found = procfs.read_file(pid, fd)
        assert (found.inode, found.device) == (path.stat().st_ino, path.stat().st_dev)
        opened = procfs.read_open_file(pid, fd)
        assert opened.flags & (os.O_ACCMODE | os.O_APPEND | os.O_CLOEXEC) == os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
        assert not opened.locked
        fcntl.lockf(fd, fcntl.LOCK_EX)
        assert procfs.read_open_file(pid, fd).locked
    assert procfs.read_file_name(pid, fd) is procfs.read_file(pid, fd) is procfs.read_open_file(pid, fd) is None


def test_who_reads_from_a_pipe_is_found():
    read_end, write_end = os.pipe()
    name = procfs.read_file_name(os.getpid(), write_end)
    assert procfs.reads_from(os.getpid(), name)
    os.close(read_end)
    assert not procfs.reads_from(os.getpid(), name)
    os.close(write_end)


def test_the_system_call_that_a_process_waits_in_is_told():
    with subprocess.Popen(["sleep", "1000"]) as process:
        assert wait_for(lambda: procfs.read_system_call(process.pid)) > 0
        process.kill()
    assert procfs.read_system_call(process.pid) is None


def test_what_is_executable_is_found_the_kernel_s_own_first():
    ranges = list(procfs.read_executable_ranges(os.getpid()))
    assert len(ranges) > 2
    assert all(start < end for start, end in ranges)
    with open("/proc/self/maps") as maps:
        (vdso,) = [line for line in maps if line.endswith("[vdso]\n")]
    assert ranges[0] == tuple(int(word, 16) for word in vdso.split()[0].split("-"))
