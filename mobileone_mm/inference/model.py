"""The trained model of a config, its classes and its test pipeline."""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import TRANSFORMS
from torch import nn

from ..config.explain import config_faults
from ..config.tree import datasets, mapping, type_name
from ..data.datasets import datasets_of, head_sizes
from ..deploy.config import build_model
from ..errors import InputError
from ..weights.fit import checkpoint_for
from ..weights.unwrap import Weights, dataset_meta, read_weights

_ANNOTATIONS = re.compile(r'(^|\.)Load\w*Annotations$')


def init_model(
    cfg: Config, checkpoint: str | Path | Weights, device: str = 'cpu'
) -> tuple[nn.Module, dict[str, Any]]:
    """Build the model of a config with the weights of a checkpoint, in evaluation mode.

    Also returns ``classes`` and ``palette`` if the checkpoint or the config has them. A config or a
    checkpoint that does not fit is an InputError.
    """
    weights = read_weights(checkpoint)
    model = build_model(cfg)
    checkpoint_for(model, weights).load(model)
    return model.to(device).eval(), data_meta(cfg, weights.meta)


def data_meta(cfg: Config, stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return names and colours of the classes: the checkpoint's, else those of the config's datasets.

    ``stored`` is the ``meta`` of a checkpoint. A list whose length differs from the model's heads does
    not name its classes, and is left out.
    """
    sizes = {size for _, size in head_sizes(cfg.model)}
    for meta in _metas(cfg, stored):
        classes, palette = meta.get('classes'), meta.get('palette')
        if isinstance(classes, (list, tuple)) and (not sizes or len(classes) in sizes):
            fits = _is_palette(palette, len(classes))
            return {'classes': classes, 'palette': palette if fits else None}
    return {}


def _is_palette(palette: Any, count: int) -> bool:
    # A file can hold anything there, and drawing would fail on it.
    try:
        colors = np.asarray(palette)
    except ValueError:
        return False
    whole = isinstance(palette, (list, tuple)) and colors.dtype.kind in 'iu'
    return whole and colors.shape == (count, 3) and 0 <= colors.min() <= colors.max() < 256


def _metas(cfg: Config, stored: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield dataset_meta(stored)
    for loader in ('test_dataloader', 'val_dataloader', 'train_dataloader'):
        for dataset in datasets_of(cfg, loader):
            own = getattr(dataset.kind, 'METAINFO', {})
            given = mapping(dataset.settings.get('metainfo'))
            with suppress(InputError):  # a class list of data that this machine does not have
                yield {**own, **given, 'classes': dataset.classes}


def prediction_pipeline(cfg: Config) -> tuple[Any, Compose]:
    """Build the loading transform of a config's test pipeline, and the rest without annotations.

    An InputError says that there is no test pipeline, or that it does not begin with loading a file.
    """
    found = [dataset.get('pipeline') for _, dataset in datasets(cfg, 'test_dataloader')]
    pipeline = next(filter(None, [*found, cfg.get('test_pipeline')]), None)
    if not pipeline:
        raise InputError(
            "config: has neither 'test_dataloader' with a pipeline nor 'test_pipeline'"
        )
    steps = [step for step in pipeline if not _ANNOTATIONS.search(type_name(step))]
    first = type_name(steps[0] if steps else pipeline[0]).rpartition('.')[2]
    if not first.startswith('Load') or not steps:
        raise InputError(
            f'config: the test pipeline begins with {first}; expected a Load transform'
        )
    with config_faults(cfg):
        return TRANSFORMS.build(steps[0]), Compose(steps[1:])
