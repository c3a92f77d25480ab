"""The writers for stdout and stderr, in a process of its own whose descriptors 1 and 2 are the real thing."""

from __future__ import annotations

import os
import socket
import subprocess
import tty
from concurrent.futures import ThreadPoolExecutor

import pytest
from support import run_script

#: Ends with 10 where the two are one writer, with 20 where they aren't; writes a line of each in turn.
WRITE = """
    import os, sys
    from ginit.output.writer import open_writers
    stdout, stderr = open_writers(lambda name, error: None, None)
    for number in range(2000):
        stdout.put(b"out %d\\n" % number)
        stderr.put(b"err %d\\n" % number)
    lost = stdout.close(30)
    if stderr is not stdout:
        lost += stderr.close(30)
    os._exit(1 if lost else 10 if stdout is stderr else 20)
"""
SAME, DIFFERENT = 10, 20
OUT = [f"out {number}" for number in range(2000)]
ERR = [f"err {number}" for number in range(2000)]
TAKING_TURNS = [line for pair in zip(OUT, ERR) for line in pair]


def test_a_shared_pipe_gets_whole_lines_in_order():
    assert run_script(WRITE, status=SAME, stderr=subprocess.STDOUT).splitlines() == TAKING_TURNS


def test_a_shared_socket_gets_whole_lines_in_order():
    ours, theirs = socket.socketpair()
    with ours, theirs, ThreadPoolExecutor(1) as reader:
        received = reader.submit(ours.makefile().read)
        run_script(WRITE, status=SAME, stdout=theirs, stderr=theirs)
        theirs.close()
        assert received.result().splitlines() == TAKING_TURNS


def test_a_file_opened_twice_gets_whole_lines_in_order(tmp_path):
    path = tmp_path / "out"
    with open(path, "wb") as first, open(path, "wb") as second:
        run_script(WRITE, status=SAME, stdout=first, stderr=second)
    assert path.read_text().splitlines() == TAKING_TURNS


def test_two_files_get_a_writer_each(tmp_path):
    with open(tmp_path / "out", "wb") as out, open(tmp_path / "err", "wb") as err:
        run_script(WRITE, status=DIFFERENT, stdout=out, stderr=err)
    assert (tmp_path / "out").read_text().splitlines() == OUT
    assert (tmp_path / "err").read_text().splitlines() == ERR


def test_two_pipes_get_a_writer_each(tmp_path):
    with open(tmp_path / "err", "wb+") as err:
        assert run_script(WRITE, status=DIFFERENT, stderr=err).splitlines() == OUT
        err.seek(0)
        assert err.read().decode().splitlines() == ERR


@pytest.mark.parametrize(("fd", "name"), [(1, "stdout"), (2, "stderr")])
def test_a_descriptor_that_is_not_open_is_named(fd, name):
    script = """
        import os, sys
        from ginit.output.writer import open_writers
        fd = int(sys.argv[1])
        kept = os.dup(1)
        os.close(fd)
        try:
            open_writers(None, None)
        except OSError as error:
            os.write(kept, str(error).encode())
        os._exit(0)
    """
    assert f"{name} (descriptor {fd}) isn't open" in run_script(script, str(fd))


def test_a_failure_is_told_with_the_streams_name_and_is_no_sigpipe(tmp_path):
    script = """
        import os
        from ginit.output.writer import open_writers
        stdout, stderr = open_writers(lambda name, error: stderr.put(f"{name}: {error.strerror}".encode()), None)
        stdout.put(b"line\\n")
        stdout.close(30)
        stderr.close(30)
        os._exit(10)
    """
    read_end, write_end = os.pipe()
    os.close(read_end)
    with open(tmp_path / "err", "wb") as err:
        run_script(script, status=10, stdout=write_end, stderr=err)
    os.close(write_end)
    assert (tmp_path / "err").read_text() == "stdout: Broken pipe"


def test_a_terminal_does_not_become_the_controlling_one():
    script = """
        import os
        from ginit.output.writer import open_writers
        assert os.getsid(0) == os.getpid()
        stdout, stderr = open_writers(None, None)
        stdout.put(b"line\\n")
        assert stdout.close(30) == 0
        try:
            os.open("/dev/tty", os.O_RDWR)
        except OSError:
            os._exit(0)
        os._exit(1)
    """
    controller, terminal = os.openpty()
    tty.setraw(terminal)
    run_script(script, stdout=terminal, start_new_session=True)
    assert os.read(controller, 100) == b"line\n"
    os.close(controller)
    os.close(terminal)


def test_a_thread_that_is_stuck_in_a_write_keeps_nobody_from_giving_up():
    script = """
        import os
        from ginit.output.writer import open_writers
        stdout, stderr = open_writers(None, None)
        stdout.put(b"x" * 1000000)
        lost = stdout.close(0.1)
        os._exit(10 if lost and stdout.broken else 1)
    """
    ours, theirs = socket.socketpair()
    with ours, theirs:
        run_script(script, stdout=theirs, status=10)
