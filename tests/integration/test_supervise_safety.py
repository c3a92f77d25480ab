"""Whatever a service's user puts in the place of `supervise` and of the files in it: PID 1 goes on, and touches nothing else."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Callable, Iterator

import psutil
import pytest
from harness import GINIT, PATIENCE, Ginit, Services, as_another_user, wait_for
from machine import AS_ROOT, cannot

USER = 54321
RUN = "echo ready >&2; exec sleep 1000"
STUBBORN = "trap : TERM; echo ready >&2; while [ ! -e end ]; do sleep 0.02; done"
TICK = "while :; do echo tick; sleep 0.02; done"


class Victim:
    """Files of root's that nobody else may change."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self.file = path / "file"
        self.file.write_text("precious")
        self.file.chmod(0o640)
        os.mkfifo(path / "fifo", 0o600)
        for name in ("pid", "stat", "status"):  # which would be replaced, where the rest would be made
            (path / name).write_text("precious")
        self._before = self._look()

    def _look(self) -> dict[str, tuple[object, ...]]:
        facts: dict[str, tuple[object, ...]] = {}
        for path in [self.path, *self.path.iterdir()]:
            status = path.lstat()
            content = path.read_bytes() if stat.S_ISREG(status.st_mode) else None
            facts[path.name] = (content, status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns)
        return facts

    def check(self) -> None:
        """See that nothing has changed."""
        assert self._look() == self._before


@pytest.fixture
def victim(public_services: Services) -> Victim:
    return Victim(public_services.path.parent / "victim")


@pytest.fixture(autouse=True)
def _root() -> None:
    if os.geteuid() != 0:
        cannot("only root can give files to another user", AS_ROOT)


def give(path: Path) -> Path:
    """Make it the user's."""
    os.lchown(path, USER, USER)
    return path


def add(services: Services, run: str = RUN) -> Path:
    """Add the service `web`, the user's, and one that's root's and does no harm."""
    services.add("healthy", TICK)
    directory = services.add("web", run, log="echo ready >&2; exec cat")
    for path in (directory, directory / "log"):
        give(path)
    return directory


def make_supervise(directory: Path) -> Path:
    """Make a `supervise` that is the user's."""
    supervise = directory / "supervise"
    supervise.mkdir(0o700)
    return give(supervise)


@pytest.fixture
def run(public_services: Services, start) -> Callable[..., Ginit]:
    """Starts ginit, and waits until the services run, which they have to whatever there is."""

    def run(**settings) -> Ginit:
        popen = {"command": settings.pop("command", (GINIT,))}
        ginit = start(str(public_services.path), popen=popen, JSON_STDOUT="0", SUPERVISE="1", **settings)
        ginit.wait_for_line("healthy/run: tick")
        for stage in ("run", "log"):
            ginit.wait_for_line(f"web/{stage}: ready", "stderr")
        return ginit

    return run


def warnings(ginit: Ginit) -> list[str]:
    """What ginit warns of, but for the `sleep`s that a shell leaves which is told to stop."""
    return [text for text in ginit.stderr.texts if text.startswith("ginit: ") and "reparented process: sleep" not in text]


def check_warning(ginit: Ginit, path: Path) -> None:
    (warning,) = warnings(ginit)
    assert warning.startswith(f"ginit: warn: can't use {path}: ")
    assert warning.endswith("; sv can't control this service, nor others where it is so")


def is_paused(supervise: Path) -> int | None:
    """What `status` says, if it's as runsv's."""
    content = (supervise / "status").read_bytes()
    return content[16] if len(content) == 20 else None


def command(supervise: Path, letters: bytes) -> None:
    """Write commands; it doesn't wait for a reader."""
    fd = os.open(supervise / "control", os.O_WRONLY | os.O_NONBLOCK)
    try:
        os.write(fd, letters)
    finally:
        os.close(fd)


def check_control(supervise: Path) -> None:
    """See that commands are done and told."""
    command(supervise, b"p")
    wait_for(lambda: is_paused(supervise) == 1, "it's told that the program is paused")
    command(supervise, b"c")
    wait_for(lambda: is_paused(supervise) == 0, "it's told that the program goes on")


