"""Starting processes: why one can't be started, what it starts with, and how its end is told."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from machine import AS_ROOT, cannot
from support import run_script, write_executable

from ginit.processes.status import describe, exit_status, signal_name

#: Starts the executable that its argument names with a real Spawner; prints the error, or the status in the end.
START = """
    import os, resource, sys
    from ginit.processes.child import Spawner, StartError, open_pipe
    from ginit.processes.reaper import Reaper
    executable, prepare = os.fsencode(sys.argv[1]), sys.argv[2]
    reaper = Reaper(lambda pid, status: None, lambda: None)
    spawner = Spawner(reaper, os.environb)
    here = os.getcwd()
    exec(prepare)
    try:
        child = spawner.spawn(executable, os.path.dirname(executable), {}, None, 1, 2)
    except StartError as error:
        print(error)
    else:
        child.exited.wait()
        print("status", child.status)
    assert os.getcwd() == here
"""


def start(executable: Path, prepare: str = "") -> str:
    return run_script(START, executable, prepare).rstrip("\n")


def reason(executable: Path, prepare: str = "") -> str:
    """Why it can't be started; the error names it."""
    error = start(executable, prepare)
    opening = f"can't start {executable}: "
    assert error.startswith(opening), error
    return error[len(opening) :]


@pytest.fixture
def run(tmp_path) -> Path:
    """The path of an executable that a test has yet to make."""
    return tmp_path / "service" / "run"


def make(path: Path, content: bytes) -> Path:
    write_executable(path, "").write_bytes(content)
    return path


@pytest.mark.parametrize(("script", "status"), [("exit 0", 0), ("exit 115", 115), ("kill -KILL $$", -9), ("kill -TERM $$", -15)])
def test_what_can_be_started_is_started_and_its_end_told(run, script, status):
    assert start(write_executable(run, script)) == f"status {status}"


def test_an_executable_that_is_not_there(run):
    run.parent.mkdir()
    assert reason(run) == "it doesn't exist"


def test_a_directory_that_is_not_there(run):
    assert reason(run) == f"its directory {run.parent} doesn't exist"


def test_a_link_to_nowhere(run):
    run.parent.mkdir()
    run.symlink_to("nowhere")
    assert reason(run) == "it is a link to nowhere"


def test_a_link_in_circles(run):
    run.parent.mkdir()
    run.symlink_to("run")
    assert reason(run) == "it is a link to nowhere"


def test_a_link_to_an_executable_is_one(run, tmp_path):
    run.parent.mkdir()
    run.symlink_to(write_executable(tmp_path / "elsewhere", "exit 7"))
    assert start(run) == "status 7"


def test_a_directory_in_an_executables_place(run):
    run.mkdir(parents=True)
    assert reason(run) == "it isn't a file"


def test_a_file_that_is_not_executable(run):
    write_executable(run, "exit 0").chmod(0o644)
    assert reason(run) == "it isn't executable (chmod +x)"


def test_an_interpreter_that_is_not_there(run, tmp_path):
    write_executable(run, f"#!{tmp_path}/none -x\n")
    assert reason(run) == f"its interpreter {tmp_path}/none doesn't exist"


def test_an_interpreter_behind_spaces_and_tabs(run, tmp_path):
    write_executable(run, f"#! \t{tmp_path}/none\t-x\n")
    assert reason(run) == f"its interpreter {tmp_path}/none doesn't exist"


def test_a_first_line_that_ends_as_on_windows(run):
    make(run, b"#!/bin/sh\r\nexit 0\r\n")
    assert reason(run) == ("its interpreter /bin/sh\\r doesn't exist; its first line ends as on Windows, with a carriage return")


def test_an_interpreter_that_is_not_executable(run, tmp_path):
    interpreter = tmp_path / "interpreter"
    interpreter.write_text("")
    write_executable(run, f"#!{interpreter}\n")
    assert reason(run) == f"its interpreter {interpreter} isn't executable"


def test_an_interpreter_that_is_a_script_whose_own_interpreter_is_not_there(run, tmp_path):
    interpreter = write_executable(tmp_path / "interpreter", f"#!{tmp_path}/none\n")
    write_executable(run, f"#!{interpreter}\n")
    # Whatever is said, not that a file isn't there which is.
    assert f"{interpreter} doesn't exist" not in reason(run)


