"""The examples as they run from a checkout, without a container."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from download import LARGE, Download
from harness import wait_for
from machine import cannot, free_port, install, require

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
AS_ROOT = os.geteuid() == 0


@pytest.fixture
def directory():
    """A directory that a service's own user may enter."""
    with tempfile.TemporaryDirectory(prefix="ginit-") as path:
        os.chmod(path, 0o755)
        yield Path(path)


@pytest.fixture
def start_example(start, directory):
    """Starts an example; `without` names a file of the service that is left out."""

    def start_example(name, without=None, **environ):
        services = EXAMPLES / name / "service"
        if without is not None:
            services = shutil.copytree(services, directory / "service", ignore=shutil.ignore_patterns(without))
        # In a namespace that isn't root's, PostgreSQL and nginx would take themselves for root, and find that they aren't.
        return start(str(services), env={key: str(value) for key, value in environ.items()}, popen={"namespace": AS_ROOT})

    return start_example


# nginx.


@pytest.fixture
def download(start_example, directory):
    """Starts nginx and asks it for something large; `without` is as for `start_example`."""
    require("nginx")
    (directory / "pages").mkdir(mode=0o755)
    with (directory / "pages" / "large").open("wb") as file:
        file.truncate(LARGE)

    def download(without=None):
        port = free_port()
        places = {"NGINX_ROOT": directory / "pages", "NGINX_STATE": directory / "state"}
        ginit = start_example("nginx", without, NGINX_LISTEN=f"127.0.0.1:{port}", **places)
        ginit.wait_for_line("start worker process ", "stderr")
        return ginit, Download("127.0.0.1", port, "/large")

    return download


def test_nginx_answers_what_it_has_been_asked_before_it_stops(download):
    ginit, answer = download()
    ginit.kill()
    ginit.wait_for_line("gracefully shutting down", "stderr")
    assert answer.finish() == LARGE
    assert ginit.wait() == 0
    (request,) = map(json.loads, ginit.stdout.lines)
    assert (request["service"], request["uri"], request["status"], request["bytes"]) == ("nginx", "/large", "200", LARGE)


def test_without_its_terminate_nginx_cuts_its_connections(download):
    ginit, answer = download(without="terminate")
    assert ginit.stop() == 0
    assert answer.finish() < LARGE


# Redis.


def test_redis_saves_when_it_is_stopped(start_example, directory):
    require("redis-server", "redis-cli")
    port = free_port()

    def run(*command):
        ginit = start_example("redis", REDIS_PORT=port, REDIS_DATA=directory / "data")
        ginit.wait_for_line("Ready to accept connections", "stderr")
        answer = subprocess.check_output(["redis-cli", "-p", str(port), *command], text=True).strip()
        assert ginit.stop() == 0
        return answer

    assert run("SET", "key", "value") == "OK"
    assert run("GET", "key") == "value"


# PostgreSQL.


class Database:
    """The example's PostgreSQL, on the same data at each start."""

    def __init__(self, start_example, directory):
        self.data = directory / "data"
        self._start_example = start_example
        self._port = free_port()
        self._clients = []

    def begin(self, without=None):
        places = {"POSTGRES_DATA": self.data, "PGHOST": self.data, "PGPORT": self._port}
        return self._start_example("postgresql", without, **places)

    def start(self, without=None):
        """Start it, and wait until it's up."""
        ginit = self.begin(without)
        ginit.wait_for_line("database system is ready to accept connections", "stderr")
        return ginit

    def psql(self, query):
        as_its_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"] if AS_ROOT else []
        command = [*as_its_user, "psql", "--host", str(self.data), "--port", str(self._port), "-Atc", query, "postgres"]
        self._clients.append(subprocess.Popen(command, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True))
        return self._clients[-1]

    def client_at_work(self):
        """A client that has asked for something that takes long."""
        client = self.psql("SELECT pg_sleep(1000)")
        at_work = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        wait_for(lambda: self.psql(at_work).communicate()[0].strip() == "1", "a client at work")
        return client

    def close(self):
        for client in self._clients:
            with client:
                client.kill()


@pytest.fixture
def database(start_example, directory):
    require("psql")
    if not shutil.which("postgres") and not list(Path("/usr/lib/postgresql").glob("*/bin/postgres")):
        cannot("PostgreSQL isn't installed", install("postgresql"))
    database = Database(start_example, directory)
    yield database
    database.close()


def stop(ginit):
    assert ginit.stop() == 0


def kill(ginit):
    """End everything at once, and wait until it's gone."""
    processes = ginit.descendants()
    ginit.destroy()
    wait_for(lambda: not any(process.is_running() for process in processes), "the end of what was killed")


def was_closed(ginit):
    """Whether a start found a database that had been closed."""
    recovered = "not properly shut down" in ginit.stderr.text
    assert recovered is not ("database system was shut down at" in ginit.stderr.text)
    return not recovered


def test_postgresql_is_closed_though_a_client_is_at_work(database):
    ginit = database.start()
    client = database.client_at_work()
    stop(ginit)
    assert client.wait(60) != 0
    ginit = database.start()
    assert was_closed(ginit)
    stop(ginit)


def test_without_its_terminate_postgresql_waits_for_its_client_and_is_not_closed_when_it_is_killed(database):
    ginit = database.start(without="terminate")
    client = database.client_at_work()
    ginit.kill()
    ginit.wait_for_line("received smart shutdown request", "stderr")
    assert client.poll() is None
    kill(ginit)
    assert not was_closed(database.start())


@pytest.mark.parametrize("end", [stop, kill])
def test_a_first_start_of_postgresql_that_is_ended_leaves_nothing_half_made(database, end):
    ginit = database.begin()
    wait_for((database.data / "unfinished" / "PG_VERSION").exists, "a database half made")
    end(ginit)
    ginit = database.start()
    assert was_closed(ginit)
    stop(ginit)