# What is there before ginit starts.


def make_file(path: Path, _: Victim) -> None:
    path.write_text("the user's")
    give(path)


def make_fifo(path: Path, _: Victim) -> None:
    os.mkfifo(path, 0o666)
    give(path)


def make_directory(path: Path, _: Victim) -> None:
    path.mkdir()
    give(path)


def make_full_directory(path: Path, victim: Victim) -> None:
    make_directory(path, victim)
    make_file(path / "file", victim)


def make_link_to_file(path: Path, victim: Victim) -> None:
    path.symlink_to(victim.file)
    give(path)


def make_link_to_fifo(path: Path, victim: Victim) -> None:
    path.symlink_to(victim.path / "fifo")
    give(path)


def make_link_to_directory(path: Path, victim: Victim) -> None:
    path.symlink_to(victim.path)
    give(path)


def make_link_to_nothing(path: Path, victim: Victim) -> None:
    path.symlink_to(victim.path / "new")
    give(path)


def make_link_to_device(path: Path, _: Victim) -> None:
    path.symlink_to("/dev/zero")
    give(path)


def make_link_to_itself(path: Path, _: Victim) -> None:
    path.symlink_to(path.name)
    give(path)


def make_device(path: Path, _: Victim) -> None:
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))
    give(path)


def make_socket(path: Path, _: Victim) -> None:
    os.mknod(path, stat.S_IFSOCK | 0o666)
    give(path)


def make_hard_link(path: Path, victim: Victim) -> None:
    os.link(victim.file, path)


LINKS = [
    make_link_to_file,
    make_link_to_fifo,
    make_link_to_directory,
    make_link_to_nothing,
    make_link_to_device,
    make_link_to_itself,
]
DIRECTORIES = [make_directory, make_full_directory]
OTHERS = [make_device, make_socket]
EVERYTHING = [make_file, make_fifo, make_hard_link, *DIRECTORIES, *LINKS, *OTHERS]
#: What takes a file's place, so that it doesn't matter what was there, except for a directory, which can't be replaced.
REPLACED = ("status", "stat", "pid", "status.new", "stat.new", "pid.new")

UNUSABLE = [
    *(("control", make) for make in EVERYTHING if make is not make_fifo),
    *(("ok", make) for make in EVERYTHING if make is not make_fifo),
    *(("lock", make) for make in EVERYTHING if make is not make_file),
    *((name, make) for name in REPLACED for make in DIRECTORIES),
]
USABLE = [
    ("control", make_fifo),
    ("ok", make_fifo),
    ("lock", make_file),
    *((name, make) for name in REPLACED for make in EVERYTHING if make not in DIRECTORIES),
]


def name_of(value: object) -> str | None:
    return getattr(value, "__name__", "")[5:].replace("_", " ") or None


@pytest.mark.parametrize("place", ["web", "web/log"])
@pytest.mark.parametrize("make", [make for make in EVERYTHING if make not in DIRECTORIES], ids=name_of)
def test_what_is_no_directory_of_the_user_s_own_is_not_used_as_supervise(public_services, victim, run, place, make):
    add(public_services)
    supervise = public_services.path / place / "supervise"
    make(supervise, victim)
    before = supervise.lstat()
    ginit = run()
    assert ginit.stop() == 0
    check_warning(ginit, supervise)
    assert supervise.lstat().st_mode == before.st_mode
    victim.check()


@pytest.mark.parametrize("place", ["web", "web/log"])
@pytest.mark.parametrize("make", DIRECTORIES, ids=name_of)
def test_a_directory_of_the_user_s_is_used_as_supervise(public_services, victim, run, place, make):
    add(public_services)
    supervise = public_services.path / place / "supervise"
    make(supervise, victim)
    ginit = run()
    check_control(supervise)
    assert ginit.stop() == 0
    assert warnings(ginit) == []


@pytest.mark.parametrize("place", ["web", "web/log"])
@pytest.mark.parametrize(("name", "make"), UNUSABLE, ids=name_of)
def test_what_isn_t_as_runsv_has_it_in_supervise_is_not_used(public_services, victim, run, place, name, make):
    add(public_services)
    supervise = make_supervise(public_services.path / place)
    make(supervise / name, victim)
    ginit = run()
    assert ginit.stop() == 0
    check_warning(ginit, supervise / name)
    victim.check()


