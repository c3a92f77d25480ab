"""The examples' images, and what a stop is to a program that is at work."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import uuid

import pytest
from download import LARGE, Download
from engine import LABEL, ROOT, Container

sys.path.append(str(ROOT))  # behind the installation, so that it's the installed ginit that is tested

from benchmarks.postgresql_stops import stop_while_busy

#: What each prints when it takes requests.
READY = {
    "nginx": "start worker process ",
    "redis": "Ready to accept connections",
    "postgresql": "database system is ready to accept connections",
}


@pytest.fixture(scope="session")
def build_example(engine, image):
    """Builds an example's image, once."""
    built = {}

    def build_example(name):
        if name not in built:
            context = ROOT / "examples" / name
            built[name] = engine.build(str(context / "Dockerfile"), context=context, BASE_IMAGE=image)
        return built[name]

    return build_example


@pytest.fixture
def start_example(engine, build_example):
    """Starts an example's container, with options of `docker run`, and waits until it takes requests."""
    started = []

    def start_example(name, *options):
        container = Container(engine, build_example(name), options=options)
        started.append(container)
        container.wait_for_line(READY[name], "stderr")
        return container

    yield start_example
    for container in started:
        engine("rm", "--force", "--volumes", container.id)


@pytest.fixture
def volume(engine):
    name = f"ginit-tests-{uuid.uuid4().hex}"
    engine("volume", "create", "--label", LABEL, name)
    yield name
    engine("volume", "rm", name)


@pytest.mark.parametrize(
    ("name", "options"),
    [("nginx", ()), ("redis", ()), ("postgresql", ("--user", "postgres"))],
)
def test_an_example_takes_no_privilege_and_writes_to_its_own_places_only(start_example, name, options):
    restrictions = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
    container = start_example(name, *restrictions, *options)
    assert container.stop("--time", "60") == 0
    assert not [line for line in container.stderr() if " ginit: " in line]


# nginx.

PAGES = ("--env", "NGINX_ROOT=/tmp/pages")


def download(container):
    container.exec("sh", "-c", f"mkdir /tmp/pages && truncate --size {LARGE} /tmp/pages/large")
    (network,) = container.inspect()["NetworkSettings"]["Networks"].values()
    return Download(network["IPAddress"], 8080, "/large")


def test_nginx_answers_what_it_has_been_asked_before_the_container_ends(engine, start_example):
    container = start_example("nginx", *PAGES)
    answer = download(container)
    stop = engine.popen("stop", "--time", "60", container.id, stdout=subprocess.DEVNULL)
    container.wait_for_line("gracefully shutting down", "stderr")
    assert answer.finish() == LARGE
    assert stop.wait(60) == 0
    assert container.wait() == 0
    (request,) = map(json.loads, container.stdout())
    assert (request["service"], request["uri"], request["status"], request["bytes"]) == ("nginx", "/large", "200", LARGE)


def test_without_its_terminate_nginx_cuts_its_connections(services, start, build_example):
    service = ROOT / "examples" / "nginx" / "service" / "nginx"
    shutil.copytree(service, services.path / "nginx", ignore=shutil.ignore_patterns("terminate"))
    container = start(*PAGES, image=build_example("nginx"))
    container.wait_for_line(READY["nginx"], "stderr")
    answer = download(container)
    assert container.stop("--time", "60") == 0
    assert answer.finish(patience=1) < LARGE  # the container's network is gone, so no more is to come


# Redis.


# In this order, so that the containers are gone when the volume is to go.
def test_redis_has_its_data_after_a_stop_and_in_a_new_container(volume, engine, start_example):
    options = ("--volume", f"{volume}:/var/lib/redis")
    container = start_example("redis", *options)
    assert container.exec("redis-cli", "SET", "key", "value").strip() == "OK"
    assert container.stop("--time", "60") == 0
    engine("start", container.id)
    container.wait_for_line(READY["redis"], "stderr", count=2)
    assert container.exec("redis-cli", "GET", "key").strip() == "value"
    assert container.exec("redis-cli", "SET", "key", "another").strip() == "OK"
    assert container.stop("--time", "60") == 0
    assert start_example("redis", *options).exec("redis-cli", "GET", "key").strip() == "another"


# PostgreSQL.


def test_postgresql_is_closed_each_time_its_container_is_stopped_while_it_is_busy(engine, start_example):
    container = start_example("postgresql")
    stops = list(stop_while_busy(engine, container.id, 3))
    assert [(stop.status, stop.clean) for stop in stops] == [(0, True)] * 3
