"""What the tests need of the machine: where it's missing they are skipped, and fail in CI, where nothing may be missing."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def require(tool: str) -> None:
    """Skip where a tool is missing; fail in CI, where none may be."""
    if shutil.which(tool) is None:
        cannot(f"{tool} isn't installed")


def cannot(message: str) -> NoReturn:
    """Skip, for a reason that this machine gives; fail in CI."""
    (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(message)
