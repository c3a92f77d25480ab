"""Nothing is lost: what a process wrote before it ended is out before ginit exits, whatever its reader does."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import psutil
import pytest
from harness import children, wait_for, write_executable
from streams import (
    COUNTER_ON_STDERR,
    COUNTER_ON_STDOUT,
    KINDS,
    bytes_in,
    is_counted,
    peak_memory,
    printf,
    settled,
    wait_until_blocked,
    without_stamps,
)

MODES = pytest.mark.parametrize("json_stdout", ["0", "1"], ids=["plain", "JSON"])
STREAMS = pytest.mark.parametrize("stream", ["stdout", "stderr"])


def counting(count: int, *, stream: str = "stdout") -> str:
    """A service that prints numbered lines as fast as it can, and ends at once."""
    return f"""seq -f '{{"n":%.0f}}' 0 {count - 1}""" + (" >&2" if stream == "stderr" else "")


# A process that ends.


@MODES
@STREAMS
@pytest.mark.parametrize("status", [0, 3, 4])
def test_all_lines_are_out_of_a_service_that_writes_many_and_ends_at_once(services, start, json_stdout, stream, status):
    services.add("web", f"{counting(200_000, stream=stream)}; exit {status}")
    ginit = start(JSON_STDOUT=json_stdout, LOG_LEVEL="error")
    assert ginit.wait() == (3 if status else 0)
    assert is_counted(getattr(ginit, stream).lines, 200_000)


@MODES
def test_all_lines_are_out_of_services_that_end_together(services, start, json_stdout):
    for number in range(10):
        services.add(f"s{number}", counting(5000))
    ginit = start(JSON_STDOUT=json_stdout, LOG_LEVEL="error")
    assert ginit.wait() == 0
    # The first that ends has the others stopped, wherever they are; but each process's lines are whole and in order.
    counts = []
    for number in range(10):
        lines = [line for line in ginit.stdout.lines if f"s{number}/" in line or f'"s{number}"' in line]
        assert is_counted(lines, len(lines))
        counts.append(len(lines))
    assert 5000 in counts


@MODES
def test_the_last_words_of_every_service_are_out(services, start, json_stdout):
    for number in range(20):
        services.add(f"s{number}", """trap 'echo "{}"; exit' TERM; echo ready >&2; while :; do sleep 0.01; done""")
    ginit = start(JSON_STDOUT=json_stdout)
    ginit.wait_for_line("ready", "stderr", count=20)
    assert ginit.stop() == 0
    assert len(ginit.stdout.lines) == 20


@STREAMS
def test_what_a_killed_process_wrote_is_out_without_a_newline_too(services, start, stream):
    services.add("web", printf("one\ntwo", stderr=stream == "stderr") + "; kill -s KILL $$")
    ginit = start(JSON_STDOUT="0", LOG_LEVEL="error")
    assert ginit.wait() == 3
    assert without_stamps(getattr(ginit, stream)) == ["web/run: one", "web/run: two"]


@MODES
def test_a_full_pipe_is_read_of_a_process_that_is_gone(services, start, json_stdout):
    # 64 KiB, in lines of 16 bytes.
    script = """until [ -e go ]; do sleep 0.01; done; seq -f '{"n":%09.0f}' 0 4095; exit 0"""
    service = services.add("web", script)
    ginit = start(JSON_STDOUT=json_stdout)
    run = wait_for(lambda: ginit.find("web/run"))[0]
    ginit.kill(signal.SIGSTOP)
    wait_for(lambda: ginit.psutil.status() == psutil.STATUS_STOPPED)
    (service / "go").touch()
    wait_for(lambda: run.status() == psutil.STATUS_ZOMBIE)
    assert ginit.stdout.data == b""
    ginit.kill(signal.SIGCONT)
    assert ginit.wait() == 0
    assert [int(line.split('{"n":')[1][:9]) for line in ginit.stdout.lines] == list(range(4096))


# A reader that is slow.


def test_the_last_line_is_not_lost_that_is_no_json_when_the_reader_of_stderr_is_slow(services, start):
    services.add("web", f"{counting(60_000, stream='stderr')}; printf 'not JSON, and no newline'; exit 0")
    ginit = start()
    ginit.stderr.pause()
    wait_for(lambda: not ginit.find("web/run"))
    settled(lambda: ginit.psutil.cpu_times().user)  # it has come to the end of what it can do
    ginit.stderr.resume()
    assert ginit.wait() == 0
    misfits = [line for line in ginit.stderr.lines if "not JSON, and no newline" in line]
    assert is_counted([line for line in ginit.stderr.lines if '{"n":' in line], 60_000)
    assert len(misfits) == 1


@pytest.mark.parametrize("size", [4096, 1], ids=["a page at a time", "a byte at a time"])
def test_a_reader_is_not_given_up_that_takes_a_little_now_and_then(services, start, destination, size):
    services.add("web", counting(20_000))
    stdout = destination("pipe")
    ginit = start(DRAIN_TIMEOUT="2", popen={"stdout": stdout.fd})
    wait_for(lambda: not ginit.find("web/run") and bytes_in(stdout.reader) > 60_000)
    begin = time.monotonic()
    taken = b""
    while time.monotonic() < begin + 3.5:
        taken += os.read(stdout.reader, size)
        time.sleep(0.05)
    rest = stdout.finish()
    assert ginit.wait() == 0
    assert is_counted((taken + rest).decode().splitlines(), 20_000)


# A reader that takes nothing.


@pytest.mark.parametrize("kind", KINDS)
def test_a_blocked_reader_stops_neither_reaping_nor_signals_nor_stopping_and_loses_nothing(services, start, destination, kind):
    web = services.add("web", COUNTER_ON_STDOUT)
    orphan = 'sh -c "sleep 0.05; touch ended" &'
    other = services.add("other", f"until [ -e go ]; do sleep 0.01; done; sh -c '{orphan}'; exec sleep 1000")
    stdout = destination(kind)
    ginit = start(DRAIN_TIMEOUT="1000", REPARENTING_POLICY="ignore", popen={"stdout": stdout.fd})
    wait_until_blocked(ginit, "web/run")
    (other / "go").touch()
    wait_for((other / "ended").exists)
    wait_for(lambda: "zombie" not in children(ginit))
    ginit.kill()
    wait_for(lambda: not ginit.descendants())
    ginit.kill()
    ginit.wait_for_line("SIGTERM", "stderr")
    assert ginit.process.poll() is None
    lines = stdout.finish().decode().splitlines()
    assert ginit.wait() == 0
    assert is_counted(lines, int((web / "written").read_text()))


@MODES
def test_a_service_that_ends_ends_everything_though_the_reader_is_blocked(services, start, json_stdout):
    web = services.add("web", COUNTER_ON_STDOUT)
    other = services.add("other", "until [ -e go ]; do sleep 0.01; done; exit 4")
    ginit = start(DRAIN_TIMEOUT="1000", JSON_STDOUT=json_stdout)
    ginit.stdout.pause()
    wait_until_blocked(ginit, "web/run")
    (other / "go").touch()
    wait_for(lambda: not ginit.descendants())
    ginit.stdout.resume()
    assert ginit.wait() == 3
    assert is_counted(ginit.stdout.lines, int((web / "written").read_text()))


@pytest.mark.parametrize("kind", KINDS)
def test_a_blocked_reader_slows_services_down_and_memory_stays_bounded(services, start, destination, kind):
    message = '{"message":"the quick brown fox jumps over the lazy dog"}'
    service = services.add("web", f"yes '{message}' | head -c 300000000; touch finished; exec sleep 1000")
    ginit = start(popen={"stdout": destination(kind).fd})
    wait_until_blocked(ginit, "yes")
    assert not (service / "finished").exists()
    assert peak_memory(ginit.pid) < 150_000_000


def test_memory_stays_bounded_though_many_services_print_what_is_no_json_and_nobody_reads_it(services, start):
    for number in range(40):
        services.add(f"web{number}", "exec yes")
    ginit = start()
    ginit.stdout.pause()
    ginit.stderr.pause()

    def written() -> int:
        return sum(process.io_counters().write_chars for process in ginit.find("yes"))

    wait_for(lambda: written() > 40 * 100_000)
    settled(written)
    # With the stamps a block of such short lines is forty times as long.
    assert peak_memory(ginit.pid) < 80_000_000


@pytest.mark.parametrize("kind", KINDS)
def test_a_blocked_stdout_does_not_hold_stderr_back(services, start, destination, kind):
    services.add("web", COUNTER_ON_STDOUT)
    other = services.add("other", f"until [ -e go ]; do sleep 0.01; done; {counting(20_000, stream='stderr')}; exec sleep 1000")
    stdout = destination(kind)
    ginit = start(popen={"stdout": stdout.fd})
    wait_until_blocked(ginit, "web/run")
    (other / "go").touch()
    wait_for(lambda: ginit.stderr.data.count(b"\n") >= 20_000)
    assert is_counted(ginit.stderr.lines, 20_000)


@pytest.mark.parametrize("kind", KINDS)
def test_a_blocked_stderr_does_not_hold_stdout_back(services, start, destination, kind):
    services.add("web", COUNTER_ON_STDERR)
    other = services.add("other", f"until [ -e go ]; do sleep 0.01; done; {counting(20_000)}; exec sleep 1000")
    stderr = destination(kind)
    ginit = start(popen={"stderr": stderr.fd})
    wait_until_blocked(ginit, "web/run")
    (other / "go").touch()
    wait_for(lambda: ginit.stdout.data.count(b"\n") >= 20_000)
    assert is_counted(ginit.stdout.lines, 20_000)


# A reader that takes nothing after the end.


@pytest.mark.parametrize("kind", KINDS)
def test_a_reader_that_takes_nothing_after_the_end_is_given_up_and_ginit_says_how_much_and_gives_1(
    services, start, destination, kind
):
    services.add("web", counting(20_000))
    stdout = destination(kind)
    ginit = start(JSON_STDOUT="0", DRAIN_TIMEOUT="0.1", LOG_LEVEL="error", popen={"stdout": stdout.fd})
    assert ginit.wait() == 1
    (message,) = without_stamps(ginit.stderr)
    assert message.startswith("ginit: error: ")
    given_up = next(int(word) for word in message.split() if word.isdigit())
    stamp = len("2026-11-23T22:33:47.726Z web/run: ")
    total = sum(stamp + len('{"n":}\n') + len(str(number)) for number in range(20_000))
    assert given_up == total - len(stdout.finish())


def test_a_stderr_that_takes_nothing_after_the_end_is_given_up_and_ginit_gives_1(services, start):
    services.add("web", counting(20_000, stream="stderr"))
    ginit = start(DRAIN_TIMEOUT="0.1")
    ginit.stderr.pause()
    assert ginit.process.wait(40) == 1


def test_a_pipe_for_both_that_takes_nothing_after_the_end_is_given_up_and_ginit_gives_1(services, start):
    services.add("web", counting(20_000))
    ginit = start(DRAIN_TIMEOUT="0.1", popen={"stderr": subprocess.STDOUT})
    ginit.stdout.pause()
    assert ginit.process.wait(40) == 1


# A pipe that stays open.


def test_a_process_that_outlives_its_service_does_not_keep_ginit_from_exiting_and_what_it_wrote_is_out(services, start):
    orphan = 'echo from the orphan; printf "without newline" >&2; touch written; exec sleep 1000'
    services.add("web", f"sh -c '{orphan}' & until [ -e written ]; do sleep 0.01; done; echo last; exit 0")
    ginit = start(JSON_STDOUT="0", REPARENTING_POLICY="ignore")
    assert ginit.wait() == 0
    assert without_stamps(ginit.stdout) == ["web/run: from the orphan", "web/run: last"]
    assert without_stamps(ginit.stderr) == ["web/run: without newline"]


def test_a_full_pipe_that_is_held_open_is_read_though_the_reader_blocked_when_the_service_ended(services, start):
    script = "sleep 1000 & ./counter & until [ -e go ]; do sleep 0.01; done; kill $!; wait $!; exit 0"
    service = services.add("web", script)
    # Of a mebibyte (F_SETPIPE_SZ), which takes many reads.
    enlarge = "import fcntl; fcntl.fcntl(1, 1031, 1 << 20)"
    write_executable(service / "counter", COUNTER_ON_STDOUT.replace("import os, signal", f"import os, signal\n{enlarge}"))
    ginit = start(DRAIN_TIMEOUT="1000", REPARENTING_POLICY="ignore")
    ginit.stdout.pause()
    wait_until_blocked(ginit, "./counter")
    (service / "go").touch()
    wait_for(lambda: not ginit.find("web/run"))
    ginit.stdout.resume()
    assert ginit.wait() == 0
    assert is_counted(ginit.stdout.lines, int((service / "written").read_text()))


def test_a_process_that_outlives_its_service_and_never_stops_writing_does_not_keep_ginit_from_exiting(services, start):
    service = services.add("web", "yes '{}' & echo ready >&2; until [ -e go ]; do sleep 0.01; done; exit 0")
    ginit = start(REPARENTING_POLICY="ignore", popen={"stdout": subprocess.DEVNULL})
    wait_for(lambda: "ready" in ginit.stderr.text)
    wait_for(lambda: ginit.find("yes"))
    (service / "go").touch()
    assert ginit.wait() == 0
