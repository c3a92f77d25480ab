"""A ginit that is PID 1 in a PID namespace of its own, with real services, looked at from outside."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any, Callable, Mapping, Sequence

import psutil
from machine import AS_ROOT, cannot, namespace_command, require

#: Seconds after which a condition that hasn't come true is taken as one that never will. Generous: it is reached only when
#: a test fails.
PATIENCE = 40
GINIT = str(Path(sys.executable).with_name("ginit"))


def wait_for(condition: Callable[[], Any], what: str = "") -> Any:
    """Wait until `condition` returns something true, and return that."""
    deadline = time.monotonic() + PATIENCE
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"never came true: {what or condition}")
        time.sleep(0.005)


def descriptors(pid: int) -> dict[int, str]:
    """What a process has open, by number, as /proc shows it: `/a/path`, `pipe:[123]`."""
    paths = {}
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            paths[int(entry.name)] = os.readlink(entry)
    return paths


#: What ginit says, as text or in JSON, when a service has ended with 0 and everything is stopped.
_FAREWELL = re.compile(rb"^.*ended with status 0( \(PID \d+\))?; stopping everything.*\n", re.MULTILINE)


def without_farewell(data: bytes) -> bytes:
    """What ginit printed but for the line with which most tests end: the service has done its work and ended with 0."""
    return _FAREWELL.sub(b"", data) if b"; stopping everything" in data else data


class Collector:
    """Reads a pipe in a thread, and keeps what it read. Stops reading while it is paused.

    The thread alone closes the pipe: its number may be another's at once, whose data a thread about to read would take.
    """

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._data = bytearray()
        self._going = threading.Event()
        self._going.set()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with self._pipe:
            while True:
                self._going.wait()
                try:
                    block = os.read(self._pipe.fileno(), 65536)
                except OSError:  # how a terminal says that nobody has it open any more
                    return
                if not block:
                    return
                self._data += block

    def pause(self) -> None:
        self._going.clear()

    def resume(self) -> None:
        self._going.set()

    def join(self) -> None:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the pipe is still held open by somebody"

    @property
    def all_data(self) -> bytes:
        return bytes(self._data)

    @property
    def data(self) -> bytes:
        return without_farewell(self.all_data)

    @property
    def text(self) -> str:
        return self.data.decode("utf-8", "surrogateescape")

    @property
    def lines(self) -> list[str]:
        return self.text.split("\n")[:-1]

    @property
    def texts(self) -> list[str]:
        """The lines without their timestamps."""
        return [line.split(" ", 1)[-1] for line in self.lines]


class Services:
    """A directory of services."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True)

    def add(self, name: str, run: str | None = None, *, log: str | None = None, terminate: str | None = None) -> Path:
        """Add a service; each text is an executable's, `#!/bin/sh` is put before one without `#!`."""
        directory = self.path / name
        directory.mkdir()
        for file, text in (("run", run), ("log/run", log), ("terminate", terminate)):
            if text is not None:
                write_executable(directory / file, text)
        return directory


def write_executable(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text if text.startswith("#!") else "#!/bin/sh\n" + text + "\n")
    path.chmod(0o755)
    return path


