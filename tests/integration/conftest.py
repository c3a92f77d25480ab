from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
from harness import Ginit, Services
from machine import require_namespaces
from streams import Destination


@pytest.fixture(scope="session", autouse=True)
def _namespaces() -> None:
    """Skip all of this where the kernel gives no PID namespaces; in CI, fail."""
    require_namespaces()


@pytest.fixture(scope="session", autouse=True)
def _signals() -> None:
    """As in a terminal: a shell starts a command in the background with these ignored, and runit's programs pass that on."""
    for signum in (signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(signum) is signal.SIG_IGN:
            signal.signal(signum, signal.SIG_DFL)


@pytest.fixture
def services(tmp_path: Path) -> Services:
    """An empty directory of services."""
    return Services(tmp_path / "service")


@pytest.fixture
def public_services() -> Iterator[Services]:
    """An empty directory of services that every user may enter."""
    with tempfile.TemporaryDirectory() as path:
        os.chmod(path, 0o755)
        yield Services(Path(path) / "service")


@pytest.fixture
def start(services: Services) -> Iterator[Callable[..., Ginit]]:
    """Starts ginit over `services`, with variables as keyword arguments (`LOG_LEVEL="info"` is `GINIT_LOG_LEVEL`)."""
    started: list[Ginit] = []

    def start(*arguments: str, env: dict[str, str] | None = None, popen: dict[str, Any] | None = None, **settings: str) -> Ginit:
        variables = {f"GINIT_{name}": value for name, value in settings.items()}
        ginit = Ginit(arguments or (str(services.path),), {**variables, **(env or {})}, **(popen or {}))
        started.append(ginit)
        return ginit

    yield start
    for ginit in started:
        ginit.destroy()


@pytest.fixture
def destination(tmp_path: Path) -> Iterator[Callable[[str], Destination]]:
    """Makes what can be ginit's stdout or stderr: a `pipe`, a `terminal`, a `socket` or a `file`."""
    made: list[Destination] = []

    def make(kind: str) -> Destination:
        made.append(Destination(kind, tmp_path / f"destination{len(made)}"))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def _uncovered(monkeypatch: pytest.MonkeyPatch) -> None:
    """No coverage is measured of what a test starts, because that opens and writes files of its own."""
    for name in [name for name in os.environ if name.startswith("COVERAGE_")]:
        monkeypatch.delenv(name)
