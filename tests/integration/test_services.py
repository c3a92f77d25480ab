"""SPEC: what a service directory is, and what runs in it."""

from __future__ import annotations


def test_a_service_runs_and_its_exit_ends_everything(services, start):
    services.add("web", "echo hello; exit 0")
    ginit = start(JSON_STDOUT="0")
    assert ginit.wait() == 0
    assert [line.split(" ", 1)[1] for line in ginit.stdout.lines] == ["web/run: hello"]
