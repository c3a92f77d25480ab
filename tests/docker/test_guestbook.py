"""examples/guestbook: everything in one container."""

from __future__ import annotations

import json
import uuid

import pytest
from engine import Container, wait_for
from guestbook import check_published, healthy, sign

RESTRICTED = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
CHECK_OFTEN = ("--health-interval", "200ms", "--health-retries", "1000")


@pytest.fixture
def volume(engine):
    name = f"ginit-tests-{uuid.uuid4().hex[:12]}"
    engine("volume", "create", name)
    yield name
    engine("volume", "rm", "--force", name)


@pytest.fixture
def start(engine, guestbook_image, volume):
    started = []

    def start(*options):
        mounted = ("--volume", f"{volume}:/var/lib/guestbook", "--publish", "127.0.0.1::8080")
        variables = ("--env", "GINIT_LOG_LEVEL=info")
        started.append(Container(engine, guestbook_image, options=(*mounted, *variables, *CHECK_OFTEN, *options)))
        wait_for(lambda: started[-1].inspect()["State"]["Health"]["Status"] == "healthy")
        return started[-1]

    yield start
    for container in started:
        engine("rm", "--force", container.id)


def port_of(container):
    return int(container.inspect()["NetworkSettings"]["Ports"]["8080/tcp"][0]["HostPort"])


@pytest.mark.parametrize("options", [(), RESTRICTED, ("--user", "0")], ids=["as it is", "restricted", "root"])
def test_a_stop_finishes_what_has_begun_and_keeps_it(engine, start, options):
    container = start(*options)
    port = port_of(container)
    assert healthy(port)
    container.exec("pkill", "-STOP", "-f", "worker.py")
    answers = sign(port, 5)
    container.wait_for_line('"accepted"', count=5)
    engine("kill", "--signal", "TERM", container.id)
    container.wait_for_line('"service": "nginx", "stage": "term"', "stderr")
    assert not any(answer.done() for answer in answers)
    container.exec("pkill", "-CONT", "-f", "worker.py")
    assert container.wait() == 0

    lines = [json.loads(line) for line in container.stdout()]
    assert {(line["service"], line["stage"]) for line in lines} == {("nginx", "run"), ("web", "run"), ("worker", "run")}
    published = {line["request"] for line in lines if line["event"] == "published"}
    assert published == {line["request"] for line in lines if line["event"] == "request"}
    assert all("message" in json.loads(line) for line in container.stderr())

    again = start(*options)
    check_published(port_of(again), answers)
    assert again.stop("--time", "60") == 0


def test_its_environment_and_ginit_s_are_apart(engine, guestbook_image):
    ask_for = "import importlib.util as util, sys; print(sys.prefix, util.find_spec('redis') is not None)"
    run = ("run", "--rm", "--entrypoint")
    assert engine(*run, "python3", guestbook_image, "-c", ask_for).strip() == "/opt/guestbook True"
    assert engine(*run, "/opt/ginit/bin/python", guestbook_image, "-c", ask_for).strip() == "/opt/ginit False"
