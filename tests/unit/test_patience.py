"""Patience counts down with the clock, but no faster than somebody looks."""

from __future__ import annotations

import pytest

from ginit.patience import Patience, time_to_start


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("ginit.patience.time", clock)
    return clock


def test_it_is_over_when_its_seconds_have_passed(clock):
    patience = Patience(3, step=1)
    seen = []
    for _ in range(4):
        clock.now += 0.9
        seen.append(patience.is_over())
    assert seen == [False, False, False, True]
    assert patience.left == pytest.approx(-0.6)


def test_a_freeze_counts_as_one_step(clock):
    patience = Patience(3, step=1)
    clock.now += 1000
    assert not patience.is_over()
    assert patience.left == 2


def test_none_is_over_at_once():
    assert Patience(0, step=1).is_over()


@pytest.mark.parametrize(("own", "started"), [(0.0, 0.1), (0.045, 0.1), (1.5, 3.0)])
def test_a_program_may_take_as_long_to_start_as_the_machine_is_slow(own, started):
    assert time_to_start(own) == started
