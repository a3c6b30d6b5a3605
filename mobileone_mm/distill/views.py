"""Transforms that make a view of an image again: to store outputs of teachers, and to read them."""

from __future__ import annotations

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
from .stored import TeacherOutputs, image_key

# The mean colours of a coarse grid identify a view: decoders differ by a level or two, another crop
# of the same image differs by tens of levels.
_GRID = 4
SIGNATURE = 3 * _GRID**2  #: length of a signature
_LEVELS = 6


@TRANSFORMS.register_module()
class StoredView(BaseTransform):
    """Makes one of the stored views of an image, with the outputs of the teachers as ``gt_score``.

    The view is random. The transforms run under its seed, and the result is compared with what the
    teachers saw. ``gt_label`` stays; ``teacher_view`` is the number of the view.

    Args:
        transforms: The transforms between loading and packing, as when the outputs were stored.
        outputs: Folder of the stored outputs; the first image opens it.

    Raises:
        InputError: At an image: it has no stored outputs, or its view differs.
    """

    def __init__(self, transforms: Sequence[Mapping[str, Any]], outputs: str) -> None:
        self.transforms = Compose(transforms)
        self.outputs = outputs
        self._configs = transforms
        self._stored: TeacherOutputs | None = None

    @property
    def stored(self) -> TeacherOutputs:
        """The outputs, opened at the first call after a check of their transforms."""
        if self._stored is None:
            self._stored = TeacherOutputs(self.outputs)
            self._stored.check_transforms(self._configs)
        return self._stored

    def transform(self, results: dict[str, Any]) -> dict[str, Any] | None:
        """Add the view and its ``gt_score``; None without a result, or without stored outputs."""
        path = results['img_path']
        row, key = self.stored.find(path)
        view = self.stored.views[np.random.randint(len(self.stored.views))]
        found = self.stored.read(row, view)
        if found is None:  # the file has been repaired since
            report_file(
                path,
                f"image '{path}' has no stored outputs, because it could not be read when they were "
                'made; it is left out',
            )
            return None
        with seeded(derived_seed(self.stored.meta.seed, view, key)):
            changed = self.transforms(results)
        if changed is None:
            return None
        scores, expected = found
        seen = signature_of(changed['img']).astype(int)
        if seen.shape != expected.shape or np.abs(seen - expected).max() > _LEVELS:
            raise InputError(
                f"outputs '{self.outputs}': view {view} of the image '{path}' is not the one that "
                'the teachers saw; the image or the version of a transform has changed: store the '
                'outputs again'
            )
        changed.update(gt_score=scores, teacher_view=view)
        return changed


@TRANSFORMS.register_module()
class FixedView(BaseTransform):
    """Makes a view of an image by its number, to store the outputs of teachers for it.

    Args:
        transforms: The transforms between loading and packing.
        root: Names of images are paths below this folder.
        seed: Source of the seeds of the views.
        view: Number of the view; it may change before a pass.
    """

    def __init__(
        self, transforms: Sequence[Mapping[str, Any]], root: str, seed: int, view: int = 0
    ) -> None:
        self.transforms = Compose(transforms)
        self.root, self.seed, self.view = os.path.expanduser(root), seed, view

    def transform(self, results: dict[str, Any]) -> dict[str, Any] | None:
        """Add the view, ``teacher_name`` and ``teacher_signature``."""
        name = self.name_of(results['img_path'])
        with seeded(derived_seed(self.seed, self.view, image_key(name))):
            changed = self.transforms(results)
        if changed is not None:
            changed.update(teacher_name=name, teacher_signature=signature_of(changed['img']))
        return changed

    def name_of(self, path: str | PurePath) -> str:
        """Return the path of an image below the root."""
        path = PurePath(path)
        inside = self.root and path.is_relative_to(self.root)
        return (path.relative_to(self.root) if inside else path).as_posix()


def signature_of(image: np.ndarray) -> np.ndarray:
    """Compute the mean colours of a grid over an image: uint8, flat."""
    small = cv2.resize(np.ascontiguousarray(image), (_GRID, _GRID), interpolation=cv2.INTER_AREA)
    return np.clip(np.rint(small), 0, 255).astype(np.uint8).reshape(-1)


def wrap_pipeline(
    pipeline: Sequence[Mapping[str, Any]], path: str, wrapper: Mapping[str, Any], *fields: str
) -> list[Any]:
    """Put a view in the place of the transforms between loading and packing.

    Args:
        path: Name of the pipeline in messages.
        wrapper: Config of the view without its ``transforms``.
        *fields: What ``PackInputs`` packs in addition.

    Raises:
        InputError: The pipeline does not begin with loading and end with ``PackInputs``.
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

    Raises:
        InputError: A pipeline cannot be wrapped, or a hook changes it during the run.
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
