"""The directory of services: what is in it."""

from __future__ import annotations

import os


def find_services(directory: bytes) -> list[bytes]:
    """The paths of the services in a directory, in the order of their names.

    A service is a directory, or a link to one, whose name doesn't begin with a dot.

    Raises:
        OSError: the directory can't be read.
    """
    with os.scandir(directory) as entries:
        names = sorted(entry.name for entry in entries if not entry.name.startswith(b".") and _is_directory(entry))
    return [os.path.join(directory, name) for name in names]


def _is_directory(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link that leads nowhere, or in circles
