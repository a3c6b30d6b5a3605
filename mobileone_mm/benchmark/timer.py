"""The timer of the project: functions in turns, a warm-up, every duration kept."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch


def interleaved(
    functions: Mapping[str, Callable[[], Any]],
    repeats: int,
    warm_up: int = 1,
    budget: float | None = None,
    device: torch.device | str = 'cpu',
) -> dict[str, list[float]]:
    """Time functions in turns, because the speed of a machine drifts.

    Returns the seconds of each counted call, by name. Report the median of each function, and compare
    functions of one call only.

    Args:
        functions: What is timed, by name.
        repeats: Rounds that count; each round calls every function once.
        warm_up: Rounds before them, which fill caches and start workers.
        budget: Seconds after which no further round starts; at least three rounds count.
        device: Where the functions run; the timer waits for a GPU.
    """

    def synchronize() -> None:
        if torch.device(device).type == 'cuda':
            torch.cuda.synchronize(device)

    seconds: dict[str, list[float]] = {name: [] for name in functions}
    end = float('inf')
    for turn in range(warm_up + repeats):
        if turn == warm_up and budget is not None:
            end = time.perf_counter() + budget
        if turn >= warm_up + 3 and time.perf_counter() > end:
            break
        for name, function in functions.items():
            synchronize()
            start = time.perf_counter()
            function()
            synchronize()
            if turn >= warm_up:
                seconds[name].append(time.perf_counter() - start)
    return seconds
