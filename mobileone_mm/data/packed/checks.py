"""Checks of a packed dataset before a run."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from ...errors import InputError
from .listing import listed_places
from .packs import CLASSES, LABELS, LmdbPack, open_pack

# Looking for every file of a large dataset on a network drive would take minutes.
MAX_LOOKUPS = 2000


def check_packed(path: str, dataset: Mapping, num_classes: int | None) -> None:
    """Check that a packed dataset can be opened, and its classes against the model's.

    The index of tar shards is made here where it is missing.

    Args:
        path: Path of the dataset's settings in the config.
        dataset: The settings.
        num_classes: Classes that the model and the config allow; None for any number.

    Raises:
        InputError: It is empty, cannot be read, its lists do not fit its images, or it has other
            classes.
    """
    folder = pack_folder(dataset)
    with_label = bool(dataset.get('with_label', True))
    try:
        pack = open_pack(folder)
        labels = dict(pack.samples())
        listed_places(pack, labels, with_label)
        if isinstance(pack, LmdbPack):
            _look_up(pack, list(labels))
        classes = pack.classes
    except InputError as error:
        raise InputError(f'{path}: {error}') from error
    if not labels:
        raise InputError(f"{path}: the dataset is empty: '{folder}' has no image")
    if with_label:
        _check_classes(path, folder, labels.values(), classes, num_classes)


def pack_folder(dataset: Mapping) -> Path:
    """The folder of a packed dataset, by its settings."""
    prefix = dataset.get('data_prefix') or dataset.get('split') or ''
    return Path(dataset.get('data_root') or '', str(prefix)).expanduser()


def _look_up(pack: LmdbPack, names: Sequence[str]) -> None:
    """Look for the listed images in an LMDB, for evenly many of a long list."""
    for name in names[:: max(1, len(names) // MAX_LOOKUPS)]:
        try:
            pack.require(name)
        except FileNotFoundError:
            raise InputError(
                f"'{pack.folder}': {LABELS} lists '{name}', which the LMDB does not have; pack the "
                'dataset again'
            ) from None
        except OSError as error:
            raise InputError(f"'{pack.folder}' cannot be read: {error.strerror}") from error


def _check_classes(
    path: str,
    folder: Path,
    labels: Collection[int],
    classes: Sequence[str] | None,
    num_classes: int | None,
) -> None:
    most = max(labels)
    if min(labels) < 0:
        raise InputError(f"{path}: '{folder}' has images without a class; pack it with classes")
    if num_classes is not None and most >= num_classes:
        raise InputError(
            f"{path}: '{folder}' has an image of class {most}, but there are {num_classes} "
            'classes (model.head.num_classes, metainfo.classes); they count from 0'
        )
    if classes is None:
        return
    if most >= len(classes):
        raise InputError(
            f"{path}: '{folder / CLASSES}' names {len(classes)} classes, but there is an image of "
            f'class {most}; give it a line for each class, from 0 on, or pack the dataset again'
        )
    if num_classes is not None and len(classes) != num_classes:
        raise InputError(
            f"{path}: '{folder / CLASSES}' names {len(classes)} classes, {num_classes} classes are "
            f'set (model.head.num_classes, metainfo.classes); set {len(classes)}, or pack all classes'
        )


def loads_elsewhere(dataset: Mapping) -> bool:
    """Whether a loading transform of a dataset's pipeline takes files from no local folder.

    The dataset's own ``backend_args`` are for its annotations, each loader has its own.
    """
    for transform in dataset.get('pipeline') or ():
        backend = transform.get('backend_args') if isinstance(transform, Mapping) else None
        if isinstance(backend, Mapping) and backend.get('backend', 'local') != 'local':
            return True
    return False
