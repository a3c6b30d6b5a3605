"""Which sets are evaluated, and where they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from .corruptions import CORRUPTIONS, SEVERITIES, check_names
from .layouts import LAYOUTS, class_folders, corruption_folder, find_sets

# The config's own test set, as it is and with generated corruptions.
OWN_SETS = ('clean', 'generated')
SETS = (*OWN_SETS, *LAYOUTS)


@dataclass(frozen=True)
class Evaluation:
    """One pass over images: a set, or one corruption and severity of it.

    Attributes:
        set: One of :data:`SETS`.
        folder: Of a published set; None for the config's own.
        corruption: Its name; empty for none.
        severity: 1 to 5; 0 for none.
    """

    set: str
    folder: Path | None = None
    corruption: str = ''
    severity: int = 0

    @property
    def name(self) -> str:
        """Such as ``clean`` or ``generated/fog/3``."""
        return f'{self.set}/{self.corruption}/{self.severity}' if self.corruption else self.set


def make_plan(
    root: str | Path | None = None,
    sets: Sequence[str] | None = None,
    corruptions: Sequence[str] | None = None,
    severities: Sequence[int] | None = None,
    own: bool = True,
) -> list[Evaluation]:
    """The evaluations of a run, in a fixed order.

    Args:
        root: Folder that holds published sets under their names.
        sets: Names of sets, with ``=FOLDER`` for one that is elsewhere; None for those below the
            root with the config's clean test set, or without a root for the config's test set,
            clean and corrupted.
        corruptions: Names; None for all.
        severities: Of 1 to 5; None for all.
        own: Whether the config's test set is there, where ``sets`` does not say that it must be.

    Raises:
        InputError: Something is unknown or missing, or a folder has other classes than it should.
    """
    names, numbers = corruptions or CORRUPTIONS, severities or SEVERITIES
    check_names(list(names), list(numbers))
    plan = []
    for name, folder in _chosen(root, sets, own).items():
        if name not in ('c', 'generated'):
            plan.append(Evaluation(name, folder))
            continue
        for corruption in CORRUPTIONS:
            for severity in SEVERITIES:
                if corruption in names and severity in numbers:
                    where = folder and corruption_folder(folder, corruption, severity)
                    plan.append(Evaluation(name, where, corruption, severity))
    for evaluation in plan:  # now, not after hours
        if evaluation.folder is not None:
            class_folders(evaluation.set, evaluation.folder)
    return plan


def _chosen(
    root: str | Path | None, sets: Sequence[str] | None, own: bool
) -> dict[str, Path | None]:
    found = find_sets(root) if root is not None else {}
    chosen: dict[str, Path | None] = {}
    if sets is not None:
        chosen = dict(_named(entry, root, found) for entry in sets)
    elif root is None:
        chosen = dict.fromkeys(OWN_SETS)
    else:
        chosen = {**({'clean': None} if own else {}), **found}
    return {name: chosen[name] for name in SETS if name in chosen}


def _named(entry: str, root: str | Path | None, found: dict[str, Path]) -> tuple[str, Path | None]:
    name, equals, folder = entry.partition('=')
    if name not in SETS or (equals and (name in OWN_SETS or not folder)):
        raise InputError(
            f"--sets: got '{entry}'; {', '.join(SETS)} are allowed, the last {len(LAYOUTS)} also with "
            '=FOLDER'
        )
    where = Path(folder).expanduser() if equals else found.get(name)
    if where is None and name not in OWN_SETS:
        layout = LAYOUTS[name]
        place = f"not below --root '{root}'" if root is not None else 'of no known place'
        raise InputError(
            f'--sets {name}: {layout.title} is {place}; give its folder as {name}=FOLDER, or --root '
            f'with a folder {" or ".join(layout.folders)} in it'
        )
    if where is not None and not where.is_dir():
        raise InputError(f"--sets {name}: '{where}' is no folder; check the path")
    return name, where
