"""A real engine: the one that runs, or one that is started for the tests and ends with them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any, Callable, Iterator, Sequence

from machine import AS_ROOT, cannot, install, require

ROOT = Path(__file__).resolve().parents[2]
#: Seconds after which something that hasn't come is taken as never to come.
PATIENCE = 60
#: Where the base image's file system is kept from run to run; making it takes most of a minute.
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ginit-tests"
SUITE = "bookworm"
PACKAGES = "ca-certificates,procps,python3,python3-venv"
#: What tells the tests' containers from others.
LABEL = f"ginit-tests={uuid.uuid4().hex}"


def _client() -> str:
    # Debian's knows BuildKit; a newer one without its plug-in may be found first.
    return "/usr/bin/docker" if os.access("/usr/bin/docker", os.X_OK) else shutil.which("docker") or "docker"


def wait_for(condition: Callable[[], object], patience: float = PATIENCE) -> None:
    """Wait until `condition` returns something true."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


class Engine:
    """An engine that answers, at `host`."""

    def __init__(self, host: str | None) -> None:
        self._environ = {**os.environ, **({"DOCKER_HOST": host} if host else {})}
        self._images: list[str] = []

    def __call__(self, *arguments: str, check: bool = True, environ: dict[str, str] | None = None, **run: Any) -> str:
        """Run a command of the client's, and return what it prints."""
        run.setdefault("stdout", subprocess.PIPE)
        run.setdefault("stderr", subprocess.STDOUT)
        done = subprocess.run(
            [_client(), *arguments],
            env={**self._environ, **(environ or {})},
            stdin=subprocess.DEVNULL,
            timeout=600,
            text=True,
            check=False,
            errors="surrogateescape",
            **run,
        )
        if check and done.returncode:
            raise AssertionError(f"docker {' '.join(arguments)}: {done.stdout}")
        return done.stdout or ""

    @property
    def client(self) -> str:
        """The path of the client's program."""
        return _client()

    @property
    def environ(self) -> dict[str, str]:
        """What a client of it has in its environment."""
        return self._environ

    def answers(self) -> bool:
        return "Server Version" in self("info", check=False)

    def popen(self, *arguments: str, **popen: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen([_client(), *arguments], env=self._environ, **popen)

    def build(self, dockerfile: str, *, buildkit: bool = True, context: Path = ROOT, **arguments: str) -> str:
        """Build an image, and return its name; it's removed in the end."""
        name = self._name()
        options = [word for key, value in arguments.items() for word in ("--build-arg", f"{key}={value}")]
        self(
            *("build", "--network", "host", "--quiet", "--file", dockerfile, "--tag", name, *options, str(context)),
            environ={"DOCKER_BUILDKIT": "1" if buildkit else "0"},
        )
        return name

    def load_base(self) -> str:
        """The image that the others are built on."""
        name = self._name()
        self("import", str(_base_file_system()), name)
        return name

    def _name(self) -> str:
        name = f"ginit-tests/{uuid.uuid4().hex[:12]}"
        self._images.append(name)
        return name

    def clean(self) -> None:
        """Leave no container and no image behind."""
        containers = self("ps", "--all", "--quiet", "--filter", f"label={LABEL}").split()
        if containers:
            self("rm", "--force", "--volumes", *containers)
        if self._images:
            self("rmi", "--force", *self._images, check=False)


@contextlib.contextmanager
def running_engine() -> Iterator[Engine]:
    """The engine that runs; where there's none, one of the tests' own."""
    require("docker")
    engine = Engine(None)
    if engine.answers():
        yield engine
    else:
        with own_engine() as engine:
            yield engine


@contextlib.contextmanager
def own_engine() -> Iterator[Engine]:
    """An engine of the tests' own, with all its files in a temporary directory."""
    require("docker")
    if os.geteuid() != 0 or shutil.which("dockerd") is None:
        cannot(
            "no engine runs, and none can be started: that takes dockerd and root",
            f"{install('docker.io', 'iptables')}, and {AS_ROOT}",
        )
    with tempfile.TemporaryDirectory(prefix="ginit-tests-") as directory:
        path = Path(directory)
        host = f"unix://{path}/docker.sock"
        places = ("--data-root", path / "data", "--exec-root", path / "exec", "--pidfile", path / "pid", "--host", host)
        with (path / "log").open("wb") as log:
            daemon = subprocess.Popen(["dockerd", *map(str, places)], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            engine = Engine(host)
            deadline = time.monotonic() + PATIENCE
            while not engine.answers():
                if daemon.poll() is not None or time.monotonic() > deadline:
                    cannot(f"dockerd doesn't start: {(path / 'log').read_text()[-2000:]}")
                time.sleep(0.1)
            yield engine
        finally:
            daemon.terminate()
            daemon.wait(PATIENCE)
            _unmount_below(path)


def _unmount_below(directory: Path) -> None:
    """Unmount what an engine leaves mounted: the default network namespace, if nothing else."""
    points = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for point in sorted((point for point in points if point.startswith(f"{directory}/")), reverse=True):
        subprocess.run(["umount", "--lazy", point], check=True)


def _base_file_system() -> Path:
    """A Debian with Python, and with this machine's certificates and settings for pip, as an archive."""
    archive = CACHE / f"{SUITE}-{PACKAGES.replace(',', '-')}.tar"
    if archive.exists():
        return archive
    require("debootstrap")
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as directory:
        root = Path(directory) / "root"
        command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(root)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            cannot(f"no base image can be made: {done.stdout[-2000:]}")
        for settings in ("etc/pip.conf", "etc/ssl/certs/ca-certificates.crt"):
            if (Path("/") / settings).exists():
                shutil.copy(Path("/") / settings, root / settings)
        shutil.rmtree(root / "var/cache/apt", ignore_errors=True)
        unfinished = Path(directory) / "archive"
        with tarfile.open(unfinished, "w") as tar:
            tar.add(root, arcname=".")
        unfinished.rename(archive)
    return archive


class Container:
    """A container, of which the engine is asked."""

    def __init__(self, engine: Engine, image: str, *arguments: str, options: Sequence[str] = ()) -> None:
        self._engine = engine
        self.id = engine("run", "--detach", "--label", LABEL, *options, image, *arguments, stderr=subprocess.DEVNULL).strip()
        assert self.id, engine("run", "--label", LABEL, *options, image, *arguments, check=False)

    def inspect(self) -> dict[str, Any]:
        (found,) = json.loads(self._engine("inspect", self.id))
        return found

    def wait(self) -> int:
        """Wait until it has ended, and return its exit status."""
        return int(self._engine("wait", self.id))

    def stdout(self) -> list[str]:
        return self._engine("logs", self.id, stderr=subprocess.DEVNULL).splitlines()

    def stderr(self) -> list[str]:
        with tempfile.TemporaryFile("w+", errors="surrogateescape") as file:
            self._engine("logs", self.id, stdout=subprocess.DEVNULL, stderr=file)
            file.seek(0)
            return file.read().splitlines()

    def wait_for_line(self, text: str, stream: str = "stdout", count: int = 1) -> list[str]:
        """Wait until so many lines of a stream have `text` in them."""
        deadline = time.monotonic() + PATIENCE
        while True:
            found = [line for line in getattr(self, stream)() if text in line]
            if len(found) >= count:
                return found
            if time.monotonic() > deadline or self.inspect()["State"]["Status"] == "exited":
                raise AssertionError(f"no {text!r} on {stream}: {self.stdout()[-20:]} {self.stderr()[-20:]}")
            time.sleep(0.05)

    def stop(self, *options: str) -> int:
        self._engine("stop", *options, self.id)
        return self.wait()

    def exec(self, *command: str) -> str:
        return self._engine("exec", self.id, *command)
