"""What the application and the worker have in common: the store, the names in it, and how they log."""

from __future__ import annotations

import json
import os
from typing import Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

#: A stream: the entries that are still to be published, each until it is.
JOBS = "jobs"
#: A sorted set: the published entries as JSON, by the time at which they were sent.
ENTRIES = "entries"


def done(job: str) -> str:
    """The list by which the worker tells the application that a job is done."""
    return f"done:{job}"


def connect() -> Redis[Any]:
    """The store. It is connected to when it is used, and nothing is tried twice: a job might be sent twice then."""
    return Redis.from_url(
        os.environ["REDIS_URL"], decode_responses=True, protocol=2, socket_timeout=60, retry=Retry(NoBackoff(), 0)
    )


def log(**fields: object) -> None:
    """Log one JSON object; flushed, so that it isn't in a buffer when somebody looks."""
    print(json.dumps(fields), flush=True)
