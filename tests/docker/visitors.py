"""Visitors of the guestbook, without a pause until TERM: `visitors.py HOST`. Prints what came of their requests.

It runs in a container. Each request takes one of the host's addresses and a connection of its own, and nothing is tried
again. What a look-up of the name gave is used for four seconds: longer than the two that a swarm waits between taking a
replica's address away and stopping it, and shorter than these and the drain time together.
"""

import collections
import http.client
import json
import random
import signal
import socket
import sys
import threading
import time

stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
releases = collections.Counter()
failures = []
sent = []


def tell(**fields):
    print(json.dumps(fields), flush=True)  # noqa: T201


class Host:
    """A name, and what it leads to."""

    def __init__(self, name):
        self._name = name
        self._expires = 0

    def address(self):
        if time.monotonic() > self._expires:
            self._addresses = socket.gethostbyname_ex(self._name)[2]
            self._expires = time.monotonic() + 4
        return random.choice(self._addresses)


def request(host, method, path, body=None):
    connection = http.client.HTTPConnection(host.address(), 8080, timeout=60)
    try:
        connection.request(method, path, body, {"Connection": "close"})
        response = connection.getresponse()
        text = response.read().decode()
    finally:
        connection.close()
    if response.status not in (200, 201):
        raise OSError(f"{method} {path}: {response.status} {text}")
    return json.loads(text)


def visit(name):
    host = Host(name)
    while not stop.is_set():
        try:
            release = request(host, "GET", "/health")["release"]
            if not releases[release]:
                tell(release=release)
            releases[release] += 1
            sent.append(request(host, "POST", "/entries", '{"name": "Ada", "text": "hello"}')["id"])
        except (OSError, http.client.HTTPException) as error:
            failures.append(repr(error))
        time.sleep(0.01)


threads = [threading.Thread(target=visit, args=sys.argv[1:]) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
tell(releases=releases, failures=failures, sent=sent)
