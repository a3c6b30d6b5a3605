"""Checks of a packed data set before a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ...errors import InputError
from .packs import open_pack


def check_packed(path: str, dataset: Mapping, num_classes: int | None) -> None:
    """Check that a packed data set can be opened, and its classes against the model's.

    The index of tar shards is made here where it is missing.

    Args:
        path: Path of the data set's settings in the config.
        dataset: The settings.
        num_classes: Classes that the model and the config allow; None for any number.

    Raises:
        InputError: It is empty, cannot be read, or has a class too many.
    """
    prefix = dataset.get('data_prefix') or dataset.get('split') or ''
    folder = Path(dataset.get('data_root') or '', str(prefix)).expanduser()
    try:
        pack = open_pack(folder)
        labels = [label for _, label in pack.samples()]
    except InputError as error:
        raise InputError(f'{path}: {error}') from error
    if not labels:
        raise InputError(f"{path}: the data set is empty: '{folder}' has no picture")
    if not dataset.get('with_label', True):
        return
    if min(labels) < 0:
        raise InputError(f"{path}: '{folder}' has pictures without a class; pack it with classes")
    if num_classes is not None and max(labels) >= num_classes:
        raise InputError(
            f"{path}: '{folder}' has a picture of class {max(labels)}, but there are {num_classes} "
            'classes (model.head.num_classes, metainfo.classes); they count from 0'
        )


def loads_elsewhere(dataset: Mapping) -> bool:
    """Whether a loading transform of a data set's pipeline takes files from no local folder.

    The data set's own ``backend_args`` are for its annotations, each loader has its own.
    """
    for transform in dataset.get('pipeline') or ():
        backend = transform.get('backend_args') if isinstance(transform, Mapping) else None
        if isinstance(backend, Mapping) and backend.get('backend', 'local') != 'local':
            return True
    return False
