"""A random search: hypothesis draws cases, real processes are run for each, and a case that fails can be run again.

`make test` runs a few cases of each search, `SOAK_CASES=2000 make soak` many. Variables:

- `SOAK_CASES`: how many cases.
- `SOAK_PARTS`: among how many tests they are shared out, which can then run at the same time; each has a seed of its own.
- `CASE`: run this case alone, `SOAK_CASES` times (once, where that isn't set): a failure prints it.

`--hypothesis-seed` has a search draw the same cases again.
"""

from __future__ import annotations

import contextlib
import os
import random
import shlex
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator

import hypothesis
import pytest
from harness import Services
from hypothesis import HealthCheck, Phase
from hypothesis.strategies import SearchStrategy

PARTS = int(os.environ.get("SOAK_PARTS", "1"))
#: How many cases there are between two reports of progress.
_PROGRESS = 50
#: Seconds to look for a simpler case than the first that has failed.
_SIMPLIFYING = 90


def in_parts(test: Callable[..., None]) -> Callable[..., None]:
    """Have a test for each part of a search. A long search may take any time; a short one, what a hang and simpler cases take."""
    limited = pytest.mark.timeout(0 if "SOAK_CASES" in os.environ else 600)(test)
    return pytest.mark.parametrize("part", range(PARTS))(limited)


def search(
    request: pytest.FixtureRequest, part: int, cases: SearchStrategy[Any], check: Callable[[Any], None], *, few: int
) -> None:
    """Have cases checked, as many and in the way that the environment says.

    Args:
        request: the test's.
        part: which part of the search this is, counted from 0.
        cases: what the cases are drawn from; `repr` of one has to be a Python expression in terms of the test's module.
        check: raises where a case isn't as it should be.
        few: how many cases there are where the environment says nothing.
    """
    text = os.environ.get("CASE")
    if text:
        for _ in range(int(os.environ.get("SOAK_CASES", "1"))):
            check(eval(text, vars(request.module)))
        return
    wanted = os.environ.get("SOAK_CASES")
    count = few if wanted is None else -(-int(wanted) // PARTS)
    given = request.config.getoption("--hypothesis-seed")
    seed = part + (random.SystemRandom().randrange(2**31) if given in (None, "random") else int(given))
    run = _Run(check, count, seed, f"{request.path}::{request.function.__name__}", report=wanted is not None)
    settings = hypothesis.settings(
        max_examples=count,
        database=None,
        deadline=None,
        derandomize=False,
        phases=[Phase.generate, Phase.shrink],
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    hypothesis.seed(seed)(settings(hypothesis.given(cases)(run.check)))()


@contextlib.contextmanager
def case_services(services: Iterable[Any], add: Callable[[Services, str, Any], None]) -> Iterator[tuple[Services, Path]]:
    """A directory for one case, with its services: `s0`, `s1`, and so on, made by `add`; it is removed afterwards."""
    with tempfile.TemporaryDirectory() as directory:
        made = Services(Path(directory) / "service")
        for number, service in enumerate(services):
            add(made, f"s{number}", service)
        yield made, Path(directory)


class _Run:
    """One run of a search."""

    def __init__(self, check: Callable[[Any], None], count: int, seed: int, test: str, *, report: bool) -> None:
        self._check = check
        self._count = count
        self._seed = seed
        self._test = test
        self._reports = report
        self._begun = time.monotonic()
        self._done = 0
        self._failures: dict[str, AssertionError] = {}
        self._first_failure = 0.0
        self._report("begins")

    def check(self, case: Any) -> None:
        text = repr(case)
        if text in self._failures:
            # Tried again it might succeed, and hypothesis would complain of that instead of saying what has failed.
            raise self._failures[text]
        if self._failures and time.monotonic() > self._first_failure + _SIMPLIFYING:
            return  # that's simple enough
        self._done += 1
        try:
            self._check(case)
        except Exception as error:  # noqa: BLE001  (whatever it is)
            self._first_failure = self._first_failure or time.monotonic()
            if not self._failures:
                self._report(
                    f"has found a failure: {type(error).__name__}: {error!s:.500}\nin {text}\nand looks for a simpler case"
                )
            self._failures[text] = AssertionError(f"{type(error).__name__}: {error}\n\n{self._advice(text)}")
            self._failures[text].__cause__ = error
        if text in self._failures:
            raise self._failures[text]
        if self._done % _PROGRESS == 0 and not self._failures:
            self._report("goes on")

    def _advice(self, text: str) -> str:
        python = shlex.quote(sys.executable)
        return (
            f"seed {self._seed}, case {self._done}\n\nThis case again:\n"
            f"CASE={shlex.quote(text)} {python} -m pytest {self._test}\n\nThe whole search again:\n"
            f"SOAK_CASES={self._count} {python} -m pytest --hypothesis-seed={self._seed} {self._test}"
        )

    def _report(self, what: str) -> None:
        if self._reports:
            seconds = time.monotonic() - self._begun
            name = self._test.rsplit("::", 1)[-1]
            message = f"{name}, seed {self._seed}: {what}; {self._done} of {self._count} cases in {seconds:.0f} s\n"
            os.write(2, message.encode())
