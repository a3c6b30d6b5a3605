"""Check the classes that a checkpoint was trained on against those of the data.

A head has numbers, no names. The hosts load it for any data with the same number of classes and do
not read the names that the checkpoint has in its ``meta``. With the same classes in another order, the
metric of a good detector is about 0, and nothing says why.
"""

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, get_args

from mmengine.config import Config
from mmengine.logging import print_log

from ...config.tree import mapping, type_name, walk
from ...errors import InputError, few
from ...weights.unwrap import Weights, dataset_meta, read_weights
from ..datasets import HEADS, DatasetConfig, datasets_of
from .dataset_files import images_and_list
from .numbering import Difference, Names, comparable, find_numbering, list_difference

_CERTAINTY: tuple[Difference, ...] = get_args(Difference)
_SHOWN = 400  # characters of a class list that a message shows


class Labelled(NamedTuple):
    """Data with class numbers."""

    path: str  # in the config, or the name of a published set
    known: list[Names]  # the names by number, in all words that are known
    advice: str  # how its labels get the numbers of a checkpoint ("its")


def check_run_checkpoint(cfg: Config, loaders: Sequence[str], tests: bool) -> None:
    """Check the checkpoints whose heads a run starts from: ``load_from``, else ``init_cfg``.

    A test, and a resumed run, use the whole head as it is. A new run may train a head of other classes;
    if their number differs from that of the checkpoint, the head is not loaded. A file that cannot be
    read is an InputError, too.
    """
    as_it_is, source = tests or bool(cfg.get('resume')), cfg.get('load_from')
    for origin in [str(source)] if source else dict.fromkeys(_initial_heads(cfg.get('model'))):
        weights = read_weights(origin)
        if as_it_is or _has_head(weights):
            compare_classes(weights, labelled(cfg, loaders), as_it_is)


def check_teachers(cfg: Config) -> None:
    """Check the checkpoints of teachers, whose outputs are labels, against the training data."""
    for _, teacher in walk(mapping(cfg.get('model')).get('teachers')):
        source = teacher.get('checkpoint')
        # The weights need not be here if the outputs are stored.
        if isinstance(source, (str, os.PathLike)) and os.path.isfile(source):
            data = labelled(cfg, ['train_dataloader'])
            compare_classes(read_weights(source), data, as_it_is=True)


def labelled(cfg: Config, loaders: Sequence[str]) -> Iterator[Labelled]:
    """Yield the class names of the datasets of some loaders: class list, folders, list of a pack."""
    for dataset in (found for loader in loaders for found in datasets_of(cfg, loader)):
        numbering = find_numbering(dataset) if dataset.is_local else None
        found = (dataset.classes, numbering and numbering.names)
        known = [names for names in found if names and all(names)]
        yield Labelled(dataset.path, known, _advice(dataset))


def compare_classes(weights: Weights, sets: Iterable[Labelled], as_it_is: bool) -> None:
    """Compare the classes of a checkpoint, if it names them, with those of data.

    The same names in another order are an InputError. Other names are a warning, once.

    Args:
        weights: The checkpoint.
        sets: The data.
        as_it_is: Whether the head is used without training. Then, it is an InputError, too, if most of
            the common names have other numbers.
    """
    stored = _stored_names(weights)
    for each in sets if stored else ():
        found = [(list_difference(stored, n), n) for n in each.known if len(n) == len(stored)]
        kind, names = min(found, key=lambda item: _CERTAINTY.index(item[0]), default=('', ()))
        if kind in ('', 'unknown'):
            continue
        text = f'{weights.name} {_described(kind, stored, names, each.path)}'
        if kind == 'order' or (kind == 'moved' and as_it_is):
            raise InputError(f'{text}; {each.advice}; the checkpoint has {_listed(stored)}')
        then = 'the metric compares other classes' if as_it_is else 'its head is for other classes'
        print_log(f'{text}; {then}.', 'current', logging.WARNING)
        return


def _initial_heads(model: Any) -> Iterator[str]:
    """Yield the files from which ``init_cfg`` loads a whole model or its heads."""
    for path, node in walk(model, 'model'):
        keys = {key for key in path.split('.')[1:] if not key.isdecimal()}
        given = node.get('init_cfg')
        for init in given if isinstance(given, (list, tuple)) else [given]:
            pretrained = type_name(init).rpartition('.')[2] in ('Pretrained', 'PretrainedInit')
            if pretrained and keys <= HEADS and mapping(init).get('checkpoint'):
                yield str(init['checkpoint'])


def _has_head(weights: Weights) -> bool:
    return any(HEADS.intersection(key.split('.')[:-1]) for key in weights.state)


def _stored_names(weights: Weights) -> Names:
    names = dataset_meta(weights.meta).get('classes')
    is_list = isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names)
    return tuple(names) if is_list else ()  # type: ignore[arg-type]


def _described(kind: Difference, stored: Names, names: Names, path: str) -> str:
    first, second = comparable(stored, names)
    place = next(number for number, name in enumerate(first) if name != second[number])
    text = f"class {place} is '{stored[place]}' in the checkpoint and '{names[place]}' in the data"
    if kind == 'order':
        return f'has the classes of {path} in another order: {text}'
    known = set(first)
    others = [name for name, plain in zip(names, second, strict=True) if plain not in known]
    if kind == 'moved':
        text = f'some common classes have other numbers: {text}'
    return f'has other classes than {path} ({few(others)} is not in the checkpoint): {text}'


def _advice(dataset: DatasetConfig) -> str:
    order, own = 'set metainfo.classes to its order', getattr(dataset.kind, 'METAINFO', {})
    if 'CocoDataset' in dataset.bases:
        file = dataset.joined(dataset.settings.get('ann_file'))
        return f"put the rows of 'categories' in '{file}' and metainfo.classes in its order"
    if 'PackedDataset' in dataset.bases:
        return 'pack the dataset again, from a list (ann_file) with its numbers'
    if 'BaseSegDataset' in dataset.bases and not own.get('classes'):
        return f'{order}, and renumber the masks if they have the other order'
    if dataset.reader == 'mmpretrain.datasets.custom':
        _, file, _ = images_and_list(dataset)
        listed = f"'{file}'" if file else 'a list of the images (ann_file)'
        return f'write its numbers into {listed}, and {order}'
    return order


def _listed(stored: Names) -> str:
    text = repr(stored)
    return text if len(text) <= _SHOWN else f'{text[:_SHOWN]}...'
