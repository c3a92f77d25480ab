"""docker/swarm.yaml, on a swarm of one node."""

from __future__ import annotations

import json
import subprocess
import uuid
from pathlib import Path

import pytest
from engine import ROOT, Container, wait_for
from machine import cannot

#: Starting and stopping three replicas, one after the other, each as long as its health check and its drain time take.
PATIENCE = 120
VISITORS = Path(__file__).with_name("visitors.py")


def answer(engine, *command):
    """What a command prints on stdout."""
    return engine(*command, stderr=subprocess.DEVNULL).strip()


@pytest.fixture
def swarm(engine):
    """The engine, as a swarm of its own."""
    if answer(engine, "info", "--format", "{{.Swarm.LocalNodeState}}") != "inactive":
        cannot("the engine belongs to a swarm already")
    networks = set(answer(engine, "network", "ls", "--format", "{{.Name}}").split())
    engine("swarm", "init", "--advertise-addr", "127.0.0.1")
    yield engine
    engine("swarm", "leave", "--force")

    def nothing_is_left():
        left = set(answer(engine, "network", "ls", "--format", "{{.Name}}").split()) - networks
        # The first swarm of an engine makes a bridge that stays; it can go as soon as nothing of the swarm uses it.
        engine("network", "rm", *(left & {"docker_gwbridge"}), check=False)
        return not left & {"docker_gwbridge", "ingress"}

    wait_for(nothing_is_left)


@pytest.fixture
def deploy(swarm, guestbook_image):
    """Deploys the stack, or a new release of it, and returns its name.

    Without the routing mesh, as that takes IPVS, which not every kernel has: the name leads to the replicas themselves.
    """
    stack = f"ginit-tests-{uuid.uuid4().hex[:12]}"
    settings = {"GUESTBOOK_IMAGE": guestbook_image, "PUBLISH_MODE": "host", "PORT": "0", "ENDPOINT_MODE": "dnsrr"}

    def deploy(release):
        file = str(ROOT / "docker/swarm.yaml")
        command = ("stack", "deploy", "--resolve-image", "never", "--compose-file", file, stack)
        swarm(*command, environ={**settings, "RELEASE": release})
        return stack

    yield deploy
    swarm("stack", "rm", stack, check=False)
    of_the_stack = ("--filter", f"label=com.docker.stack.namespace={stack}")
    for kind in (("ps", "--all"), ("network", "ls")):
        wait_for(lambda kind=kind: not answer(swarm, *kind, "--quiet", *of_the_stack), PATIENCE)
    swarm("volume", "rm", "--force", f"{stack}_entries")


@pytest.fixture
def visit(swarm, base, deploy):  # noqa: ARG001  they leave before the stack does
    """Starts visitors of a deployed stack, in its network."""
    started = []

    def visit(stack):
        options = ("--network", f"{stack}_default", "--volume", f"{VISITORS}:/visitors.py:ro")
        started.append(Container(swarm, base, "python3", "/visitors.py", "app", options=options))
        return started[-1]

    yield visit
    for container in started:
        swarm("rm", "--force", container.id)


def statuses_of_ended(engine, service):
    """The exit statuses of the service's tasks that were shut down."""
    tasks = answer(engine, "service", "ps", "--quiet", "--filter", "desired-state=shutdown", service).split()
    found = json.loads(answer(engine, "inspect", *tasks))
    return [(task["Status"]["State"], task["Status"]["ContainerStatus"]["ExitCode"]) for task in found]


def test_a_rolling_update_loses_no_request(swarm, deploy, visit):
    stack = deploy("1")
    wait_for(lambda: set(answer(swarm, "service", "ls", "--format", "{{.Replicas}}").split()) == {"3/3", "1/1"}, PATIENCE)
    visitors = visit(stack)
    visitors.wait_for_line('{"release": "1"}')

    deploy("2")
    state = ("service", "inspect", "--format", "{{.UpdateStatus.State}}", f"{stack}_app")
    wait_for(lambda: answer(swarm, *state) == "completed", PATIENCE)
    # What was stopped has gone, and the visitors have seen all of it.
    wait_for(lambda: statuses_of_ended(swarm, f"{stack}_app") == [("shutdown", 0)] * 3, PATIENCE)
    visitors.wait_for_line('{"release": "2"}')
    assert visitors.stop("--time", "60") == 0

    result = json.loads(visitors.stdout()[-1])
    assert result["failures"] == []
    assert set(result["releases"]) == {"1", "2"}
    assert len(set(result["sent"])) == sum(result["releases"].values())