@pytest.mark.parametrize("place", ["web", "web/log"])
@pytest.mark.parametrize(("name", "make"), USABLE, ids=name_of)
def test_what_can_be_used_or_replaced_in_supervise_keeps_nobody_from_controlling(public_services, victim, run, place, name, make):
    add(public_services)
    supervise = make_supervise(public_services.path / place)
    make(supervise / name, victim)
    ginit = run()
    check_control(supervise)
    for file in ("status", "stat", "pid"):
        assert stat.S_ISREG((supervise / file).lstat().st_mode)
    assert ginit.stop() == 0
    assert warnings(ginit) == []
    assert not [path for path in supervise.iterdir() if path.name.endswith(".new")]
    victim.check()


def test_a_link_of_root_s_is_not_followed_through_one_of_the_user_s(public_services, victim, run):
    directory = add(public_services)
    place = public_services.path.parent / "run-web"
    place.mkdir()
    give(place)
    (directory / "supervise").symlink_to(place / "supervise")
    make_link_to_directory(place / "supervise", victim)
    ginit = run()
    assert ginit.stop() == 0
    check_warning(ginit, directory / "supervise")
    victim.check()


def test_a_link_of_root_s_makes_nothing_where_one_of_the_user_s_leads(public_services, victim, run):
    directory = add(public_services)
    place = public_services.path.parent / "run-web"
    make_link_to_directory(place, victim)
    (directory / "supervise").symlink_to(place / "supervise")
    ginit = run()
    assert ginit.stop() == 0
    check_warning(ginit, directory / "supervise")
    victim.check()


@pytest.mark.parametrize("end", ["", "/"])
def test_a_link_of_root_s_is_followed_through_another_one_of_root_s(public_services, run, end):
    directory = add(public_services)
    place = public_services.path.parent / "run-web"
    place.mkdir()
    (public_services.path.parent / "link").symlink_to("./run-web")
    (directory / "supervise").symlink_to(f"../../link/web{end}")
    ginit = run()
    check_control(place / "web")
    assert ginit.stop() == 0
    assert warnings(ginit) == []


def test_links_in_circles_are_not_followed(public_services, run):
    directory = add(public_services)
    (directory / "supervise").symlink_to("supervise")
    ginit = run()
    assert ginit.stop() == 0
    check_warning(ginit, directory / "supervise")


def test_a_link_of_the_user_s_in_the_place_of_log_gets_no_supervise(public_services, run):
    directory = add(public_services)
    elsewhere = (directory / "log").rename(public_services.path.parent / "elsewhere")
    (directory / "log").symlink_to(elsewhere)
    give(directory / "log")
    ginit = run()
    assert ginit.stop() == 0
    check_warning(ginit, directory / "log/supervise")
    assert not (elsewhere / "supervise").exists()


def test_a_link_of_the_user_s_to_a_directory_of_his_own_is_not_followed_either(public_services, run):
    directory = add(public_services)
    elsewhere = make_supervise(directory).rename(directory / "elsewhere")
    (directory / "supervise").symlink_to(elsewhere)
    give(directory / "supervise")
    ginit = run()
    assert ginit.stop() == 0
    check_warning(ginit, directory / "supervise")
    assert list(elsewhere.iterdir()) == []


# A lock that somebody holds.