@pytest.mark.parametrize("content", [b"echo no interpreter line\n", b"", b"\n#!/bin/sh\n", b"\x7fELF but not really", b"\0"])
def test_a_file_that_is_no_program(run, content):
    make(run, content)
    assert reason(run) == "it has no #! line and isn't a program for this machine"


def test_an_error_stays_on_its_line_whatever_the_name_is(tmp_path):
    assert start(tmp_path / "a\nb") == f"can't start {tmp_path}/a\\nb: it doesn't exist"


def test_too_many_open_files():
    script = """
        import os, resource
        from ginit.processes.child import StartError, open_pipe
        resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))
        pipes = []
        try:
            while True:
                pipes.append(open_pipe(b"web"))
        except StartError as error:
            print(error)
    """
    error = run_script(script)
    assert error.startswith("can't make a pipe for web: too many open files; raise the limit")


def test_no_more_processes_allowed():
    # The limit doesn't hold for root.
    prepare = "resource.setrlimit(resource.RLIMIT_NPROC, (1, 1)); os.geteuid() or os.setuid(65534)"
    assert reason(Path("/bin/true"), prepare).startswith("no more processes are allowed; raise the limit")


def test_a_directory_that_may_not_be_entered(run):
    if os.geteuid() != 0:
        cannot("only root can become another user", AS_ROOT)
    write_executable(run, "exit 0")
    run.parent.chmod(0o600)
    for parent in list(run.parent.parents)[:3]:
        parent.chmod(0o755)
    assert reason(run, "os.setuid(65534)") == f"its directory {run.parent} may not be entered"


def test_each_of_many_children_is_told_its_own_status(run):
    script = """
        import os, sys
        from ginit.processes.child import Spawner
        from ginit.processes.reaper import Reaper
        reaper = Reaper(lambda pid, status: print("a stranger:", pid), lambda: None)
        spawner = Spawner(reaper, os.environb)
        run = os.fsencode(sys.argv[1])
        children = [spawner.spawn(run, b"/", {b"STATUS": b"%d" % number}, None, 1, 2) for number in range(100)]
        for child in children:
            child.exited.wait()
        assert [child.status for child in children] == list(range(100))
        assert reaper.childless() and not reaper.watched
    """
    assert run_script(script, write_executable(run, "exit $STATUS")) == ""


def test_a_child_that_has_ended_gets_no_signal(run):
    script = """
        import os, signal, sys
        from ginit.processes.child import Spawner
        from ginit.processes.reaper import Reaper
        spawner = Spawner(Reaper(lambda pid, status: None, lambda: None), os.environb)
        child = spawner.spawn(os.fsencode(sys.argv[1]), b"/", {}, None, 1, 2)
        child.kill(signal.SIGTERM)
        child.exited.wait()
        assert child.status == -signal.SIGTERM
        os.kill = None
        child.kill(signal.SIGKILL)
    """
    run_script(script, write_executable(run, "exec sleep 1000"))


def test_processes_are_started_when_subprocess_is_patched_as_well(tmp_path):
    script = """
        import os, sys
        from ginit import patching
        patching.patch_signal()
        from ginit.processes.child import Spawner
        from ginit.processes.reaper import Reaper
        patching.patch_subprocess()
        import subprocess
        assert subprocess.Popen.__module__ == "gevent.subprocess"
        spawner = Spawner(Reaper(lambda pid, status: None, lambda: None), {})
        child = spawner.spawn(os.fsencode(sys.argv[1]), b"/", {}, None, 1, 2)
        child.exited.wait()
        assert child.status == 7
        assert subprocess.call([sys.argv[1]]) == 7
    """
    run_script(script, write_executable(tmp_path / "run", "#!/bin/sh\nexit 7"))


