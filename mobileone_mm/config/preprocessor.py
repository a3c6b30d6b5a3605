"""Checks of ``data_preprocessor`` and of one-channel heads, which fail in the first step of a run."""

import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from ..errors import InputError
from .tree import arguments_of, class_of, mapping, type_name, walk

# Transforms of mmseg and mmcv that keep the size of an image.
_KEEP_SIZE = {
    'AdjustGamma', 'CLAHE', 'GenerateEdge', 'LoadAnnotations', 'LoadImage', 'LoadImageFromFile',
    'LoadSegAnnotations', 'PackSegInputs', 'PhotoMetricDistortion', 'RGB2Gray', 'RandomCutOut',
    'RandomFlip', 'RandomRotate', 'Rerange',
}  # fmt: skip
_RGB_OR_GRAY = {'ImgDataPreprocessor', 'DetDataPreprocessor', 'SegDataPreProcessor'}
# Transforms that may scale images to values from 0 to 1.
_TO_UNIT = re.compile('ToTensor|ToDtype|ConvertImageDtype|Normalize|Rescale|ToFloat')
_Size = tuple[int, int]  # height, width


def check_preprocessor(cfg: Config, training: bool) -> None:
    """Check mean, std and size of each ``data_preprocessor``, and the crop of mmseg's pipelines."""
    pipelines = list(seg_pipelines(cfg)) if training else []
    for where, steps in pipelines:
        for index, step in enumerate(steps):
            if type_name(step) in ('RandomCrop', 'mmseg.RandomCrop'):
                _check_crop(f'{where}.{index}', step)
    model = mapping(cfg.get('model'))
    # The Runner passes that of the config on to a model without its own.
    found = 'model' if model.get('data_preprocessor') is not None else 'data_preprocessor'
    for path, node in walk(cfg.get(found), found):
        if path.rpartition('.')[2] == 'data_preprocessor' and 'teacher' not in path:
            lengths = _lengths(cfg, node)
            if lengths:
                _check_normalization(path, node, lengths)
                _warn_of_range(cfg, path, node)
            if training and type_name(node).rpartition('.')[2] == 'SegDataPreProcessor':
                _check_size(path, node)
                for pipeline in pipelines:
                    _compare(path, node, *pipeline)


def _lengths(cfg: Config, node: Mapping) -> set[int]:
    """Return the allowed lengths of mean and std; empty for classes of the user."""
    name = type_name(node).rpartition('.')[2]
    if not name and cfg.get('default_scope') == 'mmpretrain':
        name = 'ClsDataPreprocessor'  # the default of its classifiers
    if name != 'ClsDataPreprocessor':
        return {1, 3} if name in _RGB_OR_GRAY else set()
    channels = mapping(mapping(cfg.get('model')).get('backbone')).get('in_channels')
    return {1, channels if isinstance(channels, int) else 3}


def _check_normalization(path: str, node: Mapping, lengths: set[int]) -> None:
    mean, std = node.get('mean'), node.get('std')
    if (mean is None) != (std is None):
        given, missing = ('std', 'mean') if mean is None else ('mean', 'std')
        raise InputError(f'{path}: has {given} and no {missing}; set both, or none of them')
    for key, values in (('mean', mean), ('std', std)):
        if values is None:
            continue
        numbers: Sequence[Any] = values if isinstance(values, (list, tuple)) else ['']
        usable = all(
            type(value) in (int, float) and math.isfinite(value) and (key == 'mean' or value > 0)
            for value in numbers
        )
        if not usable or len(numbers) not in lengths:
            count = ' or '.join(map(str, sorted(lengths)))
            positive = '' if key == 'mean' else 'positive '
            raise InputError(
                f'{path}.{key}: got {str(values)[:60]}; expected {count} {positive}numbers, one for '
                'all channels of an image or one for each'
            )


def _warn_of_range(cfg: Config, path: str, node: Mapping) -> None:
    """Log a mean and std of images from 0 to 1, unless a transform may give such images."""
    mean, std = ({*(node.get(key) or ())} for key in ('mean', 'std'))
    if not mean or max(mean | std) > 1 or (mean, std) == ({0}, {1}):
        return
    steps = [
        type_name(step)
        for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader')
        for _, step in walk(cfg.get(loader), loader)
    ]
    if not any(_TO_UNIT.search(step) for step in steps):
        text = (
            f'{path}: mean and std are at most 1, but the images have values from 0 to 255; multiply '
            'both by 255'
        )
        print_log(text, 'current', logging.WARNING)


def _check_size(path: str, node: Mapping) -> None:
    size, divisor = node.get('size'), node.get('size_divisor')
    if (size is None) == (divisor is None):
        found = 'has no size and no size_divisor' if size is None else 'has size and size_divisor'
        raise InputError(f'{path}: {found}; set one of them (None removes the other one)')
    if size is not None and (isinstance(size, int) or _size(size) is None):
        raise InputError(
            f'{path}.size: got {size!r}; expected two positive integers (height, width)'
        )


