"""The timer calls in turns, counts nothing of the warm-up, and keeps to its budget."""

from types import SimpleNamespace

import pytest

from mobileone_mm.benchmark import timer
from mobileone_mm.benchmark.timer import interleaved


@pytest.fixture
def clock(monkeypatch):
    """Seconds of a clock that only the timed functions move."""
    now = [0.0]
    monkeypatch.setattr(timer, 'time', SimpleNamespace(perf_counter=lambda: now[0]))
    return now


def test_turns_and_warm_up(clock):
    calls = []

    def slow():
        calls.append('slow')
        clock[0] += 10 if len(calls) == 1 else 2  # the warm-up takes longer

    times = interleaved({'slow': slow, 'fast': lambda: calls.append('fast')}, 3, warm_up=1)
    assert calls == ['slow', 'fast'] * 4
    assert times == {'slow': [2, 2, 2], 'fast': [0, 0, 0]}


@pytest.mark.parametrize(('budget', 'rounds'), [(0, 3), (5.5, 6), (1000, 50)])
def test_budget_ends_the_rounds_after_the_third(clock, budget, rounds):
    def second():
        clock[0] += 1

    assert interleaved({'a': second}, 50, budget=budget)['a'] == [1] * rounds
