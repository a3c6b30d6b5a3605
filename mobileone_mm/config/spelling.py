"""Find the meaning of a mistyped name."""

from collections.abc import Iterable


def within(edits: int, a: str, b: str) -> bool:
    """Return whether at most so many changed, missing, additional or swapped letters lead to b."""
    if not a or not b:
        return len(a) + len(b) <= edits
    if a[0] == b[0]:
        return within(edits, a[1:], b[1:])
    rests = [(a[1:], b[1:]), (a[1:], b), (a, b[1:])]
    if a[:2] == b[1::-1]:
        rests.append((a[2:], b[2:]))
    return edits > 0 and any(within(edits - 1, *rest) for rest in rests)


def mistyped(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that a name probably stands for, or None.

    A name of up to nine letters may differ by one letter, a longer one by two.
    """
    others = sorted(other for other in known if other != name)
    allowed = (1,) if len(name) <= 9 else (1, 2)
    return next((b for edits in allowed for b in others if within(edits, name, b)), None)


def did_you_mean(name: str, known: Iterable[str], listed: bool = True) -> str:
    """Return ``; did you mean 'x'?``, a list of what is allowed, or an empty string."""
    known = sorted(known)
    if near := mistyped(name, known):
        return f"; did you mean '{near}'?"
    return f'; allowed: {", ".join(known)}' if listed and 0 < len(known) <= 24 else ''
