"""When a program that has ended is started again, and after how long."""

from __future__ import annotations

import signal
from itertools import islice
from typing import Iterator

import pytest

from ginit.restart import RestartPolicy

#: Docker's pauses: each is twice the one before, up to a minute.
PAUSES = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 60, 60, 60]
FAILURES = [1, 3, 114, 116, 255, -signal.SIGTERM, -signal.SIGKILL]


def pauses(policy: RestartPolicy, status: int = 1, lived: float = 0.0) -> Iterator[float | None]:
    """The pauses of a program that ends in the same way again and again."""
    restarts = policy.begin()
    while True:
        yield restarts.pause(status, lived)


@pytest.mark.parametrize("status", [0, *FAILURES, 115])
def test_by_default_nothing_is_started_again(status):
    assert list(islice(pauses(RestartPolicy(), status), 3)) == [None] * 3


@pytest.mark.parametrize("mode", ["on-failure", "always"])
@pytest.mark.parametrize("status", FAILURES)
def test_a_failure_is_followed_by_a_restart_after_pauses_that_grow_to_a_minute(mode, status):
    assert list(islice(pauses(RestartPolicy(mode), status), len(PAUSES))) == pytest.approx(PAUSES)


def test_status_0_is_a_reason_for_always_alone():
    assert next(pauses(RestartPolicy("always"), 0)) == 0.1
    assert next(pauses(RestartPolicy("on-failure"), 0)) is None
    assert next(pauses(RestartPolicy("on-failure", 5), 0)) is None


@pytest.mark.parametrize("policy", [RestartPolicy("on-failure"), RestartPolicy("on-failure", 5), RestartPolicy("always")])
def test_a_program_that_has_disabled_itself_is_not_started_again(policy):
    assert next(pauses(policy, 115)) is None


@pytest.mark.parametrize("limit", [0, 1, 4])
def test_a_limit_is_the_number_of_restarts(limit):
    begun = list(islice(pauses(RestartPolicy("on-failure", limit)), limit + 3))
    assert begun[:limit] == pytest.approx(PAUSES[:limit])
    assert begun[limit:] == [None] * 3


def test_a_long_life_gives_no_restart_back():
    assert list(islice(pauses(RestartPolicy("on-failure", 2), 1, 1000.0), 3)) == [0.1, 0.1, None]


@pytest.mark.parametrize("mode", ["on-failure", "always"])
def test_after_ten_seconds_of_life_the_pauses_begin_anew(mode):
    restarts = RestartPolicy(mode).begin()
    lives = [0, 5, 9.99, 10, 0, 0, 9.99, 86400, 1]
    assert [restarts.pause(1, lived) for lived in lives] == pytest.approx([0.1, 0.2, 0.4, 0.1, 0.2, 0.4, 0.8, 0.1, 0.2])


def test_a_minute_isn_t_the_end_of_it():
    restarts = RestartPolicy("always").begin()
    for _ in range(5000):  # more often than a float can be doubled
        last = restarts.pause(1, 0.0)
    assert last == 60
    assert restarts.pause(1, 10.0) == 0.1


def test_the_restarts_of_one_program_don_t_count_for_another():
    policy = RestartPolicy("on-failure", 1)
    first, second = policy.begin(), policy.begin()
    assert first.pause(1, 0.0) == 0.1
    assert first.pause(1, 0.0) is None
    assert second.pause(1, 0.0) == 0.1


@pytest.mark.parametrize("status", [0, 115, *FAILURES])
@pytest.mark.parametrize(("lived", "pause"), [(0.0, 1), (0.99, 1), (1.0, 0), (5.0, 0)])
def test_as_runit_does_it_every_end_is_followed_by_a_restart_after_a_second_if_it_comes_within_one(status, lived, pause):
    assert list(islice(pauses(RestartPolicy("runit"), status, lived), 5)) == [pause] * 5
