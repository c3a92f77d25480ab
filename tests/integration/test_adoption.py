"""Processes that daemonize are adopted: their output is redirected to ginit, and their end counts as a service's."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from harness import GINIT, as_another_user, children, descriptors, wait_for, write_executable
from machine import AS_ROOT, cannot, require

#: Prints a number every few milliseconds to each stream, or tries to. No shell: that has another stdout for a moment whenever it
#: prints to its stderr, and remembers that a stream was closed.
COUNTER = f"""#!{sys.executable}
import os, time
for number in range(10**9):
    for fd, word in ((1, "out"), (2, "err")):
        try:
            os.write(fd, f"{{word}} {{number}}\\n".encode())
        except OSError:
            pass
    time.sleep(0.02)
"""


def daemonize(until="True"):
    """Python as daemons do it: two forks, a session of its own between them, and the program in the last one.

    The one in the middle waits until that one executes the program, so that it's known by that name when it is adopted, and
    until a condition holds, in Python, where `pid` is the last one.
    """
    return f"""
import os, sys, time
if os.fork() == 0:
    os.setsid()
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.execv(sys.argv[1], sys.argv[1:])
    os.close(write_end)
    os.read(read_end, 1)
    while not ({until}):
        time.sleep(0.01)
    os._exit(0)
os.wait()
"""


#: Conditions for that: the daemon has made a file `ready`; it's stopped; it's traced.
IS_READY = "os.path.exists('ready')"
IS_STOPPED = "os.WIFSTOPPED(os.waitpid(pid, os.WUNTRACED)[1])"
IS_TRACED = "'TracerPid:\\t0\\n' not in open(f'/proc/{pid}/status').read()"


def executes(name):
    """A condition for that: the daemon executes the program `name`, its first one or a later one."""
    return f"open(f'/proc/{{pid}}/comm').read() == '{name}\\n'"


@pytest.fixture
def daemon(services):
    """Adds the service `web`, which starts the program `daemon` with these redirections, and goes on; gives its directory.

    The daemon is left when the condition `until` holds (see `daemonize`).
    """

    def daemon(program, redirections="</dev/null >/dev/null 2>&1", run="exec sleep 1000", until="True"):
        directory = services.add("web", f"{sys.executable} daemonize.py ./daemon {redirections}\n{run}")
        (directory / "daemonize.py").write_text(daemonize(until))
        write_executable(directory / "daemon", program)
        return directory

    return daemon


def start_adopting(start, *arguments, **settings):
    return start(*arguments, REPARENTING_POLICY="adopt", **{"JSON_STDOUT": "0", "LOG_LEVEL": "info", **settings})


def wait_until_adopted(ginit, name="daemon"):
    """Wait until the daemon's output is redirected, and return its label."""
    return ginit.wait_for_line(f" ginit: info: ({name}/\\d+): its output is redirected$", "stderr")[0].split()[3][:-1]


def process(ginit, label):
    """The process that has this label."""
    inner = int(label.split("/")[1])
    return wait_for(lambda: [found for found in ginit.descendants() if inner_pid(found) == inner])[0]


