"""What docs/tutorial/first-container.md builds, and what it says of that."""

from __future__ import annotations

import json

import pytest
from engine import ROOT, Container

EXAMPLE = ROOT / "examples/first-container"
ASK = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8000{}').read())"


@pytest.fixture(scope="module")
def first(engine, image):
    return engine.build(str(EXAMPLE / "Dockerfile"), context=EXAMPLE, BASE_IMAGE=image)


@pytest.fixture
def container(engine, first):
    container = Container(engine, first)
    container.wait_for_line('"event": "listening"')
    container.wait_for_line('"service":"clock"')
    yield container
    engine("rm", "--force", container.id)


def test_each_request_is_logged_and_a_stop_is_graceful(container):
    assert "hello" in container.exec("python3", "-c", ASK.format("/"))
    (line,) = container.wait_for_line('"event": "request"')
    assert [json.loads(line)[key] for key in ("path", "status", "service", "stage")] == ["/", 200, "web", "run"]
    assert container.stop("--time", "60") == 0
    assert any(json.loads(line).get("event") == "stopped" for line in container.stdout())
    assert container.stderr() == []


def test_a_crash_of_the_application_ends_the_container(engine, container):
    engine("exec", container.id, "python3", "-c", ASK.format("/crash"), check=False)
    assert container.wait() == 3
    (line,) = container.stderr()
    assert " ginit: warn: web/run: ended with status 4 (PID " in line


def test_lines_can_be_text(engine, first):
    container = Container(engine, first, options=("--env", "GINIT_JSON_STDOUT=0"))
    try:
        container.wait_for_line('Z web/run: {"event": "listening", "port": 8000}')
    finally:
        engine("rm", "--force", container.id)


def test_a_directory_without_run_is_said(engine, image, services):
    (services.path / "web").mkdir()
    container = Container(engine, image, options=("--volume", f"{services.path}:/etc/service"))
    assert container.wait() == 1
    assert container.stderr()[-1].endswith("ginit: error: can't start /etc/service/web/run: it doesn't exist")
