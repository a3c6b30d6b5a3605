"""The timer calls in turns, counts nothing of the warm-up, and keeps to its budget."""

from __future__ import annotations

import time

import pytest

from mobileone_mm.benchmark.timer import interleaved


def test_turns_and_warm_up():
    calls = []

    def slow():
        calls.append('slow')
        time.sleep(0.2 if len(calls) < 3 else 0.02)  # the warm-up is ten times slower

    times = interleaved({'slow': slow, 'fast': lambda: calls.append('fast')}, 3, warm_up=1)
    assert calls == ['slow', 'fast'] * 4
    assert [len(seconds) for seconds in times.values()] == [3, 3]
    assert all(0.02 <= seconds < 0.15 for seconds in times['slow'])
    assert max(times['fast']) < 0.02


@pytest.mark.parametrize(('budget', 'most'), [(0.0, 3), (0.2, 12)])
def test_budget_ends_the_rounds_after_the_third(budget, most):
    rounds = interleaved({'a': lambda: time.sleep(0.02)}, 50, budget=budget)['a']
    assert 3 <= len(rounds) <= most
