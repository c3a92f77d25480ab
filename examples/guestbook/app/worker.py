"""Publishes the entries that were sent. A job is in the stream until its result is stored, so none is lost."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from typing import Any

from common import ENTRIES, JOBS, connect, done, log
from redis import Redis, RedisError, ResponseError

GROUP = "workers"


class Worker:
    """One of those that take jobs."""

    def __init__(self, claim_seconds: float) -> None:
        """
        Args:
            claim_seconds: after which time a job that another worker has taken is taken from it, as that must have died.
        """
        self._store: Redis[Any] = connect()
        self._name = f"{socket.gethostname()}-{os.getpid()}"
        self._claim_ms = int(claim_seconds * 1000)
        self._stop = threading.Event()

    def stop(self) -> None:
        """End when the job in hand is done."""
        self._stop.set()

    def run(self) -> None:
        """Work until it is told to stop, whether the store is there or not."""
        while not self._stop.is_set():
            try:
                self._create_group()
                while not self._stop.is_set():
                    for job, fields in self._take():
                        self._publish(job, fields)
            except RedisError as error:
                log(event="no store", reason=str(error))
                self._stop.wait(1)

    def _create_group(self) -> None:
        try:
            self._store.xgroup_create(JOBS, GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):  # it is there already
                raise

    def _take(self) -> list[tuple[str, dict[str, str]]]:
        """A job that a dead worker has left behind, or a new one, or after a second none."""
        left: Any = self._store.xautoclaim(JOBS, GROUP, self._name, self._claim_ms, count=1)[1]
        if left:
            return list(left)
        new: Any = self._store.xreadgroup(GROUP, self._name, {JOBS: ">"}, count=1, block=1000)
        return list(new[0][1]) if new else []

    def _publish(self, job: str, fields: dict[str, str]) -> None:
        entry = json.dumps({"id": job, **json.loads(fields["entry"])})
        # In one transaction. Nothing in it but depends on the job alone, so that doing it twice is as good as once.
        with self._store.pipeline(transaction=True) as pipe:
            pipe.zadd(ENTRIES, {entry: int(job.split("-")[0])})
            pipe.rpush(done(job), 1)
            pipe.expire(done(job), 60)
            pipe.xack(JOBS, GROUP, job)
            pipe.xdel(JOBS, job)
            pipe.execute()
        log(event="published", job=job, request=fields["request"])


def main() -> None:
    """Work until TERM."""
    worker = Worker(float(os.environ.get("CLAIM_SECONDS", "30")))
    signal.signal(signal.SIGTERM, lambda *_: worker.stop())
    log(event="ready")
    worker.run()
    log(event="stopped")


if __name__ == "__main__":
    main()