#: Holds a lock on the file, or a lease, which has whoever opens it wait for it; then says so and stays.
HOLD = """
import fcntl, os, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)
file = open(sys.argv[2], "r")
if sys.argv[1] == "flock":
    fcntl.flock(file, fcntl.LOCK_EX)
else:
    fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
print("held", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def held(how: str, path: Path) -> Iterator[None]:
    make_file(path, None)
    holder = subprocess.Popen([sys.executable, "-IS", "-c", HOLD, how, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == b"held\n"
        yield
    finally:
        holder.communicate(timeout=PATIENCE)


@pytest.mark.parametrize("place", ["web", "web/log"])
def test_a_service_whose_lock_is_held_is_not_started(public_services, start, place):
    directory = add(public_services)
    supervise = make_supervise(public_services.path / place)
    with held("flock", supervise / "lock"):
        ginit = start(str(public_services.path), SUPERVISE="1")
        assert ginit.wait() == 1
    (error,) = [text for text in ginit.stderr.texts if "error" in text]
    assert f"can't start {public_services.path / place}: its supervise is held" in error
    assert "web/run: ready" not in ginit.stderr.texts
    assert "web/log: ready" not in ginit.stderr.texts
    assert directory.exists()


@pytest.mark.parametrize("place", ["web", "web/log"])
def test_in_runsvdir_s_place_the_others_run_and_it_is_started_when_the_lock_is_free(public_services, tmp_path, start, place):
    add(public_services)
    supervise = make_supervise(public_services.path / place)
    program = tmp_path / "runsvdir"
    program.symlink_to(GINIT)
    with held("flock", supervise / "lock"):
        ginit = start(str(public_services.path), popen={"command": [str(program)]})
        ginit.wait_for_line("can't start .*: its supervise is held", "stderr")
        ginit.wait_for_line("healthy/run: tick")
        assert "ready" not in ginit.stderr.text
    for stage in ("run", "log"):
        ginit.wait_for_line(f"web/{stage}: ready", "stderr")
    check_control(supervise)
    assert ginit.stop() == 0


@pytest.mark.parametrize("place", ["web", "web/log"])
def test_a_lock_whose_opening_would_wait_is_not_used(public_services, run, place):
    add(public_services)
    supervise = make_supervise(public_services.path / place)
    with held("lease", supervise / "lock"):
        ginit = run()
        assert ginit.stop() == 0
    check_warning(ginit, supervise / "lock")


# What happens while ginit runs.


def test_supervise_is_renamed_and_another_one_put_in_its_place(public_services, victim, run):
    directory = add(public_services)
    ginit = run()
    moved = (directory / "supervise").rename(directory / "moved")
    make_link_to_directory(directory / "supervise", victim)
    check_control(moved)
    assert ginit.stop() == 0
    assert warnings(ginit) == []
    victim.check()


def test_supervise_is_removed(public_services, run):
    directory = add(public_services)
    ginit = run(RESTART="always")
    shutil.rmtree(directory / "supervise")
    for count in (2, 3):
        wait_for(lambda: ginit.find("sleep 1000"))[0].kill()
        ginit.wait_for_line("web/run: ready", "stderr", count=count)
    assert ginit.stop() == 0
    # As it is when the whole service is removed.
    assert all("starting it again" in text for text in warnings(ginit))
    assert not (directory / "supervise").exists()


@pytest.mark.parametrize("make", [make for make in EVERYTHING if make not in DIRECTORIES], ids=name_of)
def test_files_in_supervise_are_replaced_by_others(public_services, victim, run, make):
    directory = add(public_services)
    ginit = run()
    supervise = directory / "supervise"
    moved = directory / "moved"
    moved.mkdir()
    (supervise / "control").rename(moved / "control")
    for name in ("control", "ok", "lock", *REPLACED):
        with contextlib.suppress(FileNotFoundError):
            (supervise / name).unlink()
        make(supervise / name, victim)
    command(moved, b"p")
    wait_for(lambda: all(stat.S_ISREG((supervise / name).lstat().st_mode) for name in ("status", "stat", "pid")))
    wait_for(lambda: is_paused(supervise) == 1)
    assert ginit.stop() == 0
    assert warnings(ginit) == []
    victim.check()


@pytest.mark.parametrize("name", REPLACED)
def test_files_in_supervise_are_replaced_by_directories(public_services, victim, run, name):
    directory = add(public_services)
    ginit = run()
    supervise = directory / "supervise"
    with contextlib.suppress(FileNotFoundError):
        (supervise / name).unlink()
    make_full_directory(supervise / name, victim)
    service = wait_for(lambda: ginit.find("sleep 1000"))[0]
    command(supervise, b"p")
    wait_for(lambda: service.status() == psutil.STATUS_STOPPED)
    assert ginit.stop() == 0
    check_warning(ginit, supervise / name)


FLOOD = """
import os, sys
commands = (sys.argv[1].encode() * 64)[:64]
while True:
    os.write(1, commands)
