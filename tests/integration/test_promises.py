"""What ginit promises to the container around it: it is idle when nothing happens, writes nothing, and needs no rights."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from harness import GINIT, as_another_user, descriptors, namespace_command, wait_for
from machine import cannot, require

pytestmark = pytest.mark.usefixtures("_uncovered")

#: Makes each mounted file system read-only for what it starts, as far as that can be.
READ_ONLY = """
while read -r _ target _; do mount -o remount,bind,ro "$target" 2>/dev/null; done </proc/self/mounts
if touch "$1" 2>/dev/null; then exit 99; fi
shift
exec "$@"
"""

#: Leaves a process behind, and prints on both streams.
RUN = "(setsid sleep 1234 & until grep -q sleep /proc/$!/comm; do sleep 0.01; done); echo out; echo err >&2; exec sleep 1000"

WAYS = {
    "without capabilities": ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"],
    "as nobody in a user namespace": ["unshare", "--user", "setpriv", "--no-new-privs"],
}


@pytest.fixture
def _setpriv():
    require("setpriv")


def check(ginit):
    """Everything works: a service's two streams, an orphan, and stopping."""
    ginit.wait_for_line("web/run: out")
    ginit.wait_for_line("web/run: err", "stderr")
    ginit.wait_for_line("sleep/.*: terminating a reparented process: sleep 1234", "stderr")
    wait_for(lambda: not ginit.find("sleep 1234"), "the orphan is gone")
    assert ginit.stop() == 0
    assert "error" not in ginit.stderr.text


def status(ginit):
    return dict(line.split(":\t", 1) for line in Path(f"/proc/{ginit.pid}/status").read_text().splitlines())


@pytest.mark.usefixtures("_setpriv")
@pytest.mark.parametrize("way", WAYS)
def test_ginit_works_without_any_right(services, start, way):
    probe = subprocess.run([*namespace_command(), *WAYS[way], "true"], capture_output=True, text=True, check=False)
    if probe.returncode:
        cannot(f"ginit can't be run {way} here: {probe.stderr.strip()}")
    services.add("web", RUN)
    ginit = start(JSON_STDOUT="0", popen={"command": [*WAYS[way], GINIT]})
    ginit.wait_for_line("web/run: out")
    rights = status(ginit)
    assert int(rights["CapEff"], 16) == int(rights["CapPrm"], 16) == 0
    assert rights["NoNewPrivs"] == "1"
    check(ginit)


def test_ginit_works_as_an_unprivileged_user_with_another_user_s_pipes(public_services, start):
    public_services.add("web", RUN)
    ginit = start(str(public_services.path), JSON_STDOUT="0", popen={"command": [*as_another_user(54321), GINIT]})
    ginit.wait_for_line("web/run: out")
    assert ginit.psutil.uids().effective == 54321
    check(ginit)


def test_ginit_works_with_all_file_systems_read_only(services, start, tmp_path):
    services.add("web", RUN)
    command = ["sh", "-c", READ_ONLY, "sh", str(tmp_path / "touched")]
    if subprocess.run([*namespace_command(), *command, "true"], check=False).returncode != 0:
        cannot("file systems can't be made read-only here")
    check(start(JSON_STDOUT="0", popen={"command": [*command, GINIT]}))


@pytest.mark.parametrize("form", ["text", "json"])
def test_ginit_writes_nothing_to_the_file_system(services, start, tmp_path, form):
    require("strace")
    services.add("web", "(sleep 1234 &); echo out; echo err >&2; exec sleep 1000", terminate="kill $GINIT_PID", log="exec cat")
    trace = tmp_path / "trace"
    calls = "trace=open,openat,openat2,creat,mkdir,mkdirat,mknod,mknodat,rename,renameat,renameat2,link,linkat,symlink,symlinkat,"
    calls += "unlink,unlinkat,rmdir,truncate,ftruncate,chmod,fchmod,fchmodat,chown,fchown,fchownat,utimensat,bind,listen,socket"
    # Without -f it follows ginit alone, and none of its services.
    command = ["strace", "-y", "-o", str(trace), "-e", calls, GINIT]
    ginit = start(LOG_FORMAT=form, LOG_LEVEL="debug", popen={"command": command, "namespace": False})
    ginit.wait_for_line("not JSON on stdout: out", "stderr")
    (traced,) = wait_for(lambda: [process for process in ginit.psutil.children() if "ginit" in " ".join(process.cmdline())])
    traced.terminate()
    assert ginit.wait() == 0
    lines = trace.read_text().splitlines()
    assert [line for line in lines if "/service" in line], "the trace is there"
    assert [line for line in lines if changes_something(line)] == []


def changes_something(line):
    """Whether a line of strace's shows a call that may change the file system, or make a socket."""
    call, _, arguments = line.partition("(")
    if call == "fchmod" and re.match(r"\d+<pipe:", arguments):
        return False  # who may open it; it's in no file system that others see
    if call in ("open", "openat", "openat2"):
        # Its own stdout and stderr are opened anew, and nothing is created by that.
        harmless = '"/proc/self/fd/1"' in line or '"/proc/self/fd/2"' in line or '"/dev/null"' in line
        return "O_CREAT" in line or "O_TRUNC" in line or (("O_WRONLY" in line or "O_RDWR" in line) and not harmless)
    return call not in ("---", "+++") and not call.startswith(("---", "+++"))


def test_ginit_has_no_socket(services, start):
    services.add("web", "echo up; exec sleep 1000")
    ginit = start(JSON_STDOUT="0")
    ginit.wait_for_line("web/run: up")
    files = descriptors(ginit.pid).values()
    assert files
    assert [file for file in files if file.startswith("socket:")] == []


@pytest.mark.parametrize("policy", ["terminate", "ignore"])
def test_ginit_wakes_up_no_more_than_twice_a_second_when_nothing_happens(services, start, policy):
    for name in ("one", "two", "three"):
        services.add(name, "exec sleep 1000", log="exec cat")
    services.add("orphan", "(sleep 1234 &); exec sleep 1000")
    ginit = start(REPARENTING_POLICY=policy, LOG_LEVEL="info")
    ginit.wait_for_line("a reparented process: ", "stderr")
    # Where the machine is slow, what is left of the start reaches into the first of these spans of time.
    assert any(is_idle(ginit) for _ in range(5))


def is_idle(ginit):
    """Whether ginit wakes up no more than twice a second, for as long as that takes to see."""
    before, began = wake_ups(ginit), time.monotonic()
    wait_for(lambda: time.monotonic() - began >= 5)
    return wake_ups(ginit) - before <= 2 * (time.monotonic() - began)


def wake_ups(ginit):
    """How often ginit's threads have waited for something till now."""
    threads = Path(f"/proc/{ginit.pid}/task").iterdir()
    counts = [
        line.split()[1]
        for thread in threads
        for line in (thread / "status").read_text().splitlines()
        if line.startswith("voluntary")
    ]
    return sum(map(int, counts))


def test_modules_of_ginit_that_are_not_compiled_are_not_compiled_by_running_it(services, start, tmp_path):
    import ginit

    services.add("web", "exit 0")
    shutil.copytree(Path(ginit.__file__).parent, tmp_path / "site" / "ginit", ignore=shutil.ignore_patterns("__pycache__"))
    # As the command does it.
    program = f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); from ginit.__main__ import main; main()"
    process = start(popen={"command": [sys.executable, "-I", "-c", program]})
    assert process.wait() == 0
    compiled = {path.name.split(".")[0] for path in (tmp_path / "site").rglob("*.pyc")}
    assert compiled <= {"__init__", "__main__"}  # these two before ginit can say that it doesn't want it
