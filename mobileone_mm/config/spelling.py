"""Find the meaning of a mistyped name."""

from collections.abc import Iterable


def edit_distance(a: str, b: str) -> int:
    """Return the restricted Damerau-Levenshtein distance of two names.

    It counts changed, missing and additional letters, and swaps of neighbours.
    """
    previous: list[int] = []
    current = list(range(len(b) + 1))
    for i, letter in enumerate(a, 1):
        before, previous = previous, current
        current = [i]
        for j, other in enumerate(b, 1):
            cost = min(previous[j] + 1, current[j - 1] + 1, previous[j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == b[j - 2] and other == a[i - 2]:
                cost = min(cost, before[j - 2] + 1)
            current.append(cost)
    return current[-1]


def mistyped(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that a name probably stands for, or None.

    A name of up to nine letters may differ by one letter, a longer one by two.
    """
    near = [(edit_distance(name, other), other) for other in known if other != name]
    allowed = 1 if len(name) <= 9 else 2
    distance, other = min(near, default=(allowed + 1, ''))
    return other if distance <= allowed else None


def did_you_mean(name: str, known: Iterable[str], listed: bool = True) -> str:
    """Return ``; did you mean 'x'?``, a list of what is allowed, or an empty string."""
    known = sorted(known)
    if near := mistyped(name, known):
        return f"; did you mean '{near}'?"
    return f'; allowed: {", ".join(known)}' if listed and 0 < len(known) <= 24 else ''
