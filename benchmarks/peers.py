"""The peers: is one there, which version, and how are services laid out and run for it."""

from __future__ import annotations

import enum
import os
import re
import shlex
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Mapping, Sequence

#: What a service does that has nothing to do. A `sleep` that no peer starts for itself.
IDLE = "sleep 1000000"
_PROGRAMS = Path(__file__).resolve().parent / "programs"


class Ending(enum.Enum):
    """What a service does when its command is done."""

    #: It ends with the command.
    EXEC = "exec {command}"
    #: It tells that it's done, and the others are to go on.
    DISABLE = "{command}\nexit 115"
    #: It stays, because its end would end the others, or because it would be started again.
    STAY = "{command}\nexec " + IDLE


@dataclass(frozen=True)
class Service:
    """A service, as every peer is given it."""

    name: str
    #: A simple command of the shell, the work.
    command: str
    #: What is run before it.
    before: str = "true"
    #: Whether the command goes on until it's stopped.
    lasting: bool = False

    def write(self, path: Path, ending: Ending) -> None:
        """Write it as an executable shell script."""
        ending = Ending.EXEC if self.lasting else ending
        write_script(path, self.before, ending.value.format(command=self.command))


@dataclass(frozen=True)
class Layout:
    """How a peer is run for services that are laid out for it."""

    command: Sequence[str]
    environ: Mapping[str, str] = field(default_factory=dict)
    #: Files that the services' lines go to, where they don't go to stdout.
    files: Sequence[Path] = ()


def write_script(path: Path, *lines: str) -> None:
    """Write an executable shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(("#!/bin/sh", *lines, "")))
    path.chmod(0o755)


def environment() -> dict[str, str]:
    """What every peer has in its environment: little, and nothing of the person's who measures."""
    return {"PATH": _path(), "HOME": "/", "LC_ALL": "C"}


def _path() -> str:
    # Here is first what `make bench` has installed, so that peers in Python run in the same one.
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


class Peer(ABC):
    """A program that runs services."""

    #: As the person names it.
    name: str
    #: Where it comes from, for those who miss it.
    source: str
    #: Whether lines can be JSON, and get their metadata as members.
    knows_json = False
    #: Whether it is there for comparison only: no manager, and only in the works that ask for it.
    is_reference = False
    #: Whether it writes lines of its own to stdout, besides the services'.
    talks = False
    #: Whether the services' lines come out of its stdout.
    writes_to_stdout = True
    #: What a service does when it is done, where it's the only one, and where there are others.
    ending_alone = Ending.EXEC
    ending_beside = Ending.EXEC
    #: The most services that it can run; None if there's no such limit.
    most_services: int | None = None
    #: Whether a TERM stops it.
    can_be_stopped = True
    #: The variable that says what becomes of daemons, where one of its values has them adopted.
    policy_variable: str | None = None
    #: What a reader of the numbers has to know.
    remark = ""

    @abstractmethod
    def find(self) -> str | None:
        """Its version; None where it's missing."""

    @abstractmethod
    def lay_out(self, services: Sequence[Service], directory: Path, json: bool = False) -> Layout:
        """Write what it needs to run `services` into `directory`, which is empty.

        Args:
            services: at least one.
            directory: an absolute path.
            json: whether lines are JSON; only for those that know it.
        """

    def _ending(self, services: Sequence[Service]) -> Ending:
        return self.ending_alone if len(services) == 1 else self.ending_beside

    def _write_directories(self, services: Sequence[Service], directory: Path) -> None:
        """A directory each, with an executable `run`."""
        for service in services:
            service.write(directory / service.name / "run", self._ending(services))


class Ginit(Peer):
    """This project."""

    name = "ginit"
    source = "this project"
    knows_json = True
    ending_beside = Ending.DISABLE
    program = "ginit"
    prefix = "GINIT_"
    policy_variable = "GINIT_REPARENTING_POLICY"

    def find(self) -> str | None:
        """What `ginit --version` says."""
        return _first_line(self.program, "--version", pattern=r"ginit (\S+)")

    def lay_out(self, services: Sequence[Service], directory: Path, json: bool = False) -> Layout:
        """A directory of services, and the environment."""
        self._write_directories(services, directory)
        environ = {self.prefix + "DIR": str(directory), self.prefix + "JSON_STDOUT": "1" if json else "0"}
        return Layout([_which(self.program) or self.program], environ)


