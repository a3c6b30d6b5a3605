"""Check that the evaluation of a detector uses the annotation file of its dataset.

mmdet reads the two files separately. With other images of the same ids it evaluates against the wrong
objects without a message; with other categories it fails after the first epoch.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from mmengine.config import Config

from ...config.tree import class_of, mapping, walk
from ...errors import InputError, few
from ..coco import CocoFile, read_coco
from ..datasets import DatasetConfig, is_local


def check_evaluator(cfg: Config, evaluator: str, dataset: DatasetConfig) -> None:
    """Check the ``ann_file`` of each COCO metric of an evaluator against the dataset of its loader.

    Another file may have the same content. An InputError says what differs.
    """
    own = dataset.joined(dataset.settings.get('ann_file'))
    if own is None or not dataset.has_coco_boxes:
        return
    for path, metric in _coco_metrics(cfg, evaluator):
        other = Path(metric['ann_file'])
        loader = dataset.path.split('.')[0]
        for where, settings, key in (
            (dataset.path, dataset.settings, 'indices'),
            (loader, mapping(cfg.get(loader)), 'num_batch_per_epoch'),
        ):
            if settings.get(key) is not None:
                raise InputError(
                    f'{where}.{key}: a part of the images is predicted, but {path}.ann_file has the '
                    f'objects of all; set the ann_file of both to a file of the part, or remove {key}'
                )
        file = read_coco(other, f'{path}.ann_file', unlabelled=True)
        if not file.get('annotations') and not metric.get('format_only'):
            raise InputError(
                f'{file.where} has no annotations to evaluate against; set {path}.format_only=True and '
                'outfile_prefix to write the predictions alone'
            )
        if other.samefile(own):
            continue
        file.check_references()
        expected = read_coco(own, f'{dataset.path}.ann_file', unlabelled=True)
        if fault := _difference(file, expected, dataset):
            raise InputError(
                f"{file.where} does not fit {dataset.path}, which reads '{own}': {fault}; set "
                f"{path}.ann_file='{own}'"
            )


def _coco_metrics(cfg: Config, evaluator: str) -> Iterator[tuple[str, Mapping]]:
    """Yield the metrics of an evaluator that read a local COCO file, with their paths."""
    for path, node in walk(cfg.get(evaluator), evaluator):
        kind = class_of(node, node.get('_scope_'))
        bases = [base.__name__ for base in kind.__mro__] if kind else []
        if 'CocoMetric' in bases and node.get('ann_file') and is_local(node):
            yield path, node


def _difference(other: CocoFile, own: CocoFile, dataset: DatasetConfig) -> str:
    """Return how the file of the evaluator differs from that of the dataset; empty if it does not."""
    tables = [file.columns for file in (other, own)]
    rows = [table['images'] for table in tables]
    names = [dict(zip(row['id'], row['file_name'], strict=True)) for row in rows]
    if fault := _of_images(*names):
        return fault
    rows = [table['categories'] for table in tables]
    chosen = set(dataset.classes or rows[0]['name'])
    pairs = [zip(row['id'], row['name'], strict=True) for row in rows]
    used = [[f'{one}: {name}' for one, name in pair if name in chosen] for pair in pairs]
    if used[0] != used[1]:
        return f'its categories in use are {few(used[0])}, not {few(used[1])}'
    rows = [table['annotations'] for table in tables]
    if len(rows[0]['id']) != len(rows[1]['id']):
        return f'it has {len(rows[0]["id"])} annotations, not {len(rows[1]["id"])}'
    # In any order of the rows.
    keys = ('image_id', 'category_id', 'iscrowd', 'area')
    sets = [
        Counter(zip(*(row[key] for key in keys), map(tuple, row['bbox'].tolist()), strict=True))
        for row in rows
    ]
    return '' if sets[0] == sets[1] else 'its annotations differ'


def _of_images(other: Mapping, own: Mapping) -> str:
    common = [one for one in own if one in other]
    if len(common) < max(len(own), len(other)):
        return f'it has {len(other)} images, the dataset {len(own)}, and {len(common)} ids are the same'
    one = next((one for one in own if own[one] != other[one]), None)
    return '' if one is None else f'its image {one!r} is {other[one]!r}, not {own[one]!r}'
