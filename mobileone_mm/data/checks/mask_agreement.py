"""Check that the masks of training and evaluation are renumbered in the same way.

With an option in one dataloader alone, a validation compares with other numbers than those that the
model has learned, without a message. The masks of the two may truly have different numbers.
"""

import logging
from collections.abc import Sequence

from mmengine.logging import print_log

from ...errors import InputError, few
from .mask_numbers import MaskSummary
from .summary import SplitSummary


def compare_masks(summaries: Sequence[SplitSummary]) -> None:
    """Compare ``label_map`` and ``reduce_zero_label`` of each dataset with those of the training.

    Raises:
        InputError: The files of both have the same numbers; names the option to set.
    """
    masks = [summary for summary in summaries if isinstance(summary, MaskSummary)]
    trained = [mask for mask in masks if mask.path.startswith('train_dataloader')]
    for other in masks:
        _compare_present(trained, other)
        similar = [
            mask
            for mask in trained
            if mask.kind == other.kind and len(mask.by_class) == len(other.by_class)
        ]
        faults = [_fault(mask, other) for mask in similar]
        if faults and all(faults):
            text, same = faults[0]  # type: ignore[misc]
            if same:
                raise InputError(text)
            print_log(text, 'current', logging.WARNING)


def _compare_present(trained: Sequence[MaskSummary], other: MaskSummary) -> None:
    """Warn of classes that only the masks of an evaluation have; a part of the masks proves nothing."""
    if not trained or not all(mask.is_complete for mask in trained):
        return
    # By number: two class lists may have other names for it.
    known = {n for mask in trained for n, pixels in enumerate(mask.by_class.values()) if pixels}
    present = [(n, name) for n, (name, pixels) in enumerate(other.by_class.items()) if pixels]
    if unknown := [name for n, name in present if n not in known]:
        text = (
            f'{other.path}: its masks have pixels of {few(unknown)}, the training masks none; are the '
            'numbers in both the same (label_map, reduce_zero_label)?'
        )
        print_log(text, 'current', logging.WARNING)


def _fault(train: MaskSummary, other: MaskSummary) -> tuple[str, bool] | None:
    """Return how two datasets differ, and whether their files have the same numbers."""
    for mapped, plain in ((train, other), (other, train)):
        changed = {n: new for n, new in mapped.label_map.items() if n in plain.numbers and n != new}
        if plain.label_map or not changed:
            continue
        found = [changed.get(number, number) for number in plain.numbers]
        return _text(
            f'{mapped.loader}.label_map is {dict(mapped.label_map)}, but {plain.loader} has none',
            plain,
            f'{plain.loader}.label_map="{dict(mapped.label_map)}", or remove the other one',
        ), sorted(found) == sorted(mapped.numbers)
    if train.reduces == other.reduces:
        return None
    name = 'reduce_zero_label'
    return _text(
        f'{train.path}.{name} is {train.reduces}, but {other.path}.{name} is {other.reduces}',
        other,
        f'{other.path}.{name}={train.reduces}, or {train.path}.{name}={other.reduces}',
    ), train.numbers.keys() == other.numbers.keys()


def _text(what: str, summary: MaskSummary, option: str) -> str:
    numbers = ', '.join(map(str, list(summary.numbers)[:8]))
    return (
        f"{what}; the masks of '{summary.source}' have the numbers {numbers}: if they mean the same "
        f'as those of the other dataset, set {option}'
    )