def _check_crop(path: str, step: Mapping) -> None:
    """Check the arguments that mmseg's ``RandomCrop`` asserts, or uses in the first step."""
    size, ratio = step.get('crop_size'), step.get('cat_max_ratio', 1.0)
    if size is not None and (isinstance(size, list) or _size(size) is None):
        raise InputError(
            f'{path}.crop_size: got {size!r:.60}; expected a positive integer, or a tuple '
            '(height, width)'
        )
    if type(ratio) not in (int, float) or not 0 <= ratio <= 1:
        raise InputError(f'{path}.cat_max_ratio: got {ratio!r:.60}; expected a number from 0 to 1')


def seg_pipelines(cfg: Config) -> Iterator[tuple[str, Sequence[Any]]]:
    """Yield the training pipelines that end in a sample of mmseg, with their paths."""
    for path, node in walk(cfg.get('train_dataloader'), 'train_dataloader'):
        steps = node.get('pipeline')
        if isinstance(steps, Sequence) and steps and type_name(steps[-1]).endswith('PackSegInputs'):
            yield f'{path}.pipeline', steps


def _compare(path: str, node: Mapping, where: str, steps: Sequence[Any]) -> None:
    """Compare the size to which the batch is padded with the largest image of a pipeline."""
    size, largest = node.get('size'), _largest(steps)
    if size is None or largest is None or tuple(size) == largest:
        return
    text = (
        f'{path}.size: got {tuple(size)}, but the images of {where} have up to {largest} (height, '
        'width)'
    )
    if any(image > given for image, given in zip(largest, size, strict=True)):
        raise InputError(f'{text} and do not fit into one batch; set it to {largest}')
    share = 1 - largest[0] * largest[1] / (size[0] * size[1])
    text += f': at least {share:.0%} of each batch is padding; set it to {largest} to avoid this'
    print_log(text, 'current', logging.WARNING)


def _largest(steps: Sequence[Any]) -> _Size | None:
    """Return the largest height and width that a pipeline gives; None if nothing limits them."""
    found: _Size | None = None
    for step in map(mapping, steps):
        name = type_name(step).rpartition('.')[2]
        crop, pad = _size(step.get('crop_size')), _size(step.get('size'), turned=True)
        scale = None if step.get('keep_ratio') else _size(step.get('scale'), turned=True)
        if name == 'RandomCrop' and crop is not None:
            found = crop if found is None else (min(found[0], crop[0]), min(found[1], crop[1]))
        elif name == 'Resize' and scale is not None:
            found = scale
        elif name == 'Pad' and pad is not None and found is not None:
            found = (max(found[0], pad[0]), max(found[1], pad[1]))
        elif name not in _KEEP_SIZE:
            found = None
    return found


def _size(value: Any, turned: bool = False) -> _Size | None:
    """Return height and width of an integer or a pair, which may have the width first."""
    pair = [value] * 2 if isinstance(value, int) else value
    if not isinstance(pair, (list, tuple)) or len(pair) != 2:
        return None
    if not all(type(number) is int and number > 0 for number in pair):
        return None
    return (pair[1], pair[0]) if turned else (pair[0], pair[1])


def check_one_channel(cfg: Config, evaluator: str) -> None:
    """Check mmseg's heads of one channel: their softmax is 1 whatever the net computes.

    A warning for ``num_classes=1``: mmseg's metric then counts all pixels as those of the class.
    """
    for path, head in walk(cfg.get('model'), 'model'):
        classes, channels = head.get('num_classes'), head.get('out_channels')
        if 1 not in ((classes,) if channels is None else (channels,)):
            continue
        kind = class_of(head, cfg.get('default_scope'))
        if kind is None or 'loss_decode' not in arguments_of(kind):
            continue
        losses = head.get('loss_decode') or dict(type='CrossEntropyLoss')
        for loss in map(mapping, losses if isinstance(losses, (list, tuple)) else [losses]):
            name = type_name(loss).rpartition('.')[2]
            if name == 'CrossEntropyLoss' and not loss.get('use_sigmoid'):
                raise InputError(
                    f'{path}.loss_decode: CrossEntropyLoss of one channel needs use_sigmoid=True, '
                    'because a softmax of one channel learns nothing; or set num_classes=2 without '
                    'out_channels'
                )
        metrics = [type_name(metric) for _, metric in walk(cfg.get(evaluator), evaluator)]
        if classes == 1 and any(name.endswith('IoUMetric') for name in metrics):
            text = f'{path}.num_classes: got 1, with which IoUMetric counts all pixels as one class'
            advice = 'set num_classes=2, out_channels=1 and two names in metainfo.classes'
            print_log(f'{text}; {advice}', 'current', logging.WARNING)