@pytest.fixture(scope="module")
def facts(tmp_path_factory) -> dict:
    """What a process starts with whose parent has blocked and ignored signals and inheritable descriptors."""
    directory = tmp_path_factory.mktemp("directory")
    script = """
        import fcntl, json, os, signal, sys, termios, time
        from ginit.processes.child import Spawner
        from ginit.processes.reaper import Reaper
        from ginit.processes.signals import Signals
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        for number in (signal.SIGUSR1, signal.SIGHUP, signal.SIGPIPE, signal.SIGRTMIN):
            signal.signal(number, signal.SIG_IGN)
        signals = Signals(lambda number: None)
        os.umask(0o027)
        inherited = fcntl.fcntl(1, fcntl.F_DUPFD, 50)
        os.set_inheritable(inherited, True)
        spawner = Spawner(Reaper(lambda pid, status: None, lambda: None), {b"A": b"1", b"B": b"2"})
        stdin, end = os.pipe()
        child = spawner.spawn(os.fsencode(sys.argv[1]), os.fsencode(sys.argv[2]), {b"B": b"3"}, stdin, 1, 2)
        at_null = spawner.spawn(os.fsencode(sys.argv[3]), b"/", {}, None, 1, 2)
        proc = f"/proc/{child.pid}/"
        # When it reads, it has opened and closed its libraries.
        os.write(end, b" ")
        while int.from_bytes(fcntl.ioctl(stdin, termios.FIONREAD, bytes(4)), sys.byteorder):
            time.sleep(0.001)
        print(json.dumps({
            "status": dict(line.split(":\\t", 1) for line in open(proc + "status").read().splitlines()),
            "descriptors": {name: os.readlink(proc + "fd/" + name) for name in os.listdir(proc + "fd")},
            "stdin": os.readlink(f"/proc/self/fd/{stdin}"),
            "stdout": os.readlink("/proc/self/fd/1"),
            "stderr": os.readlink("/proc/self/fd/2"),
            "null": os.readlink(f"/proc/{at_null.pid}/fd/0"),
            "cwd": os.readlink(proc + "cwd"),
            "environ": open(proc + "environ").read().split("\\0")[:-1],
            "command line": open(proc + "cmdline").read().split("\\0")[:-1],
            "limits": open(proc + "limits").read() == open("/proc/self/limits").read(),
            "group": os.getpgid(child.pid) == os.getpgid(0) and os.getsid(child.pid) == os.getsid(0),
        }))
        os.close(end)
        child.exited.wait()
        at_null.kill(signal.SIGTERM)
        at_null.exited.wait()
    """
    waiter = write_executable(directory / "waiter", "#!/bin/sh\nexec sleep 1000")
    cat = shutil.which("cat")
    return {"cat": cat, "directory": str(directory), **json.loads(run_script(script, cat, directory, waiter))}


def test_a_process_starts_with_no_blocked_and_no_ignored_signals(facts):
    assert int(facts["status"]["SigBlk"], 16) == 0
    assert int(facts["status"]["SigIgn"], 16) == 0


def test_a_process_starts_with_three_descriptors(facts):
    assert facts["descriptors"] == {"0": facts["stdin"], "1": facts["stdout"], "2": facts["stderr"]}


def test_a_process_that_is_given_no_stdin_gets_the_null_device(facts):
    assert facts["null"] == os.devnull


def test_a_process_starts_in_its_directory_with_its_environment_alone(facts):
    assert facts["cwd"] == facts["directory"]
    assert sorted(facts["environ"]) == ["A=1", "B=3"]
    assert facts["command line"] == [facts["cat"]]


def test_a_process_keeps_ginits_umask_limits_and_group(facts):
    assert facts["status"]["Umask"] == "0027"
    assert facts["limits"]
    assert facts["group"]


@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("exit 0", 0),
        ("exit 1", 1),
        ("exit 115", 115),
        ("exit 255", 255),
        ("kill -TERM $$", -signal.SIGTERM),
        ("kill -KILL $$", -signal.SIGKILL),
        ("ulimit -c unlimited; kill -ABRT $$", -signal.SIGABRT),
        ("exit 143", 143),
    ],
)
def test_a_status_of_the_kernels_is_an_exit_status_or_a_signal(script, status, tmp_path):
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", f"cd {tmp_path}; {script}"], os.environ)
    assert exit_status(os.waitpid(pid, 0)[1]) == status


@pytest.mark.parametrize(
    ("status", "words"),
    [(0, "ended with status 0"), (115, "ended with status 115"), (-15, "was ended by SIGTERM"), (-40, "was ended by signal 40")],
)
def test_a_status_is_described_in_words(status, words):
    assert describe(status) == words


@pytest.mark.parametrize(("number", "name"), [(15, "SIGTERM"), (9, "SIGKILL"), (1, "SIGHUP"), (40, "signal 40"), (0, "signal 0")])
def test_a_signal_is_named(number, name):
    assert signal_name(number) == name
