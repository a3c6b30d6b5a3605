"""``labels.txt`` of a packed dataset against the images and classes that are there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ...errors import InputError
from .packs import LABELS, Pack
from .tar_members import NO_LABEL

_ADVICE = 'remove it, or pack the dataset again'


def listed_places(
    pack: Pack, labels: Mapping[str, int], with_label: bool = True
) -> dict[str, int] | None:
    """The place of each image in the list, by name; None without a list.

    In shards the classes are in the members beside the images, and the list gives the order; one
    that says other classes was meant to count, or belongs to other shards.

    Args:
        pack: The packed dataset.
        labels: Class of each image that is there, by name.
        with_label: Whether the classes matter.

    Raises:
        InputError: The list is malformed, has other images than there are, or other classes.
    """
    listing = pack.listing()
    if listing is None:
        return None
    file = pack.folder / LABELS
    places: dict[str, int] = {}
    others = []
    for place, (name, label) in enumerate(listing):
        places[name] = place
        if name not in labels:
            raise _other_images(file, f"'{name}', line {place + 1}, is not there")
        if label not in (NO_LABEL, labels[name]):
            others.append((name, label))
    if len(places) < len(labels):
        name = next(name for name in labels if name not in places)
        raise _other_images(file, f"'{name}' is missing in it")
    if others and with_label:
        name, label = others[0]
        found = 'none' if labels[name] == NO_LABEL else labels[name]
        raise InputError(
            f"'{file}': '{name}' has class {label}, its .cls or .json member in the shards {found} "
            f'({len(others)} of {len(labels)} images differ); the shards hold the classes, this '
            f'list the order: {_ADVICE}'
        )
    return places


def _other_images(file: Path, reason: str) -> InputError:
    return InputError(
        f"'{file.parent}': {LABELS} lists other images than there are: {reason}; {_ADVICE}"
    )