class Dinit(Ginit):
    """tozd/dinit, which another service manager shares its name with."""

    name = "dinit"
    source = "gitlab.com/tozd/dinit"
    program = "dinit"
    prefix = "DINIT_"
    policy_variable = "DINIT_REPARENTING_POLICY"

    def find(self) -> str | None:
        """The version in the build information of a Go program of that module."""
        # It takes no arguments, so it can't be asked; and the other one, when it's asked, might be PID 1's own tool.
        path = _which(self.program)
        return None if path is None else dinit_version(Path(path).read_bytes())


def dinit_version(program: bytes) -> str | None:
    """The version of tozd/dinit that `program`, the bytes of an executable, is; None if it is another one."""
    if b"DINIT_REPARENTING_POLICY" not in program:
        return None
    module = re.search(rb"\tgitlab\.com/tozd/dinit\t([^\t\n\0]+)", program)
    return module[1].decode(errors="replace") if module else "unknown"


class Supervisord(Peer):
    """Supervisor."""

    name = "supervisord"
    source = "supervisor"
    remark = "passes output on as it is, without a prefix"

    def find(self) -> str | None:
        """What `supervisord --version` says."""
        return _first_line("supervisord", "--version", pattern=r"(\d\S*)")

    def lay_out(self, services: Sequence[Service], directory: Path, json: bool = False) -> Layout:
        """A configuration file, with stdout and stderr as the log files."""
        assert not json
        self._write_directories(services, directory)
        sections = [
            "[supervisord]\nnodaemon=true\nsilent=true\nuser=root\nlogfile=/dev/null\nlogfile_maxbytes=0\n"
            f"pidfile={directory}/supervisord.pid\nminfds={8 * len(services) + 1000}\n"
        ]
        sections += [
            f"[program:{service.name}]\ncommand={directory}/{service.name}/run\nautorestart=false\nstartsecs=0\n"
            "stdout_logfile=/dev/fd/1\nstdout_logfile_maxbytes=0\nstderr_logfile=/dev/fd/2\nstderr_logfile_maxbytes=0\n"
            for service in services
        ]
        configuration = directory / "supervisord.conf"
        configuration.write_text("\n".join(sections))
        return Layout([_which("supervisord") or "supervisord", "--configuration", str(configuration)])


class S6(Peer):
    """s6-svscan, with an s6-log for each service."""

    name = "s6"
    source = "s6"
    ending_alone = ending_beside = Ending.STAY
    remark = "a logger for each service, all of which write to stdout and may cut each other's lines"

    def find(self) -> str | None:
        """The package's version, as far as there's one to ask for: the programs don't tell."""
        return _package_version("s6") if _which("s6-svscan") and _which("s6-log") else None

    def lay_out(self, services: Sequence[Service], directory: Path, json: bool = False) -> Layout:
        """A scan directory; each `log/run` puts time and name before a line, and cuts none."""
        assert not json
        self._write_directories(services, directory)
        for service in services:
            write_script(directory / service.name / "log" / "run", f"exec s6-log -l 0 T p{service.name}: 1")
        write_script(directory / ".s6-svscan" / "finish", "exit 0")
        # Each service counts twice, for its logger.
        return Layout(["s6-svscan", "-c", str(2 * len(services) + 10), str(directory)])


class Runit(Peer):
    """runsvdir, with an svlogd for each service."""

    name = "runit"
    source = "runit"
    writes_to_stdout = False
    ending_alone = ending_beside = Ending.STAY
    most_services = 1000  # runsvdir's own limit
    remark = "svlogd writes to files, not to stdout: nobody reads; told to stop, runsvdir leaves, and the services are killed"

    def find(self) -> str | None:
        """The package's version, as far as there's one to ask for: the programs don't tell."""
        return _package_version("runit") if _which("runsvdir") and _which("svlogd") else None

    def lay_out(self, services: Sequence[Service], directory: Path, json: bool = False) -> Layout:
        """A directory of services; each `log/run` puts the time before a line, and throws none away."""
        assert not json
        scanned, logs = directory / "services", directory / "logs"
        self._write_directories(services, scanned)
        for service in services:
            log = logs / service.name
            log.mkdir(parents=True)
            (log / "config").write_text("s0\nn0\n")  # never another file, as the oldest would be removed
            write_script(scanned / service.name / "log" / "run", f"exec svlogd -tt {shlex.quote(str(log))}")
        return Layout(["runsvdir", str(scanned)], files=[logs / service.name / "current" for service in services])


