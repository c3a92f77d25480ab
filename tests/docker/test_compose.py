"""docker/compose.yaml, with Compose."""

from __future__ import annotations

import subprocess
import uuid

import pytest
from engine import ROOT, wait_for
from guestbook import check_published, healthy, sign
from machine import cannot, install

#: What the tests' machine takes: the base image that they have, a network for pip, a port that is free.
OVERRIDE = """
services:
  ginit:
    build:
      network: host
      args:
        BASE_IMAGE: {base}
  guestbook:
    build:
      network: host
"""


def command(environ):
    """Compose, as the client's plug-in or as a program of its own."""
    for words in (["docker", "compose"], ["docker-compose"]):
        try:
            subprocess.run([*words, "version"], env=environ, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        return words
    return cannot("Compose isn't installed", install("docker-compose"))


@pytest.fixture
def compose(engine, base, tmp_path):
    """Runs Compose in a project of its own, which is taken down in the end with its images."""
    project = f"ginit-tests-{uuid.uuid4().hex[:12]}"
    images = {f"{name.upper()}_IMAGE": f"{project}/{name}" for name in ("ginit", "guestbook")}
    environ = {**engine.environ, **images, "PORT": "127.0.0.1:0"}
    override = tmp_path / "override.yaml"
    override.write_text(OVERRIDE.format(base=base))
    files = ("--file", str(ROOT / "docker/compose.yaml"), "--file", str(override))
    words = [*command(environ), "--project-name", project, *files]

    def compose(*arguments):
        done = subprocess.run([*words, *arguments], env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    yield compose
    compose("down", "--volumes", "--remove-orphans")
    engine("rmi", "--force", *images.values())


def test_it_is_built_comes_up_answers_and_keeps_its_entries(engine, compose):
    compose("build", "ginit")

    def up():
        compose("up", "--detach")
        container = compose("ps", "--quiet", "guestbook").strip()
        wait_for(lambda: engine("inspect", "--format", "{{.State.Health.Status}}", container).strip() == "healthy")
        return container, int(compose("port", "guestbook", "8080").rpartition(":")[2])

    container, port = up()
    assert healthy(port)
    answers = sign(port, 3)
    check_published(port, answers)
    compose("stop")
    assert engine("inspect", "--format", "{{.State.ExitCode}}", container).strip() == "0"
    compose("down")

    _, port = up()
    check_published(port, answers)
