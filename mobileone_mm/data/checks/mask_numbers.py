"""Check that masks have the numbers of the classes; mmseg trains on any numbers without a word.

Masks of 0 and 255 are the usual fault: 255 is the number for no class, so a net that knows the
background alone reaches an mIoU of 100.
"""

import logging
import random
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import print_log

from ...config.explain import REFUSALS
from ...config.tree import class_of, type_name, walk
from ...errors import InputError, few
from ..datasets import DatasetConfig
from ..exif import DECODING_ERRORS, Header, read_header
from .summary import SplitSummary

# Masks of a large dataset are read up to the first limit that is reached.
MASKS, SECONDS = 100, 1.0
# As long as only one class is found: it may be a rare one.
LONGEST_SECONDS = 5.0


@dataclass(frozen=True)
class MaskSummary(SplitSummary):
    """What a run gets from masks. The pixels by class are those of the masks that were read."""

    loader: str = ''  # path in the config
    numbers: Mapping[int, int] = field(default_factory=dict)  # pixels by number, after label_map
    kind: str = ''  # class of the dataset
    label_map: Mapping[int, int] = field(default_factory=dict)  # of the loader
    reduces: bool = False  # 0 is no class
    renumbered: str = ''  # the class whose numbers the masks have, if a class list changes them
    ignore_index: int = 255
    is_complete: bool = False  # all masks were read

    @property
    def present(self) -> list[str]:
        """The classes that have a pixel."""
        return [name for name, pixels in self.by_class.items() if pixels]


def count_pixels(dataset: DatasetConfig) -> MaskSummary | None:
    """Read masks as the run does and count their pixels by class; None if it loads no masks.

    Reads all masks of a small dataset, else about ``MASKS`` that are spread over it.

    Raises:
        InputError: A mask has a value or a number that the run refuses, or none can be read.
    """
    step, loader = _loader(dataset)
    samples = None if loader is None else dataset.samples
    if loader is None or not samples or 'seg_map_path' not in samples[0]:
        return None
    from ..masks import NUMBERS, class_table

    first = samples[0]
    try:
        reduces = loader.reduces(first['reduce_zero_label'])
        table = class_table(reduces, first.get('label_map'))
        pixels, read = np.zeros(NUMBERS, np.int64), 0
        names = _names(dataset, loader.num_classes)
        start = time.monotonic()
        # In random order: each part of it is spread over the dataset.
        for sample in random.Random(0).sample(samples, len(samples)):
            spent = time.monotonic() - start
            is_enough = len(_classes(pixels, table, loader.ignore_index)) > 1 or len(names) == 1
            is_long = read >= MASKS or spent > SECONDS
            if read and (spent > LONGEST_SECONDS or (is_enough and is_long)):
                break
            found = _count(loader, sample['seg_map_path'], _header(dataset, sample))
            if found is not None:
                numbers = table[np.flatnonzero(found)]
                loader.check_classes(numbers, sample['seg_map_path'], reduces)
                pixels, read = pixels + found, read + 1
    except InputError as error:
        raise InputError(f'{dataset.path}: {error}') from error
    if not read:
        if dataset.settings.get('test_mode'):
            return None
        raise InputError(
            f'{dataset.path}: none of the masks can be read, such as '
            f"'{first['seg_map_path']}': they are no images, or are damaged"
        )
    classes = _classes(pixels, table, loader.ignore_index)
    if not names:
        names = tuple(map(str, range(max(classes, default=0) + 1)))
    return MaskSummary(
        path=dataset.path,
        source=str(Path(first['seg_map_path']).parent),
        unit='pixels',
        counts={'images': len(samples), 'masks read': read},
        left_out={'ignored': int(pixels.sum()) - sum(classes.values())},
        by_class={name: classes.get(number, 0) for number, name in enumerate(names)},
        loader=step,
        numbers={int(n): int(pixels[n]) for n in np.flatnonzero(pixels)},
        kind=dataset.kind.__name__,
        label_map=loader.label_map,
        reduces=reduces,
        renumbered=dataset.kind.__name__ if first.get('label_map') else '',
        ignore_index=loader.ignore_index,
        is_complete=read == len(samples),
    )


def _loader(dataset: DatasetConfig) -> tuple[str, Any]:
    """Return the path of the loader of masks in the pipeline, and ours with its arguments.

    Without such a loader, or if it refuses its arguments, ours is None.
    """
    scope = dataset.settings.get('_scope_')
    for path, step in walk(dataset.settings.get('pipeline'), f'{dataset.path}.pipeline'):
        kind = class_of(step, scope)
        if kind is None or kind.__name__ not in ('LoadAnnotations', 'LoadSegAnnotations'):
            continue
        from mmseg.datasets.transforms import LoadAnnotations

        from ..masks import LoadSegAnnotations

        if kind in (LoadAnnotations, LoadSegAnnotations):
            try:
                return path, LoadSegAnnotations(**{k: v for k, v in step.items() if k != 'type'})
            except REFUSALS:  # the run reports it
                break
    return '', None


def _count(loader: Any, path: str, header: Header | None) -> np.ndarray | None:
    """Count the pixels of each number in a mask, which must have the size of its image.

    None if it cannot be read, which the run reports.
    """
    from ..masks import check_size

    try:
        numbers = loader.read(path)
    except InputError:
        raise
    except DECODING_ERRORS:
        return None
    if header is not None:
        check_size(path, numbers.shape, header[:2], header.orientation)
    return np.bincount(numbers.ravel(), minlength=256)


