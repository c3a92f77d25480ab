"""A gevent WSGI application that logs a JSON object for each request, and finishes what it has begun on TERM."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import time
from typing import Any, Callable, Iterable

import gevent
from gevent.pywsgi import WSGIServer


def log(**fields: object) -> None:
    """Log one JSON object; flushed, so that it isn't in a buffer when somebody looks."""
    print(json.dumps(fields), flush=True)


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer every request with its path."""
    started = time.perf_counter()
    body = f"You asked for {environ['PATH_INFO']}\n".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    log(event="request", path=environ["PATH_INFO"], status=200, ms=round((time.perf_counter() - started) * 1000, 3))
    return [body]


def read_port() -> int:
    """The port to listen on."""
    text = os.environ.get("DEMO_PORT") or "8080"
    if not (text.isdecimal() and 0 < int(text) < 65536):
        sys.exit(f"DEMO_PORT is no port: {text}")
    return int(text)


def main() -> None:
    """Serve until TERM."""
    port = read_port()
    server = WSGIServer(("127.0.0.1", port), application, log=None)
    # Ctrl-C in a terminal reaches every process in it; here TERM alone decides, and that comes from ginit.
    gevent.signal_handler(signal.SIGINT, lambda: None)
    gevent.signal_handler(signal.SIGTERM, server.stop, timeout=5)
    try:
        server.start()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            sys.exit(f"another program listens on port {port} already; choose another port, as in `DEMO_PORT=18080 make run`")
        sys.exit(f"can't listen on port {port}: {error.strerror}")
    log(event="listening", port=port)
    server.serve_forever()
    log(event="stopped")


if __name__ == "__main__":
    main()
