"""What a service directory is, and what a service is given."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from harness import GINIT, wait_for, write_executable

#: Stays itself, so that /proc shows what ginit gave it, and not what a shell made of that.
LOOP = "echo ready >&2; while :; do sleep 0.05; done"
ENV = f"PATH={os.environ['PATH']}"

#: Each name, and how it is to look in JSON where it can't stand there as it is.
NAMES = {
    "with space": None,
    'double"quote': None,
    "single'quote": None,
    "back\\slash": None,
    "$(dollar)": None,
    "%s{}": None,
    "-dash": None,
    "ünïcödé": None,
    "new\nline": "new\\nline",
    "esc\x1b[31m": "esc\\x1b[31m",
    os.fsdecode(b"no-utf8-\xff\xfe"): "no-utf8-\\xff\\xfe",
}


def environment(pid: int) -> list[bytes]:
    """What a process was given as its environment, in no order."""
    return sorted(Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")[:-1])


@pytest.fixture
def run_in(services, start):
    """Starts ginit with an environment of exactly these entries, and returns the PID of its one service."""

    def run_in(*entries: str) -> int:
        services.add("web", LOOP)
        ginit = start(popen={"command": ["env", "-i", *entries, GINIT]})
        ginit.wait_for_line("web/run: ready", "stderr")
        return ginit.find("web/run")[0].pid

    return run_in


def test_a_service_runs_and_its_exit_ends_everything(services, start):
    services.add("web", "echo hello; exit 0")
    ginit = start(JSON_STDOUT="0")
    assert ginit.wait() == 0
    assert ginit.stdout.texts == ["web/run: hello"]


def test_a_link_to_a_directory_is_a_service(services, start, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    write_executable(elsewhere / "run", "echo hello; pwd -P")
    (services.path / "web").symlink_to(elsewhere)
    ginit = start(JSON_STDOUT="0")
    assert ginit.wait() == 0
    assert ginit.stdout.texts == ["web/run: hello", f"web/run: {elsewhere}"]


def test_a_relative_link_to_a_link_to_a_directory_is_a_service(services, start, tmp_path):
    write_executable(tmp_path / "elsewhere" / "run", "echo hello")
    (tmp_path / "between").symlink_to("elsewhere")
    (services.path / "web").symlink_to("../between")
    ginit = start(JSON_STDOUT="0")
    assert ginit.wait() == 0
    assert ginit.stdout.texts == ["web/run: hello"]


def test_the_directory_of_services_may_be_a_link(services, start, tmp_path):
    services.add("web", "echo hello")
    (tmp_path / "link").symlink_to("service")
    ginit = start(str(tmp_path / "link"), JSON_STDOUT="0")
    assert ginit.wait() == 0
    assert ginit.stdout.texts == ["web/run: hello"]


def test_the_directory_above_a_link_is_the_one_above_where_it_leads(services, start, tmp_path):
    services.add("web", "echo hello")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "link").symlink_to(services.path)
    ginit = start("link/../service", JSON_STDOUT="0", popen={"cwd": str(tmp_path / "elsewhere")})
    assert ginit.wait() == 0
    assert ginit.stdout.texts == ["web/run: hello"]


def test_the_directory_of_services_may_be_named_relative_to_the_working_directory(services, start, tmp_path):
    services.add("web", "echo hello; pwd -P")
    ginit = start("./service", JSON_STDOUT="0", popen={"cwd": str(tmp_path)})
    assert ginit.wait() == 0
    assert ginit.stdout.texts == ["web/run: hello", f"web/run: {services.path}/web"]


def test_names_that_begin_with_a_dot_and_what_is_no_directory_are_skipped(services, start):
    services.add("web", "echo ready; exec sleep 1000")
    hidden = services.add(".hidden", "echo hidden")
    script = write_executable(services.path / "script", "echo script")
    (services.path / ".link").symlink_to(hidden)
    (services.path / "link-to-a-file").symlink_to(script)
    (services.path / "link-to-nowhere").symlink_to("nowhere")
    (services.path / "link-to-itself").symlink_to("link-to-itself")
    os.mkfifo(services.path / "pipe")
    ginit = start(JSON_STDOUT="0")
    ginit.wait_for_line("web/run: ready")
    assert ginit.stop() == 0
    assert ginit.stdout.texts == ["web/run: ready"]
    assert ginit.stderr.texts == []


def test_services_start_in_the_order_of_their_names(services, start):
    names = ["1", "10", "9", "a", "a b", "aa", "b", "m", "n", "x", "y", "z", "é"]
    for name in reversed(names):
        services.add(name, "echo $$; exec sleep 1000")
    ginit = start(JSON_STDOUT="0")
    lines = ginit.wait_for_line(r"/run: \d+$", count=len(names))
    # PIDs are given out in ascending order in a namespace that is new.
    pids = {line.split(" ", 1)[1].split("/")[0]: int(line.split()[-1]) for line in lines}
    assert sorted(pids, key=pids.__getitem__) == names


def test_a_service_runs_in_its_directory(services, start):
    directory = services.add("web", "pwd -P")
    ginit = start(JSON_STDOUT="0")
    assert ginit.wait() == 0
    assert ginit.stdout.texts == [f"web/run: {directory}"]


def test_the_stdin_of_a_service_is_dev_null(services, start):
    services.add("web", "echo ready; exec sleep 1000")
    read_end, write_end = os.pipe()
    with os.fdopen(read_end), os.fdopen(write_end, "w"):
        ginit = start(JSON_STDOUT="0", popen={"stdin": read_end})
        ginit.wait_for_line("web/run: ready")
        (service,) = wait_for(lambda: ginit.find("sleep", "1000"))
        assert os.readlink(f"/proc/{service.pid}/fd/0") == "/dev/null"


@pytest.mark.parametrize(
    "entries",
    [
        [],
        ["LC_ALL=C"],
        ["LANG=C", "LC_CTYPE=C"],
        ["LC_CTYPE=POSIX"],
        ["LC_CTYPE="],
        ["LC_CTYPE=xx_XX.UTF-8"],
        ["LC_CTYPE=C.UTF-8"],
        ["LC_ALL=C.UTF-8"],
        ["PYTHONPATH=/nowhere", "PYTHONUNBUFFERED=1", "GEVENT_LOOP=libuv", "LIBEV_FLAGS=1", "PYTHONSTARTUP="],
        ["PYTHONPATH=/nowhere", "LC_CTYPE=POSIX"],
        ["EMPTY=", "EQUALS=a=b=c", "LINES=a\nb", os.fsdecode(b"BYTES=\xff\xfe"), "GINIT_LOG_LEVEL=info", "DINIT_DIR=/x"],
    ],
    ids=lambda entries: " ".join(entries).encode("ascii", "backslashreplace").decode() or "no locale",
)
def test_the_environment_of_a_service_is_ginits_own_and_its_name_and_nothing_else(run_in, entries):
    service = run_in(ENV, *entries)
    assert environment(service) == sorted(map(os.fsencode, [ENV, *entries, "GINIT_SERVICE=web"]))


def test_the_name_of_the_service_replaces_one_that_ginit_was_given(run_in):
    service = run_in(ENV, "GINIT_SERVICE=outer")
    assert environment(service) == sorted(map(os.fsencode, [ENV, "GINIT_SERVICE=web"]))


def test_a_log_program_has_the_environment_of_its_service(services, start):
    services.add("web", LOOP, log=LOOP)
    ginit = start(popen={"command": ["env", "-i", ENV, "A=1", GINIT]})
    ginit.wait_for_line("web/log: ready", "stderr")
    assert environment(ginit.find("web/log/run")[0].pid) == sorted(map(os.fsencode, [ENV, "A=1", "GINIT_SERVICE=web"]))


def test_two_services_share_nothing_but_ginits_environment(services, start):
    for name in ("a", "b"):
        services.add(name, LOOP)
    ginit = start(popen={"command": ["env", "-i", ENV, GINIT]})
    ginit.wait_for_line("/run: ready", "stderr", count=2)
    for name in ("a", "b"):
        entries = environment(ginit.find(f"{name}/run")[0].pid)
        assert entries == sorted(map(os.fsencode, [ENV, f"GINIT_SERVICE={name}"]))


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_name_may_have_any_character(services, start, name):
    directory = services.add(name, "echo '{}'; echo ready >&2; while :; do sleep 0.05; done", log="exec cat")
    ginit = start(LOG_LEVEL="info")
    shown = NAMES[name] or name
    ginit.wait_for_line("ready$", "stderr")
    ginit.wait_for_line("^{")
    service = next(process for process in ginit.descendants() if str(directory) + "/run" in process.cmdline())
    assert b"GINIT_SERVICE=" + os.fsencode(name) in environment(service.pid)
    assert ginit.stop() == 0
    (line,) = ginit.stdout.data.decode().splitlines()
    assert json.loads(line)["service"] == shown
    assert f"{shown}/run: ready" in ginit.stderr.texts
    assert any(text.startswith(f"ginit: info: {shown}/run: ") for text in ginit.stderr.texts)
    assert all(" " in line and line[:2] == "20" for line in ginit.stderr.lines), "a name has broken a line in two"


def test_a_name_may_be_as_long_as_the_file_system_allows(services, start):
    name = "n" * 255
    services.add(name, "echo '{}'")
    ginit = start()
    assert ginit.wait() == 0
    assert json.loads(ginit.stdout.text)["service"] == name


def test_a_hundred_services_go_up_and_down(services, start):
    names = [f"service-{number}" for number in range(100)]
    for number, name in enumerate(names):
        services.add(name, "echo ready; exec sleep 1000", log="exec cat" if number % 4 == 0 else None)
    ginit = start(JSON_STDOUT="0", LOG_LEVEL="info")
    ginit.wait_for_line("/run: ready$", count=100)
    wait_for(lambda: len(ginit.find("sleep", "1000")) == 100)
    assert ginit.stop() == 0
    assert sorted(ginit.stdout.texts) == sorted(f"{name}/run: ready" for name in names)
    ended = [text.split("/")[0] for text in ginit.stderr.texts if "/run: was ended by SIGTERM" in text]
    assert sorted(ended) == sorted(f"ginit: info: {name}" for name in names)
