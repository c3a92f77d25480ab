from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
from engine import ROOT, Container, Engine, running_engine
from guestbook import EXAMPLE


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    with running_engine() as engine:
        try:
            yield engine
        finally:
            engine.clean()


@pytest.fixture(scope="session")
def base(engine: Engine) -> str:
    """A Debian with Python."""
    return engine.load_base()


@pytest.fixture(scope="session")
def image(engine: Engine, base: str) -> str:
    """`docker/Dockerfile`, built on that."""
    return engine.build("docker/Dockerfile", BASE_IMAGE=base)


@pytest.fixture(scope="session")
def guestbook_image(engine: Engine, image: str) -> str:
    """`examples/guestbook`, built on that."""
    return engine.build(f"{EXAMPLE}/Dockerfile", context=ROOT / EXAMPLE, BASE_IMAGE=image)


class Services:
    """A directory of services on the host, for a volume."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(mode=0o755)

    def add(self, name: str, run: str, **files: str) -> Path:
        """Add a service; `files` are other executables, as `terminate`."""
        directory = self.path / name
        directory.mkdir(mode=0o755)
        for file, text in {"run": run, **files}.items():
            path = directory / file
            path.write_text(text if text.startswith("#!") else f"#!/bin/sh\n{text}\n")
            path.chmod(0o755)
        return directory


@pytest.fixture
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    directory = tmp_path_factory.mktemp("volume")
    directory.chmod(0o755)
    yield Services(directory / "service")
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def start(engine: Engine, image: str, services: Services) -> Iterator[Callable[..., Container]]:
    """Starts a container over `services`, with options of `docker run` and variables as keyword arguments."""
    started: list[Container] = []

    def start(*options: str, image: str = image, **settings: Any) -> Container:
        variables = [word for name, value in settings.items() for word in ("--env", f"GINIT_{name}={value}")]
        volume = ("--volume", f"{services.path}:/etc/service")
        started.append(Container(engine, image, options=(*volume, *variables, *options)))
        return started[-1]

    yield start
    for container in started:
        engine("rm", "--force", "--volumes", container.id)
