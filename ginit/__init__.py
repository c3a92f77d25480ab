"""ginit: a process manager and init (PID 1) for containers, on gevent."""

__version__ = "0.1.0"