"""


@pytest.mark.parametrize("letters", ["u", "t", "du", "pc", "?"])
def test_commands_come_without_end(public_services, run, letters):
    directory = add(public_services, STUBBORN)
    ginit = run(RESTART="always")
    with open(directory / "supervise/control", "wb") as control:
        flood = subprocess.Popen([sys.executable, "-IS", "-c", FLOOD, letters], stdout=control)
    try:
        # More than a pipe holds: ginit takes them.
        wait_for(lambda: psutil.Process(flood.pid).io_counters().write_chars > 70_000)
        ginit.wait_for_more_lines("healthy/run: tick")
        ginit.kill()
        (directory / "end").touch()
        assert ginit.wait() == 0
    finally:
        flood.kill()
        flood.wait()


#: Takes whatever is there, faster than who waits to be told of it, and says how many times it got something.
STEAL = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDONLY | os.O_NONBLOCK)
while True:
    try:
        os.write(1, os.read(fd, 64))
    except BlockingIOError:
        pass
"""


def test_commands_are_read_by_somebody_else(public_services, run):
    directory = add(public_services)
    supervise = directory / "supervise"
    ginit = run()
    with open(directory / "stolen", "wb") as stolen:
        thief = subprocess.Popen([sys.executable, "-IS", "-c", STEAL, supervise / "control"], stdout=stolen)
    try:

        def has_stolen_much() -> bool:
            assert ginit.process.poll() is None
            assert thief.poll() is None
            for _ in range(100):
                command(supervise, b"c")
            return (directory / "stolen").stat().st_size > 1000

        wait_for(has_stolen_much)
        ginit.wait_for_more_lines("healthy/run: tick")
    finally:
        thief.kill()
        thief.wait()
    check_control(supervise)
    assert ginit.stop() == 0
    assert warnings(ginit) == []


# Where nothing can be written.


def test_on_a_read_only_file_system_the_services_run_and_one_warning_says_what_doesnt(public_services, run):
    directory = add(public_services)
    mount = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
    ginit = run(command=("sh", "-c", mount, str(public_services.path), GINIT))
    assert ginit.stop() == 0
    (warning,) = warnings(ginit)
    assert warning.startswith(f"ginit: warn: can't use {public_services.path}/")
    assert "Read-only file system" in warning
    assert not (directory / "supervise").exists()


def test_without_the_permission_the_services_run_and_one_warning_says_what_doesnt(public_services, run):
    directory = add(public_services)
    for path in (directory, directory / "log"):
        os.chown(path, 0, 0)
    ginit = run(command=(*as_another_user(USER), GINIT))
    assert ginit.stop() == 0
    (warning,) = warnings(ginit)
    assert warning.startswith(f"ginit: warn: can't use {public_services.path}/")
    assert "Permission denied" in warning


def test_an_unprivileged_ginit_keeps_supervise_where_it_can(public_services, run):
    directory = add(public_services)
    ginit = run(command=(*as_another_user(USER), GINIT))
    for place in (directory, directory / "log"):
        check_control(place / "supervise")
        assert (place / "supervise").stat().st_uid == USER
    assert ginit.stop(signal.SIGTERM) == 0
    (warning,) = warnings(ginit)
    assert warning.startswith(f"ginit: warn: can't use {public_services.path}/healthy/supervise: ")


def test_an_unprivileged_ginit_follows_no_link_of_a_third_user_s(public_services, run):
    directory = add(public_services)
    elsewhere = make_supervise(directory).rename(directory / "elsewhere")
    (directory / "supervise").symlink_to(elsewhere)
    os.lchown(directory / "supervise", USER + 1, USER + 1)
    give(public_services.path / "healthy")
    ginit = run(command=(*as_another_user(USER), GINIT))
    assert ginit.stop() == 0
    check_warning(ginit, directory / "supervise")
    assert list(elsewhere.iterdir()) == []
