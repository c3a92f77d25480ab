"""runsvdir(8)'s command line, and the settings that make ginit do as runsvdir."""

from __future__ import annotations

import os

from ..restart import RestartPolicy
from ..settings import SPARE, Settings

#: What counts in runsvdir's place where the environment says nothing.
DEFAULTS = Settings()._replace(
    json_stdout=False, reparenting_policy=SPARE, restart=RestartPolicy("runit"), supervise=True, runsvdir=True
)


class UsageError(Exception):
    """Arguments that runsvdir doesn't take; the text says which it takes."""


def parse(name: str, arguments: list[str]) -> tuple[bytes, bool]:
    """Read `[-P] dir [log]`, as runsvdir does: the first letter of an option counts, and what comes after `log` doesn't.

    Args:
        name: what the command is called by.
        arguments: the rest.

    Returns:
        The directory of services, and whether each process gets a session of its own. The log that readproctitle-like
        programs keep in their own command line is accepted and not kept: what would be in it is on stderr.

    Raises:
        UsageError: there is no directory.
    """
    sessions = False
    if arguments and arguments[0].startswith(("-P", "--")):
        sessions = arguments[0].startswith("-P")
        arguments = arguments[1:]
    if not arguments:
        raise UsageError(f"usage: {name} [-P] dir")
    return os.fsencode(arguments[0]), sessions
