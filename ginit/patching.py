"""Monkey-patching: `signal` and `subprocess` become gevent's; and what of gevent ginit has no use for.

The hub's watcher waits for every child there is (see `processes.reaper`), so whatever in this process starts one by the
standard library must go by gevent too, which gets the status from the same place. `processes.child` starts ginit's own.

Item by item, because gevent's `patch_signal()` and `patch_subprocess()` look for plug-ins among all installed packages
before they patch, which takes 50 ms.
"""

from __future__ import annotations

from types import ModuleType

from gevent.monkey import patch_item  # type: ignore[attr-defined]


def patch_signal() -> None:
    """Patch `signal`, and keep gevent fast and small; to be called before there is a hub."""
    import signal

    import gevent.signal

    _patch(signal, gevent.signal)
    # Where each greenlet was spawned, with ten frames of the stack: a kilobyte each, and there may be thousands.
    gevent.config.track_greenlet_tree = False
    # What the hub formats its errors with. The default takes 9 ms to import, and ginit's errors go another way.
    gevent.config.format_context = "builtins.repr"


def patch_subprocess() -> None:
    """Patch `subprocess`: 10 ms, so it waits until the services are on their way."""
    import subprocess

    import gevent.subprocess

    _patch(subprocess, gevent.subprocess)


def _patch(target: ModuleType, source: ModuleType) -> None:
    for name in source.__implements__:
        # What is private stays: gevent has None in place of what the standard library's own Popen forks with.
        if not name.startswith("_"):
            patch_item(target, name, getattr(source, name))