class Ginit:
    """A running ginit."""

    def __init__(
        self,
        arguments: Sequence[str],
        env: Mapping[str, str],
        *,
        namespace: bool = True,
        command: Sequence[str] = (GINIT,),
        **popen: Any,
    ) -> None:
        self._namespace = namespace
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("GINIT_", "DINIT_"))}
        full = [*(namespace_command() if namespace else []), *command, *arguments]
        popen.setdefault("stdin", subprocess.DEVNULL)
        popen.setdefault("stdout", subprocess.PIPE)
        popen.setdefault("stderr", subprocess.PIPE)
        popen.setdefault("cwd", "/")
        self.process = subprocess.Popen(full, env={**clean, **env}, **popen)
        self.stdout = Collector(self.process.stdout) if self.process.stdout else None
        self.stderr = Collector(self.process.stderr) if self.process.stderr else None
        self._pid: int | None = None if namespace else self.process.pid

    @property
    def pid(self) -> int:
        """ginit's PID as seen from outside."""
        if self._pid is None:
            children = wait_for(lambda: psutil.Process(self.process.pid).children() or self.process.poll() is not None, "a child")
            assert children is not True, f"unshare failed: {self.stderr.text if self.stderr else ''}"
            self._pid = children[0].pid
        return self._pid

    @property
    def psutil(self) -> psutil.Process:
        return psutil.Process(self.pid)

    def descendants(self) -> list[psutil.Process]:
        return self.psutil.children(recursive=True)

    def find(self, *words: str) -> list[psutil.Process]:
        """The descendants whose command lines hold all the words, children first; a process may have forked one like it."""
        found = []
        for process in self.descendants():
            try:
                line = " ".join(process.cmdline())
            except psutil.Error:
                continue
            if all(word in line for word in words):
                found.append(process)
        return found

    def kill(self, signum: int = signal.SIGTERM) -> None:
        os.kill(self.pid, signum)

    def wait_for_line(self, pattern: str, stream: str = "stdout", count: int = 1) -> list[str]:
        """Wait until `count` lines of a stream match, and return them."""
        collector: Collector = getattr(self, stream)

        def matching() -> list[str] | None:
            lines = [line for line in collector.lines if re.search(pattern, line)]
            return lines if len(lines) >= count else None

        try:
            return wait_for(matching, f"{count} x {pattern!r} on {stream}")
        except AssertionError as error:
            raise AssertionError(f"{error}\nstdout: {self.stdout.text[-2000:]}\nstderr: {self.stderr.text[-2000:]}") from None

    def wait_for_more_lines(self, pattern: str, stream: str = "stdout", count: int = 5) -> list[str]:
        """Wait until `count` more lines of a stream match than do now."""
        seen = sum(re.search(pattern, line) is not None for line in getattr(self, stream).lines)
        return self.wait_for_line(pattern, stream, seen + count)

    def wait(self) -> int:
        """Wait until it has exited and its output is read, and return the exit status."""
        status = self.process.wait(PATIENCE)
        for collector in (self.stdout, self.stderr):
            if collector is not None:
                collector.resume()
                collector.join()
        return status

    def stop(self, signum: int = signal.SIGTERM) -> int:
        """Send a signal and wait."""
        self.kill(signum)
        return self.wait()

    def destroy(self) -> None:
        """End it whatever it does; with its namespace everything in it ends."""
        if self.process.poll() is None:
            for process in [*psutil.Process(self.process.pid).children(recursive=True), psutil.Process(self.process.pid)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        self.process.wait(PATIENCE)
        for collector in (self.stdout, self.stderr):
            if collector is not None:
                collector.resume()


def leave(command: str) -> str:
    """Shell that leaves `command`, a `sleep`, as an orphan when it is itself, and not a shell any more, and says its PID."""
    return f"({command} & until grep -q sleep /proc/$!/comm; do sleep 0.01; done; echo $!)"


def children(ginit: Ginit) -> list[str]:
    """The names of ginit's children; a zombie's is `zombie`."""
    names = []
    for process in ginit.psutil.children():
        try:
            names.append("zombie" if process.status() == psutil.STATUS_ZOMBIE else process.name())
        except psutil.NoSuchProcess:
            continue
    return names


#: Puts another file system over a directory that others may not enter, with nothing in it but what they need of it.
_OPEN_UP = """
directory=$1; shift
mount --rbind "$directory" /mnt && mount -t tmpfs -o mode=755 tmpfs "$directory" || exit
while [ "$1" != -- ]; do
    mkdir -p "$directory/$1" && mount --rbind "/mnt/$1" "$directory/$1" || exit
    shift
done
shift
exec "$@"
"""


def as_another_user(uid: int = 54321) -> list[str]:
    """What stands before a command in a namespace to run it as an unprivileged user; skips where that can't be."""
    command = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--no-new-privs"]
    needed = {Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve(), Path(__file__).resolve().parents[2]}
    closed = {parent for path in needed for parent in path.parents if parent.stat().st_mode & 0o5 != 0o5}
    for directory in sorted(closed, reverse=True):  # the innermost is opened up last
        inside = [str(path.relative_to(directory)) for path in sorted(needed) if directory in path.parents]
        command = ["sh", "-c", _OPEN_UP, "sh", str(directory), *inside, "--", *command]
    require("setpriv")
    if os.geteuid() != 0:
        cannot("only root can become another user", AS_ROOT)
    probe = [*namespace_command(), *command, GINIT, "--version"]
    result = subprocess.run(probe, capture_output=True, text=True)
    if result.returncode:
        cannot(f"ginit can't be run as another user here: {result.stderr}")
    return command