class Honcho(Peer):
    """honcho."""

    name = "honcho"
    source = "honcho"
    talks = True
    ending_beside = Ending.STAY

    def find(self) -> str | None:
        """What `honcho --version` says."""
        return _first_line("honcho", "--version", pattern=r"honcho (\S+)")

    def lay_out(self, services: Sequence[Service], directory: Path, json: bool = False) -> Layout:
        """A Procfile."""
        assert not json
        self._write_directories(services, directory)
        procfile = directory / "Procfile"
        procfile.write_text("".join(f"{service.name}: exec {directory}/{service.name}/run\n" for service in services))
        return Layout([_which("honcho") or "honcho", "--procfile", str(procfile), "start"])


class Cat(Peer):
    """`cat FILE | cat | wc -l`: what the pipes alone take, the limit."""

    name = "cat"
    source = "coreutils"
    is_reference = True
    remark = "no manager, but the limit: `cat FILE | cat`"

    def find(self) -> str | None:
        """The version of coreutils."""
        return _first_line("cat", "--version", pattern=r"(\d\S*)$") or ("unknown" if _which("cat") else None)

    def lay_out(self, services: Sequence[Service], directory: Path, json: bool = False) -> Layout:  # noqa: ARG002
        """A shell that runs the services into one `cat`."""
        self._write_directories(services, directory)
        runs = [shlex.quote(str(directory / service.name / "run")) for service in services]
        source = runs[0] if len(runs) == 1 else "{ " + "".join(f"{run} & " for run in runs) + "wait; }"
        return Layout(["sh", "-c", f"{source} | cat"])


class ImportGevent(Peer):
    """`import gevent`, and then the service: what ginit can't start faster than."""

    name = "import-gevent"
    source = "gevent"
    is_reference = True
    most_services = 1
    can_be_stopped = False  # the service is PID 1 then, and has no handler
    remark = "no manager: `python -c 'import gevent'`, which then executes the service"

    def find(self) -> str | None:
        """The version of gevent."""
        return _distribution_version("gevent")

    def lay_out(self, services: Sequence[Service], directory: Path, json: bool = False) -> Layout:
        """An interpreter that becomes the service."""
        assert not json
        self._write_directories(services, directory)
        run = str(directory / services[0].name / "run")
        return Layout([sys.executable, "-I", "-c", f"import gevent, os; os.execv({run!r}, [{run!r}])"])


class PopenLoop(Peer):
    """A loop of `subprocess.Popen`: what starting processes takes in Python."""

    name = "popen"
    source = "Python"
    is_reference = True
    remark = "no manager: a loop of `subprocess.Popen`, and of `terminate` and `wait` when it's told to stop"

    def find(self) -> str | None:
        """Python's version."""
        return ".".join(map(str, sys.version_info[:3]))

    def lay_out(self, services: Sequence[Service], directory: Path, json: bool = False) -> Layout:
        """An interpreter with the loop."""
        assert not json
        self._write_directories(services, directory)
        runs = [str(directory / service.name / "run") for service in services]
        return Layout([sys.executable, "-I", str(_PROGRAMS / "popen_loop.py"), *runs])


#: In the order of the tables.
PEERS: tuple[Peer, ...] = (
    Ginit(),
    Dinit(),
    Supervisord(),
    S6(),
    Runit(),
    Honcho(),
    Cat(),
    ImportGevent(),
    PopenLoop(),
)


def _which(program: str) -> str | None:
    return shutil.which(program, path=_path())


def _first_line(program: str, *arguments: str, pattern: str) -> str | None:
    """The first group of `pattern` in the first line of what a program says of itself; None if it doesn't say such a thing."""
    path = _which(program)
    if path is None:
        return None
    try:
        said = subprocess.run(
            [path, *arguments],
            env=environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(pattern, (said.stdout or said.stderr).partition("\n")[0])
    return match[1] if match else None


def _package_version(package: str) -> str:
    """The version of Debian's package; `unknown` where it's from elsewhere."""
    try:
        said = subprocess.run(
            ["dpkg-query", "--show", "--showformat=${Version}", package], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return said.stdout.strip() or "unknown"


def _distribution_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
