"""Check that images of different sizes can form a batch; the hosts fail in the middle of an epoch.

mmdet pads its images, and so does mmseg in training. mmseg's evaluation and mmpretrain's collate
function do not.
"""

import copy
import os
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from mmengine.dataset import Compose

from ...config.tree import mapping, type_name
from ...errors import InputError
from ..datasets import DatasetConfig
from ..exif import DECODING_ERRORS, Header, read_header
from . import dataset_files

# Images whose size is read, images that go through the pipeline, and seconds for these.
HEADERS, SAMPLES, SECONDS = 200, 6, 1.0


def check_batch(cfg: Mapping, dataset: DatasetConfig) -> None:
    """Run the pipeline on images of different sizes; the outputs must have one size.

    Raises:
        InputError: They have two, the loader makes batches of several images, and nothing pads.
    """
    name = dataset.path.split('.')[0]
    loader = mapping(cfg.get(name))
    size = loader.get('batch_size', 1)
    if not isinstance(size, int) or size < 2 or not dataset.loads_local_images:
        return
    if 'BaseSegDataset' in dataset.bases and name != 'train_dataloader':
        samples: Sequence[dict[str, Any]] = dataset.samples or []
    elif type_name(loader.get('collate_fn')) == 'default_collate':
        samples = list(_of_folders_or_list(dataset))
    else:
        return
    shapes = _shapes(dataset, _different(samples))
    if len(shapes) > 1:
        (one, first), (other, second) = list(shapes.items())[:2]
        raise InputError(
            f'{name}.batch_size: got {size}, but the pipeline gives images of different sizes, which '
            f"cannot form a batch: '{first}' becomes {one[1]} x {one[0]} pixels, '{second}' "
            f'{other[1]} x {other[0]}; set batch_size=1, or let {dataset.path}.pipeline crop or resize '
            'to one size'
        )


def _of_folders_or_list(dataset: DatasetConfig) -> Iterator[dict[str, Any]]:
    """Yield some samples of mmpretrain: the first ones of a list, or of each class folder."""
    if dataset.reader != 'mmpretrain.datasets.custom':
        return
    folder, ann_file, labelled = dataset_files.images_and_list(dataset)
    if ann_file is not None:
        with ann_file.open(encoding='utf-8') as file:
            for line in map(str.strip, islice(file, HEADERS)):
                yield dict(img_path=str(folder / (line.rpartition(' ')[0] if labelled else line)))
        return
    names = dataset_files.class_folders(folder) if labelled else ('',)
    for name in names:
        with os.scandir(folder / name) as entries:
            for entry in islice(entries, max(1, HEADERS // len(names))):
                yield dict(img_path=entry.path)


def _different(samples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return samples whose images differ in size, by the headers of a part of them."""
    found: dict[Header, dict[str, Any]] = {}
    for sample in random.Random(0).sample(samples, min(HEADERS, len(samples))):
        with suppress(*DECODING_ERRORS):  # the run reports it
            found.setdefault(read_header(sample['img_path']), sample)
        if len(found) == SAMPLES:
            break
    return list(found.values()) if len(found) > 1 else []


def _shapes(
    dataset: DatasetConfig, samples: Sequence[dict[str, Any]]
) -> dict[tuple[int, int], Path]:
    """Return the sizes (height, width) that the pipeline gives, each with one of its images."""
    pipeline = copy.deepcopy(list(dataset.settings.get('pipeline') or ()))
    for step in pipeline:
        if 'on_error' in mapping(step):
            step['on_error'] = 'raise'  # a broken file is reported, and counted, by the run
    found: dict[tuple[int, int], Path] = {}
    start = time.monotonic()
    for index, sample in enumerate(samples):
        if len(found) > 1 or time.monotonic() - start > SECONDS:
            break
        with suppress(Exception):  # of a file or a transform of the user: the run reports it
            given = {'sample_idx': index, 'gt_label': 0, **copy.deepcopy(sample)}
            packed = mapping(Compose(copy.deepcopy(pipeline))(given))
            _, height, width = packed['inputs'].shape
            found.setdefault((int(height), int(width)), sample['img_path'])
    return found
