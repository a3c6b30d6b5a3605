"""Transforms that make a view of an image again, for storing teachers' outputs and reading them."""

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

from ..config.tree import datasets
from ..data.loading import report_file
from ..errors import InputError
from ..registry import TRANSFORMS
from ..training.seeding import derived_seed, seeded
from .outputs import TeacherOutputs
from .view_files import image_key

# A view is told by the mean colours of a coarse grid: decoders differ by a level or two, another crop
# of an image by tens.
_GRID = 4
_LEVELS = 6


@TRANSFORMS.register_module()
class StoredView(BaseTransform):
    """One of the stored views of an image, with the teachers' outputs for it as ``gt_score``.

    The view is drawn at random, the transforms run under its seed, and the result is compared with
    what the teachers saw. The label (``gt_label``) stays. ``teacher_view`` is the view's number.

    Args:
        transforms: Those between loading and packing, as when the outputs were stored.
        outputs: Folder of the stored outputs; opened when the first image comes.

    Raises:
        InputError: At an image: it has no stored outputs, or its view is another one.
    """

    def __init__(self, transforms: Sequence[Mapping[str, Any]], outputs: str) -> None:
        self.transforms = Compose(transforms)
        self.outputs = outputs
        self._configs = transforms
        self._stored: TeacherOutputs | None = None

    @property
    def stored(self) -> TeacherOutputs:
        """The outputs, opened at the first call; their transforms are checked."""
        if self._stored is None:
            self._stored = TeacherOutputs(self.outputs)
            self._stored.check_transforms(self._configs)
        return self._stored

    def transform(self, results: dict[str, Any]) -> dict[str, Any] | None:
        """Add the view and its ``gt_score`` to the results; None if a transform gives nothing.

        None also for an image that could not be read when the outputs were stored.
        """
        path = results['img_path']
        found = self.stored.find(path)
        if found is None:  # its file has been mended since
            report_file(
                path,
                f"image '{path}' has no stored outputs, because it could not be read when they were "
                'made; it is left out',
            )
            return None
        row, key = found
        view = self.stored.views[np.random.randint(len(self.stored.views))]
        with seeded(derived_seed(self.stored.meta.seed, view, key)):
            changed = self.transforms(results)
        if changed is None:
            return None
        scores, expected = self.stored.read(row, view)
        seen = signature_of(changed['img'])
        if seen.shape != expected.shape or _distance(seen, expected) > _LEVELS:
            raise InputError(
                f"outputs '{self.outputs}': view {view} of the image '{path}' is not the one that "
                'the teachers saw; another image of that name, or transforms of other versions: '
                'store them anew'
            )
        changed.update(gt_score=scores, teacher_view=view)
        return changed


@TRANSFORMS.register_module()
class FixedView(BaseTransform):
    """A view of an image by its number, with what identifies it; for storing outputs.

    Args:
        transforms: Those between loading and packing.
        root: The folder below which the images' names count.
        seed: From which the seeds of the views are derived.
        view: Number of the view; may be set anew before a pass.
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
        """The name of an image: its path below the root."""
        path = PurePath(path)
        inside = self.root and path.is_relative_to(self.root)
        return (path.relative_to(self.root) if inside else path).as_posix()


def signature_of(image: np.ndarray) -> np.ndarray:
    """Mean colours of a grid over an image: uint8, flat."""
    small = cv2.resize(np.ascontiguousarray(image), (_GRID, _GRID), interpolation=cv2.INTER_AREA)
    return np.clip(np.rint(small), 0, 255).astype(np.uint8).reshape(-1)


def split_pipeline(
    pipeline: Sequence[Mapping[str, Any]], path: str
) -> tuple[list[Any], list[Any], Any]:
    """Loading, the transforms that make a view, and packing.

    Raises:
        InputError: The pipeline is not of that kind.
    """
    kinds = [str(getattr(step.get('type'), '__name__', step.get('type'))) for step in pipeline]
    loads = [index for index, kind in enumerate(kinds) if '.Load' in f'.{kind}']
    if loads != [0] or not kinds[-1].endswith('PackInputs') or len(kinds) < 3:
        raise InputError(
            f'{path}: is {", ".join(kinds)}; for stored outputs it must begin with loading an image '
            'and end with PackInputs, with transforms between them'
        )
    return [pipeline[0]], list(pipeline[1:-1]), dict(pipeline[-1])


def use_stored_outputs(cfg: Config) -> None:
    """Make the training data of a config read the outputs that its model names.

    Args:
        cfg: The config; changed in place. Without ``model.outputs``, or where the pipeline reads
            stored views already, nothing is done.

    Raises:
        InputError: The pipeline cannot be wrapped, or a hook changes it during the run.
    """
    outputs = cfg.model.get('outputs')
    if not outputs:
        return
    for index, hook in enumerate(cfg.get('custom_hooks') or ()):
        if 'train_pipeline' in str(hook):
            raise InputError(
                f'custom_hooks.{index}: changes the training pipeline during the run, and stored '
                'outputs are of one; leave the hook or model.outputs out'
            )
    for path, dataset in datasets(cfg, 'train_dataloader'):
        pipeline = dataset.get('pipeline') or []
        if any('StoredView' in str(step.get('type')) for step in pipeline):
            continue
        load, transforms, pack = split_pipeline(pipeline, f'{path}.pipeline')
        dataset['pipeline'] = [  # type: ignore[index]
            *load,
            dict(type='mobileone_mm.StoredView', transforms=transforms, outputs=outputs),
            with_fields(pack, 'teacher_view'),
        ]


def with_fields(pack: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """The config of ``PackInputs`` that also packs these fields."""
    return {**pack, 'algorithm_keys': [*pack.get('algorithm_keys', ()), *names]}


def _distance(first: np.ndarray, second: np.ndarray) -> int:
    return int(np.abs(first.astype(int) - second.astype(int)).max())
