"""Transforms that make a view of an image again: to store outputs of teachers, and to read them."""

import os
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.config import Config
from mmengine.dataset import Compose

from ..config.tree import datasets, type_name
from ..data.loading import report_file
from ..errors import InputError
from ..registry import TRANSFORMS
from ..training.seeding import derived_seed, seeded
from .stored import GRID, TeacherOutputs, image_key, plain_config

#: greatest difference of a mean colour for which two views are the same
_LEVELS = 6


@TRANSFORMS.register_module()
class StoredView(BaseTransform):
    """Makes one of the stored views of an image, with the outputs of the teachers as ``gt_score``.

    The view is random. The transforms run under its seed, and the result is compared with what the
    teachers saw. ``gt_label`` stays; ``teacher_view`` is the number of the view. Outputs that cannot be
    read, of other transforms or without this image, and a view that differs, are an InputError.

    Args:
        transforms: The transforms between loading and packing, as when the outputs were stored.
        outputs: Folder of the stored outputs.
    """

    def __init__(self, transforms: Sequence[Mapping[str, Any]], outputs: str) -> None:
        self.stored = TeacherOutputs(outputs)
        self.stored.meta.check(self.stored.folder, transforms=plain_config(transforms))
        self.transforms = Compose(transforms)

    def transform(self, results: dict[str, Any]) -> dict[str, Any] | None:
        """Add the view and its ``gt_score``; None without a result, or without stored outputs."""
        path, stored = results['img_path'], self.stored
        row = stored.find(path)
        view = stored.views[np.random.randint(len(stored.views))]
        found = stored.read(row, view)
        if found is None:  # the file has been repaired since
            report_file(
                path,
                f"image '{path}' has no stored outputs, because it could not be read when they were "
                'made; it is left out',
            )
            return None
        with seeded(derived_seed(stored.meta.seed, view, int(stored.keys[row]))):
            changed = self.transforms(results)
        if changed is None:
            return None
        scores, expected = found
        seen = signature_of(changed['img']).astype(int)
        if seen.shape != expected.shape or np.abs(seen - expected).max() > _LEVELS:
            raise InputError(
                f"outputs '{stored.folder}': view {view} of the image '{path}' is not the one that "
                'the teachers saw; the image or the version of a transform has changed: store the '
                'outputs again'
            )
        changed.update(gt_score=scores, teacher_view=view)
        return changed


@TRANSFORMS.register_module()
class FixedView(BaseTransform):
    """Makes a view of an image by its number, to store the outputs of teachers for it.

    Names of images are paths below ``root``. ``seed`` is the source of the seeds of the views. The
    number ``view`` may change before a pass.
    """

    def __init__(self, transforms: Sequence[Mapping[str, Any]], root: str, seed: int) -> None:
        self.transforms = Compose(transforms)
        self.root, self.seed, self.view = os.path.expanduser(root), seed, 0

    def transform(self, results: dict[str, Any]) -> dict[str, Any] | None:
        """Add the view, ``teacher_key`` and ``teacher_signature``."""
        key = self.key_of(results['img_path'])
        with seeded(derived_seed(self.seed, self.view, key)):
            changed = self.transforms(results)
        if changed is not None:
            changed.update(teacher_key=key, teacher_signature=signature_of(changed['img']))
        return changed

    def key_of(self, path: str | PurePath) -> int:
        """Return the key of an image: that of its path below the root."""
        path = PurePath(path)
        inside = self.root and path.is_relative_to(self.root)
        return image_key(path.relative_to(self.root) if inside else path)


def signature_of(image: np.ndarray) -> np.ndarray:
    """Compute the mean colours of a grid over an image: uint8, flat."""
    small = cv2.resize(np.ascontiguousarray(image), (GRID, GRID), interpolation=cv2.INTER_AREA)
    return np.clip(np.rint(small), 0, 255).astype(np.uint8).reshape(-1)


def wrap_pipeline(
    pipeline: Sequence[Mapping[str, Any]], path: str, wrapper: Mapping[str, Any], *fields: str
) -> list[Any]:
    """Put a view in the place of the transforms between loading and packing.

    ``path`` names the pipeline in the InputError for one that has no such transforms. ``wrapper`` is
    the config of the view without them. ``PackInputs`` also packs the ``fields``.
    """
    kinds = [type_name(step) for step in pipeline]
    loads = [index for index, kind in enumerate(kinds) if '.Load' in f'.{kind}']
    if loads != [0] or not kinds[-1].endswith('PackInputs') or len(kinds) < 3:
        raise InputError(
            f'{path}: is {", ".join(kinds)}; for stored outputs it must begin with loading an image '
            'and end with PackInputs, with transforms between them'
        )
    load, *transforms, pack = pipeline
    keys = [*pack.get('algorithm_keys', ()), *fields]
    return [load, dict(wrapper, transforms=transforms), {**pack, 'algorithm_keys': keys}]


def use_stored_outputs(cfg: Config) -> None:
    """Make the training data of a config read the outputs that its model names, if any.

    An InputError says that a pipeline cannot be wrapped, or that a hook changes it during the run.
    """
    outputs = cfg.model.get('outputs')
    if not outputs:
        return
    for index, hook in enumerate(cfg.get('custom_hooks') or ()):
        if 'train_pipeline' in str(hook):
            raise InputError(
                f'custom_hooks.{index}: changes the training pipeline during the run, but stored '
                'outputs belong to one pipeline; leave the hook or model.outputs out'
            )
    wrapper = dict(type='mobileone_mm.StoredView', outputs=outputs)
    for path, dataset in datasets(cfg, 'train_dataloader'):
        steps = dataset.get('pipeline') or []
        if not any('StoredView' in type_name(step) for step in steps):
            dataset['pipeline'] = wrap_pipeline(  # type: ignore[index]
                steps, f'{path}.pipeline', wrapper, 'teacher_view'
            )