def inner_pid(found):
    """Its PID in its own namespace; None where it has ended."""
    try:
        status = Path(f"/proc/{found.pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(re.search(r"^NSpid:.*\t(\d+)$", status, re.MULTILINE)[1])


# What it had as stdout and stderr.


def assert_redirected(ginit, label):
    """New lines of both streams come under the daemon's own name, in their order, none missing."""
    for stream, word in (("stdout", "out"), ("stderr", "err")):
        lines = ginit.wait_for_more_lines(f"Z {label}: {word} ", stream)
        numbers = [int(line.split()[-1]) for line in lines]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


@pytest.mark.parametrize(
    "redirections",
    [
        "</dev/null >/dev/null 2>&1",
        "</dev/null >/dev/null 2>/dev/null",
        "<>/dev/null >&0 2>&0",
        "",
        ">&-",
        "<&- >&- 2>&-",
        ">file 2>&1",
        ">file 2>other",
        ">>file 2>>file",
    ],
)
def test_a_daemon_s_lines_appear_under_its_own_name_whatever_it_had_as_stdout_and_stderr(daemon, start, redirections):
    directory = daemon(COUNTER, redirections)
    ginit = start_adopting(start)
    label = wait_until_adopted(ginit)
    assert_redirected(ginit, label)
    stdin = descriptors(process(ginit, label).pid).get(0)
    assert stdin == (None if "<&-" in redirections else "/dev/null")
    if "file" in redirections:
        size = (directory / "file").stat().st_size
        ginit.wait_for_more_lines(f"{label}: out ")
        assert (directory / "file").stat().st_size == size
    assert ginit.stop() == 0


def test_a_daemon_s_lines_are_objects_where_stdout_is_json(daemon, start):
    daemon("""while :; do echo '{"a":1}'; sleep 0.02; done""")
    ginit = start_adopting(start, JSON_STDOUT="1")
    name, pid = wait_until_adopted(ginit).split("/")
    ginit.wait_for_line(f'^{{"a":1,"service":"{name}","stage":"{pid}","logged":"[^"]+"}}$')
    assert ginit.stop() == 0


def test_no_line_is_lost_or_doubled_where_the_daemon_has_the_service_s_stdout(daemon, start):
    directory = daemon("i=0; until [ -e go ]; do i=$((i+1)); echo $i; done; echo $i >count; exit 115", "")
    ginit = start_adopting(start)
    ginit.wait_for_more_lines(f"{wait_until_adopted(ginit)}: ", count=1000)
    (directory / "go").touch()
    ginit.wait_for_line("daemon/.*: has disabled itself", "stderr")
    assert ginit.stop() == 0
    numbers = [int(line.split()[-1]) for line in ginit.stdout.lines]
    # The redirection comes between two of its writes, each of which is a line; of two pipes, either may be read first.
    assert sorted(numbers) == list(range(1, int((directory / "count").read_text()) + 1))


def test_only_stdout_and_stderr_of_dev_null_are_redirected(daemon, start):
    directory = daemon("exec 5</dev/null 6>/dev/null 7>&1; exec ./counter", until=executes("counter"))
    write_executable(directory / "counter", COUNTER)
    ginit = start_adopting(start)
    label = wait_until_adopted(ginit, "counter")
    assert_redirected(ginit, label)
    found = {fd: path.split(":")[0] for fd, path in descriptors(process(ginit, label).pid).items()}
    assert found == {
        0: "/dev/null",
        1: "pipe",
        2: "pipe",
        5: "/dev/null",
        6: "/dev/null",
        7: "/dev/null",
    }


def test_copies_of_stdout_and_stderr_are_redirected_with_them(daemon, start):
    directory = daemon("exec 5>&1 6>&2 7>>other; exec ./counter", ">file 2>file2", until=executes("counter"))
    write_executable(directory / "counter", COUNTER.replace('(1, "out"), (2, "err")', '(5, "five"), (6, "six"), (7, "seven")'))
    ginit = start_adopting(start)
    label = wait_until_adopted(ginit, "counter")
    ginit.wait_for_more_lines(f"{label}: five ")
    ginit.wait_for_more_lines(f"{label}: six ", "stderr")
    assert ginit.stop() == 0
    assert "seven" not in ginit.stdout.text + ginit.stderr.text


def test_what_is_no_output_stays_as_it_is_with_a_warning(daemon, start):
    # A daemon that closed all its descriptors, and then opened some.
    program = f"""#!{sys.executable}
import os, socket, time
os.closerange(0, 3)
os.open("/dev/null", os.O_RDONLY)
os.open("data", os.O_RDWR | os.O_CREAT)
socket.socketpair()[0].detach()
open("ready", "w").close()
time.sleep(1000)
"""
    directory = daemon(program, until=IS_READY)
    (directory / "data").touch()
    ginit = start_adopting(start)
    ginit.wait_for_line("warn: daemon/.*: its stdout stays where it was: it is a file open for reading and writing", "stderr")
    ginit.wait_for_line("warn: daemon/.*: its stderr stays where it was: it is a socket", "stderr")
    label = ginit.wait_for_line("daemon/.*: adopting", "stderr")[0].split()[3][:-1]
    found = descriptors(process(ginit, label).pid)
    assert found[1] == str(directory / "data")
    assert found[2].startswith("socket:")
    assert ginit.stop() == 0


def test_a_pipe_to_another_daemon_stays_as_it_is_with_a_warning(services, start):
    # A pipeline: if its first part were redirected, the second would see the end of its input, and end.
    directory = services.add("web", f"{sys.executable} daemonize.py ./first </dev/null >/dev/null 2>&1; exec sleep 1000")
    (directory / "daemonize.py").write_text(daemonize(executes("counter")))
    write_executable(directory / "first", "mkfifo fifo; ./last <fifo & exec ./counter >fifo 2>/dev/null")
    write_executable(directory / "last", "while read line; do echo got $line; done; echo the end")
    write_executable(directory / "counter", COUNTER)
    ginit = start_adopting(start)
    ginit.wait_for_line("warn: counter/.*: its stdout stays where it was: it is a pipe to process", "stderr")
    ginit.wait_for_more_lines("counter/.*: err ", "stderr")
    assert ginit.process.poll() is None
    assert ginit.stop() == 0


# Its children.


def test_children_that_share_its_output_are_redirected_too_and_theirs_counts_as_its_own(daemon, start):
    child = "i=0; while :; do i=$((i+1)); echo $0 $i; sleep 0.02; done"
    directory = daemon("for name in a b c; do sh -c './child $0 & wait' $name & done; wait", ">file 2>&1")
    write_executable(directory / "child", child.replace("$0", "child of $1").replace("$1", "$PPID"))
    ginit = start_adopting(start)
    label = wait_until_adopted(ginit)
    for _ in range(3):
        lines = ginit.wait_for_more_lines(f"{label}: child of ", count=30)
    numbers: dict[str, list[int]] = {}
    for line in lines:
        *_, parent, number = line.split()
        numbers.setdefault(parent, []).append(int(number))
    assert len(numbers) == 3
    for found in numbers.values():
        assert found == list(range(found[0], found[0] + len(found)))
    assert ginit.stop() == 0


def test_a_child_with_an_output_of_its_own_keeps_it(daemon, start):
    program = "sh -c 'while :; do echo child; sleep 0.02; done' >own & exec ./counter"
    directory = daemon(program, until=executes("counter"))
    write_executable(directory / "counter", COUNTER)
    ginit = start_adopting(start)
    label = wait_until_adopted(ginit, "counter")
    assert_redirected(ginit, label)
    size = (directory / "own").stat().st_size
    wait_for(lambda: (directory / "own").stat().st_size > size)
    assert ginit.stop() == 0
    assert "child" not in ginit.stdout.text


# Programs of all kinds.


PYTHON_DAEMON = f"""#!{sys.executable}
import sys, time
for number in range(10**9):
    print("out", number, flush=True)
    print("err", number, file=sys.stderr, flush=True)
    time.sleep(0.02)
"""

THREADED_DAEMON = f"""#!{sys.executable}
import ctypes, os, platform, threading, time
def count(name):
    for number in range(10**9):
        os.write(1, f"{{name}} {{number}}\\n".encode())
        time.sleep(0.02)
for name in "abcdefgh":
    threading.Thread(target=count, args=(name,), daemon=True).start()
if MAIN_THREAD_ENDS:
    ctypes.CDLL(None).syscall({{"x86_64": 60, "aarch64": 93}}[platform.machine()], 0)
count("main")
"""


def test_a_python_program_is_adopted(daemon, start):
    daemon(PYTHON_DAEMON)
    ginit = start_adopting(start)
    assert_redirected(ginit, wait_until_adopted(ginit))
    assert ginit.stop() == 0


@pytest.mark.parametrize("main_thread_ends", [False, True])
def test_a_program_of_many_threads_is_adopted(daemon, start, main_thread_ends):
    daemon(THREADED_DAEMON.replace("MAIN_THREAD_ENDS", str(main_thread_ends)))
    ginit = start_adopting(start)
    label = wait_until_adopted(ginit)
    for name in "abcdefgh":
        numbers = [int(line.split()[-1]) for line in ginit.wait_for_more_lines(f"{label}: {name} ")]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert ginit.stop() == 0


def test_redis_that_daemonizes_is_adopted(services, start):
    require("redis-server", "redis-cli")
    directory = services.add(
        "redis", 'redis-server --daemonize yes --port 0 --unixsocket "$PWD/socket" --dir "$PWD"\nexec sleep 1000'
    )
    ginit = start_adopting(start)
    label = wait_until_adopted(ginit, "redis-server")
    write_executable(directory / "ask", f"for i in 1 2 3; do redis-cli -s {directory}/socket CONFIG SET loglevel debug; done")
    subprocess.run([directory / "ask"], check=True, capture_output=True)
    subprocess.run(["redis-cli", "-s", directory / "socket", "BGSAVE"], check=True, capture_output=True)
    ginit.wait_for_line(f"{label}: .*Background saving")
    assert ginit.stop() == 0
    assert re.search(f"{label}: .*bye bye", ginit.stdout.text)
    assert (directory / "dump.rdb").exists()


def test_nginx_that_daemonizes_is_adopted(services, start):
    require("nginx")
    directory = services.add("nginx", 'nginx -p "$PWD" -c nginx.conf -e "$PWD/error.log"\nexec sleep 1000')
    (directory / "nginx.conf").write_text(
        f"""daemon on; pid {directory}/pid; error_log {directory}/error.log notice; worker_processes 2;
events {{}}
http {{ access_log off; server {{ listen unix:{directory}/socket; location / {{ root {directory}; }} }} }}
"""
    )
    ginit = start_adopting(start)
    label = wait_until_adopted(ginit, "nginx")
    process(ginit, label).send_signal(signal.SIGQUIT)
    assert ginit.wait() == 0
    # By the log's descriptor, which leads to the same open file as stderr, in the master process and in its workers.
    assert re.search(f"{label}: .*signal 3 .*received", ginit.stderr.text)
    assert len(re.findall(f"{label}: .*gracefully shutting down", ginit.stderr.text)) >= 2
    assert f"{label}: ended with status 0; stopping everything".encode() in ginit.stderr.all_data


# Its life.


@pytest.mark.parametrize(("end", "status"), [("exit 0", 0), ("exit 4", 3), ("kill -s KILL $$", 3)])
def test_everything_is_stopped_when_it_ends_and_its_status_counts(daemon, start, end, status):
    directory = daemon(f"until [ -e go ]; do sleep 0.01; done; echo last words; {end}")
    ginit = start_adopting(start)
    label = wait_until_adopted(ginit)
    (directory / "go").touch()
    assert ginit.wait() == status
    assert ginit.stdout.texts == [f"{label}: last words"]


def test_one_that_disables_itself_leaves_the_others_alone(daemon, start):
    directory = daemon("until [ -e go ]; do sleep 0.01; done; exit 115")
    ginit = start_adopting(start)
    wait_until_adopted(ginit)
    (directory / "go").touch()
    ginit.wait_for_line("daemon/.*: has disabled itself", "stderr")
    assert ginit.find("sleep 1000")
    assert ginit.stop() == 0


@pytest.mark.parametrize(("end", "status"), [("exit 115", 0), ("exit 0", 0), ("exit 4", 3), ("kill -s KILL $$", 3)])
def test_a_service_may_leave_a_daemon_behind_and_disable_itself(daemon, start, end, status):
    directory = daemon(f"until [ -e go ]; do sleep 0.01; done; {end}", run="exit 115")
    ginit = start_adopting(start)
    wait_until_adopted(ginit)
    assert ginit.process.poll() is None
    (directory / "go").touch()
    assert ginit.wait() == status
    assert ("every service has disabled itself" in ginit.stderr.text) == (end == "exit 115")


def test_it_is_told_to_stop_and_waited_for_and_never_killed(daemon, start):
    program = """trap 'echo told; until [ -e end ]; do sleep 0.01; done; echo last words; exit 7' TERM
touch ready; while :; do sleep 0.01; done"""
    directory = daemon(program, until=IS_READY)
    ginit = start_adopting(start, KILL_TIMEOUT="0")
    label = wait_until_adopted(ginit)
    ginit.kill()
    ginit.wait_for_line(f"{label}: told")
    ginit.kill()
    ginit.wait_for_line(f"SIGTERM while stopping .*{label}", "stderr")
    (directory / "end").touch()
    assert ginit.wait() == 0
    assert ginit.stdout.texts == [f"{label}: told", f"{label}: last words"]


def test_a_stopped_one_is_told_to_stop_too(daemon, start):
    daemon("until [ -e go ]; do sleep 0.01; done")
    ginit = start_adopting(start)
    found = process(ginit, wait_until_adopted(ginit))
    found.suspend()
    wait_for(lambda: found.status() == psutil.STATUS_STOPPED)
    assert ginit.stop() == 0


def test_those_that_come_while_stopping_are_terminated(daemon, start):
    leave = "trap '' TERM; sleep 1000 & until grep -q sleep /proc/$!/comm; do :; done; exit"
    daemon(f"leave() {{ {leave}; }}; trap leave TERM; touch ready; while :; do sleep 0.01; done", until=IS_READY)
    ginit = start_adopting(start, KILL_TIMEOUT="0.1")
    wait_until_adopted(ginit)
    assert ginit.stop() == 0
    assert re.search("sleep/.*: killing a reparented process", ginit.stderr.text)


def test_one_that_has_ended_before_it_is_seen_is_reaped_and_nothing_more(services, start):
    script = "until [ -e go ]; do sleep 0.01; done; for i in $(seq 200); do (sh -c 'exit 7' &); done; touch done; exec sleep 1000"
    directory = services.add("web", script)
    ginit = start_adopting(start)
    ginit.wait_for_line("web/run: started", "stderr")
    ginit.kill(signal.SIGSTOP)
    wait_for(lambda: ginit.psutil.status() == psutil.STATUS_STOPPED)
    (directory / "go").touch()
    wait_for((directory / "done").exists)
    # PIDs start again from the lowest at some time, so the service may stand anywhere among them.
    wait_for(lambda: children(ginit).count("zombie") == 200)
    ginit.kill(signal.SIGCONT)
    wait_for(lambda: len(ginit.psutil.children()) == 1)
    assert ginit.stop() == 0
    assert "adopting" not in ginit.stderr.text


def test_five_hundred_are_adopted_one_after_the_other_and_leave_nothing_behind(services, start):
    # Each waits until it's adopted, says which descriptors it has, and ends.
    program = f"""#!{sys.executable} -S
import os, time
while not os.readlink("/proc/self/fd/1").startswith("pipe:"):
    time.sleep(0.02)
os.write(1, b"%d\\n" % len(os.listdir("/proc/self/fd")))
os._exit(115)
"""
    each = f"{sys.executable} -S daemonize.py ./daemon >/dev/null 2>&1"
    directory = services.add("web", f"for i in $(seq 500); do {each}; done; exec sleep 1000")
    (directory / "daemonize.py").write_text(daemonize())
    write_executable(directory / "daemon", program)
    ginit = start_adopting(start)
    ginit.wait_for_line("web/run: started", "stderr")
    before = ginit.psutil.num_fds()
    ordinary = re.compile(r"/\d+: (adopting|its output is redirected|has disabled itself)|started$")
    for count in range(50, 501, 50):  # a machine may be slow, but has to get on
        try:
            ginit.wait_for_line("/\\d+: has disabled itself", "stderr", count=count)
        except AssertionError as error:
            odd = [line for line in ginit.stderr.lines if not ordinary.search(line)]
            state = ginit.process.poll() if ginit.process.poll() is not None else ginit.descendants()
            raise AssertionError(f"{count} aren't adopted and ended: {odd}, {state}") from error
    ginit.wait_for_line("/\\d+: ", count=500)
    # The three, and the directory that is read.
    assert [line.split()[-1] for line in ginit.stdout.lines] == ["4"] * 500
    assert not [line for line in ginit.stderr.lines if " warn: " in line and "adopting" not in line]
    wait_for(lambda: ginit.psutil.num_fds() <= before)
    assert ginit.stop() == 0


# What can't be redirected is adopted all the same.


def assert_adopted_without_redirection(ginit, reason, name="daemon"):
    """It's said why its output isn't redirected; it goes on, and counts as a service."""
    line = ginit.wait_for_line(f"warn: {name}/\\d+: its output stays where it was: .*{reason}", "stderr")[0]
    found = process(ginit, line.split()[3][:-1])
    assert found.is_running()
    ginit.kill()
    assert ginit.wait() == 0
    assert re.search(f"{name}/\\d+: was ended by SIGTERM", ginit.stderr.text)


def test_a_stopped_one_is_not_redirected(daemon, start):
    daemon("kill -s STOP $$; exec sleep 1234", until=IS_STOPPED)
    assert_adopted_without_redirection(start_adopting(start), "it is stopped by a signal")


def test_one_that_is_traced_is_not_redirected(services, start):
    require("strace")
    trace = "until [ -e pid ]; do sleep 0.01; done; exec strace -o /dev/null -p $(cat pid)"
    directory = services.add("web", f"({trace}) & {sys.executable} daemonize.py ./daemon >/dev/null 2>&1; exec sleep 1000")
    write_executable(directory / "daemon", "echo $$ >new; mv new pid; exec sleep 1234")
    (directory / "daemonize.py").write_text(daemonize(f"{executes('sleep')} and {IS_TRACED}"))
    assert_adopted_without_redirection(start_adopting(start), "process .* traces it", "sleep")


#: Forbids ptrace(2) to itself and what it starts, as a container's seccomp profile may (seccomp(2)).
WITHOUT_PTRACE = """
import ctypes, errno, os, platform, struct, sys
allow, fail = 0x7FFF0000, 0x00050000 | errno.EPERM
ptrace = {"x86_64": 101, "aarch64": 117}[platform.machine()]
code = [(0x20, 0, 0, 0), (0x15, 0, 1, ptrace), (0x06, 0, 0, fail), (0x06, 0, 0, allow)]
filters = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *each) for each in code))
program = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", len(code), ctypes.addressof(filters)))
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
assert libc.prctl(22, 2, ctypes.c_void_p(ctypes.addressof(program)), 0, 0) == 0  # PR_SET_SECCOMP
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_nothing_is_redirected_where_ptrace_is_forbidden(daemon, start):
    daemon("exec sleep 1234", until=executes("sleep"))
    ginit = start_adopting(start, popen={"command": (sys.executable, "-c", WITHOUT_PTRACE, GINIT)})
    assert_adopted_without_redirection(ginit, "ptrace isn't allowed here", "sleep")


def test_one_of_another_user_is_not_redirected_without_the_right_to(daemon, start):
    if os.geteuid() != 0:
        cannot("only root can become another user", AS_ROOT)
    require("setpriv")
    daemon("exec setpriv --reuid=54321 --regid=54321 --clear-groups sleep 1234", until=executes("sleep"))
    without = ("setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace", GINIT)
    ginit = start_adopting(start, popen={"command": without})
    assert_adopted_without_redirection(ginit, "as another user", "sleep")


def test_an_unprivileged_ginit_adopts(public_services, start):
    directory = public_services.add("web", f"({sys.executable} daemonize.py ./daemon >/dev/null 2>&1); exec sleep 1000")
    (directory / "daemonize.py").write_text(daemonize())
    write_executable(directory / "daemon", COUNTER)
    ginit = start_adopting(start, str(public_services.path), popen={"command": (*as_another_user(), GINIT)})
    assert_redirected(ginit, wait_until_adopted(ginit))
    assert ginit.stop() == 0
