"""A web application that logs each request as a JSON object, and says goodbye on TERM."""

import json
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def log(**fields: object) -> None:
    """Log one JSON object; flushed, so that it isn't in a buffer when somebody looks."""
    print(json.dumps(fields), flush=True)


class Handler(BaseHTTPRequestHandler):
    """Says hello, unless it is asked to crash."""

    def do_GET(self) -> None:
        """Answer a request."""
        if self.path == "/crash":
            os._exit(4)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello\n")

    def log_request(self, code: object = "-", _size: object = "-") -> None:
        """Log an answer."""
        log(event="request", path=self.path, status=code)


signal.signal(signal.SIGTERM, lambda *_: sys.exit())
with ThreadingHTTPServer(("", 8000), Handler) as server:
    log(event="listening", port=8000)
    try:
        server.serve_forever()
    finally:
        log(event="stopped")