def _header(dataset: DatasetConfig, sample: Mapping[str, Any]) -> Header | None:
    """Return the header of an image; None if it cannot be read, or another transform loads it."""
    first = type_name(next(iter(dataset.settings.get('pipeline') or ()), None))
    if first.rpartition('.')[2] in ('LoadImage', 'LoadImageFromFile'):
        with suppress(*DECODING_ERRORS):
            return read_header(sample['img_path'], dataset.turns_by_exif)
    return None


def _classes(pixels: np.ndarray, table: np.ndarray, ignore_index: int) -> dict[int, int]:
    """Return the pixels by class number, without the ignored ones."""
    found: dict[int, int] = {}
    for number in np.flatnonzero(pixels):
        label = int(table[number])
        if label != ignore_index:
            found[label] = found.get(label, 0) + int(pixels[number])
    return found


def _names(dataset: DatasetConfig, num_classes: int | None) -> tuple[str, ...]:
    """Return the names of the class numbers; empty if nothing says how many there are."""
    names = dataset.classes or tuple(map(str, range(num_classes or 0)))
    # A head of one channel separates its class, number 1, from the rest.
    return ('background', *names) if num_classes == 2 and len(names) == 1 else names


def check_numbers(summaries: Sequence[SplitSummary]) -> None:
    """Check that the masks of each loader have pixels of several classes.

    A dataset of a loader may have one class alone, such as images of the background beside others.

    Raises:
        InputError: No pixel counts, or all pixels are of one class; with the usual repair.
    """
    masks = [summary for summary in summaries if isinstance(summary, MaskSummary)]
    for loader, found in groupby(masks, lambda summary: summary.path.split('.')[0]):
        group = list(found)
        names = group[0].by_class
        present = {name for summary in group for name in summary.present}
        is_complete = all(summary.is_complete for summary in group)
        if len(present) < min(2, len(names)):
            # A test on images of the background alone is possible, and so is a rare class.
            may_be = present and (loader == 'test_dataloader' or not is_complete)
            text = _one_class(group[0])
            if not may_be or any(map(_repair, group)):
                raise InputError(next((_one_class(s) for s in group if _repair(s)), text))
            _warn(text)
            continue
        for summary in group:
            if len(summary.present) < min(2, len(names)) and _repair(summary):
                _warn(_one_class(summary))
        absent = [name for name in names if name not in present]
        if absent and loader == 'train_dataloader' and is_complete:
            _warn(_absent(group, absent))


def _one_class(summary: MaskSummary) -> str:
    """Describe masks in which at most one class has pixels."""
    numbers, present = list(summary.numbers), summary.present
    shown = ', '.join(map(str, numbers[:8])) + (', ...' if len(numbers) > 8 else '')
    what = f"the class '{present[0]}' alone has pixels" if present else 'all pixels are ignored'
    advice = _repair(summary) or 'check that these are the masks of the classes in use'
    return (
        f'{summary.path}: {what} (masks read: {summary.counts["masks read"]}); the numbers in '
        f"the masks of '{summary.source}' are {shown}: {advice}"
    )


def _repair(summary: MaskSummary) -> str:
    """Return the option that would give the masks several classes; empty if none would."""
    numbers, ignored = set(summary.numbers), summary.ignore_index
    real = numbers - {ignored}
    if summary.renumbered:
        if len(real) < 2 or max(real) >= len(summary.by_class):
            return ''
        return (
            f'they are renumbered from those of {summary.renumbered}; if they are numbers of '
            f'metainfo.classes, set {summary.path}.type=BaseSegDataset'
        )
    loses_zero = summary.reduces and 0 in numbers
    reduced = (
        'reduce_zero_label makes 0 no class; if it is the first class, set '
        f'{summary.path}.reduce_zero_label=False'
    )
    if loses_zero and len(real) > 1:
        return reduced
    if ignored not in numbers or not real:
        return ''
    first = int(summary.reduces and not loses_zero)
    free = (n for n in range(first, first + len(summary.by_class)) if n not in numbers)
    return (
        f'{ignored} means no class; if it stands for a class, set '
        f'{summary.loader}.label_map={{{ignored}: {next(free)}}}'
        + (f'; {reduced}, too' if loses_zero else '')
    )


def _absent(group: Sequence[MaskSummary], absent: Sequence[str]) -> str:
    """Describe classes without a pixel in all the training masks."""
    path = group[0].path if len(group) == 1 else group[0].path.split('.')[0]
    text = (
        f'{path}: {len(absent)} of {len(group[0].by_class)} classes have no pixel in the '
        f'{sum(int(s.counts["masks read"]) for s in group)} masks ({few(absent)})'
    )
    with_zero, names = [0 in summary.numbers for summary in group], list(group[0].by_class)
    if not any(with_zero) and not group[0].reduces and names[0] in absent:
        return f'{text}; if their numbers start at 1, set {path}.reduce_zero_label=True'
    if any(with_zero) and group[0].reduces and list(absent) == names[-1:]:
        return f'{text}; if their numbers start at 0, set {path}.reduce_zero_label=False'
    return text


def _warn(text: str) -> None:
    print_log(text, 'current', logging.WARNING)
