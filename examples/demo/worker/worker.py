"""A worker that asks the web application something every second and logs the answer as JSON."""

from __future__ import annotations

import itertools
import json
import os
import signal
import threading
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener


def log(**fields: object) -> None:
    """Log one JSON object."""
    print(json.dumps(fields), flush=True)


def main() -> None:
    """Work until TERM."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ginit says when to stop
    port = os.environ.get("DEMO_PORT") or "8080"
    here = build_opener(ProxyHandler({}))  # whatever proxy there is, it is for others
    for job in itertools.count(1):
        try:
            with here.open(f"http://127.0.0.1:{port}/job/{job}", timeout=5) as response:
                log(event="job", number=job, answer=response.read().decode().strip())
        except URLError as error:
            log(event="retry", number=job, reason=str(error.reason))
        if stop.wait(1):
            break
    log(event="stopped")


if __name__ == "__main__":
    main()
