"""The guestbook's WSGI application, on gevent: it hands entries to the worker by way of redis, and waits for the result."""

from gevent import monkey

monkey.patch_all()  # before anything else is imported: the client for redis has to wait as gevent does

# ruff: noqa: E402
import json
import os
import signal
from http import HTTPStatus
from typing import Any, Callable, Dict, Iterable, Tuple

import gevent
from common import ENTRIES, JOBS, connect, done, log
from gevent import socket
from gevent.pywsgi import WSGIServer
from redis import RedisError

Answer = Tuple[HTTPStatus, object]


class Guestbook:
    """The application."""

    def __init__(self, patience: float, release: str) -> None:
        """
        Args:
            patience: seconds to wait until an entry is published.
            release: what /health says is running.
        """
        self._store = connect()
        self._patience = patience
        self._release = release
        self._routes: Dict[Tuple[str, str], Callable[[Dict[str, Any]], Answer]] = {
            ("GET", "/alive"): self._alive,
            ("GET", "/health"): self._health,
            ("GET", "/entries"): self._read,
            ("POST", "/entries"): self._sign,
        }

    def __call__(self, environ: Dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request with JSON."""
        status, answer = self._answer(environ)
        body = json.dumps(answer).encode() + b"\n"
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        start_response(f"{status.value} {status.phrase}", headers)
        return [body]

    def _answer(self, environ: Dict[str, Any]) -> Answer:
        route = self._routes.get((environ["REQUEST_METHOD"], environ["PATH_INFO"]))
        if route is None:
            return HTTPStatus.NOT_FOUND, {"error": "there are GET and POST /entries, GET /health and GET /alive"}
        try:
            return route(environ)
        except RedisError as error:
            log(event="no store", reason=str(error))
            return HTTPStatus.SERVICE_UNAVAILABLE, {"error": "the store can't be reached"}

    def _alive(self, _environ: Dict[str, Any]) -> Answer:
        """Whether this process does anything at all."""
        return HTTPStatus.OK, {"release": self._release}

    def _health(self, _environ: Dict[str, Any]) -> Answer:
        """Whether requests should come here."""
        self._store.ping()
        return HTTPStatus.OK, {"release": self._release}

    def _read(self, _environ: Dict[str, Any]) -> Answer:
        """The last hundred entries."""
        return HTTPStatus.OK, [json.loads(entry) for entry in self._store.zrevrange(ENTRIES, 0, 99)]

    def _sign(self, environ: Dict[str, Any]) -> Answer:
        try:
            sent = json.loads(environ["wsgi.input"].read())
            entry = {"name": str(sent["name"]), "text": str(sent["text"])}
        except (ValueError, KeyError, TypeError):
            return HTTPStatus.BAD_REQUEST, {"error": 'send an object: {"name": "...", "text": "..."}'}
        request = environ.get("HTTP_X_REQUEST_ID", "")
        job = str(self._store.xadd(JOBS, {"entry": json.dumps(entry), "request": request}))
        log(event="accepted", job=job, request=request)
        if self._store.blpop([done(job)], timeout=self._patience) is None:
            return HTTPStatus.ACCEPTED, {"id": job}  # it isn't lost, it takes longer
        return HTTPStatus.CREATED, {"id": job, **entry}


def listen(path: str) -> socket.socket:
    """Listen on a Unix socket; what an earlier process left at its place is taken away."""
    if os.path.exists(path):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(256)
    return listener


def main() -> None:
    """Serve until TERM, and finish what has begun."""
    guestbook = Guestbook(float(os.environ.get("WAIT_SECONDS", "10")), os.environ.get("RELEASE", ""))
    server = WSGIServer(listen("web.sock"), guestbook, log=None)
    gevent.signal_handler(signal.SIGTERM, server.stop, timeout=5)
    server.start()
    log(event="listening")
    server.serve_forever()
    log(event="stopped")


if __name__ == "__main__":
    main()
