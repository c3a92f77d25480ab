"""What holds for all tests: where programs are looked for, with what umask, and what is said of those that were skipped."""

from __future__ import annotations

import os
from collections import Counter

import pytest

#: Where Debian has programs that it doesn't put on the path of an ordinary user: nginx, for one.
_DIRECTORIES = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def pytest_configure() -> None:
    path = os.environ.get("PATH", os.defpath).split(os.pathsep)
    os.umask(0o022)  # what the modes of files are compared with
    os.environ["PATH"] = os.pathsep.join([*path, *(directory for directory in _DIRECTORIES if directory not in path)])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was skipped: a line for each reason, with the number of tests, the most first."""
    reasons = Counter(_reason(report) for report in terminalreporter.getreports("skipped"))
    if reasons:
        terminalreporter.section("what was skipped")
    for reason, count in reasons.most_common():
        terminalreporter.line(f"{count} {'test' if count == 1 else 'tests'}: {reason}")


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    _, _, message = report.longrepr
    return message.partition("Skipped: ")[2] or message
