"""Stored outputs of teachers: a folder with one safetensors file for each view of the dataset.

A view is one pass over the images with the training transforms, each under a seed that depends on
the image's name and the number of the view (the stored crops of FKD, arXiv 2112.01528, with the seed
in the place of coordinates, so that any transform will do). A file holds the K greatest probabilities
of each image; the classes besides get the rest in equal parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from ..errors import InputError
from .teachers import describe
from .view_files import (
    DamagedViewError,
    damaged,
    digest_of,
    image_key,
    open_view,
    plain_config,
    read_meta,
    verify_view,
    view_path,
    views_in,
)

FASTER_CROP = 'mobileone_mm.RandomResizedCrop'
#: of the float16 probabilities of one image
_SUM_TOLERANCE = 5e-3


class TeacherOutputs:
    """The views of a folder, read as they are asked for; files are mapped, not loaded.

    Args:
        folder: The folder.

    Raises:
        InputError: There are no views, one is damaged, or they are not of one kind.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser()
        self.views = views_in(self.folder)
        if not self.views:
            raise InputError(
                f"outputs '{self.folder}': has no view_NNNN.safetensors; make it with "
                'tools/misc/store_teacher_outputs.py'
            )
        self._files: dict[int, Any] = {}
        self.meta = read_meta(self.folder, self.views[0])
        for view in self.views[1:]:
            if read_meta(self.folder, view) != self.meta:
                raise InputError(
                    f"outputs '{self.folder}': views {self.views[0]} and {view} are of other teachers, "
                    'transforms or images; make each in a folder of its own'
                )
        self.keys = self._tensor(self.views[0], 'keys')[:]
        if self.keys.ndim != 1 or digest_of(self.keys) != self.meta.images:
            raise self._damaged(self.views[0])
        self._unreadable = {image_key(name) for name in self.meta.unreadable}

    def __str__(self) -> str:
        return (
            f'{len(self.keys)} images, {len(self.views)} views, the {self.meta.topk} greatest of '
            f"{self.meta.num_classes} classes, from '{self.folder}'"
        )

    def check(
        self, teachers: Sequence[Mapping[str, Any]], temperature: float, num_classes: int
    ) -> None:
        """Check that they are whole, and those of teachers of this description.

        Raises:
            InputError: Naming what differs, or a damaged file.
        """
        for view in self.views:
            verify_view(self.folder, view)
        wanted = [describe(spec) for spec in teachers]
        for name, own, asked in (
            ('model.head.num_classes', self.meta.num_classes, num_classes),
            ('model.distill_loss.temperature', self.meta.temperature, temperature),
            ('model.teachers', self.meta.teachers, wanted),
        ):
            if own != asked:
                raise InputError(
                    f"outputs '{self.folder}': were made with {name}={own}, the config has {asked}; "
                    'store them anew or set the config to them'
                )

    def check_weights(self, found: Sequence[str | None]) -> None:
        """Check that they are those of teachers with these fingerprints; None where it is not known.

        Raises:
            InputError: Naming the teacher that differs.
        """
        for index, (own, now) in enumerate(zip(self.meta.fingerprints, found, strict=True)):
            if now not in (None, own):
                raise InputError(
                    f"outputs '{self.folder}': were made with other weights, normalisation or size of "
                    f'model.teachers.{index}, which has the same name; store them anew or set it to '
                    'that teacher'
                )

    def check_transforms(self, transforms: Any) -> None:
        """Check that views are made by these transforms.

        Raises:
            InputError: They differ.
        """
        # The tools put a faster crop with the same result in the place of the host's.
        own, wanted = (
            [
                {**step, 'type': step['type'].replace(FASTER_CROP, 'RandomResizedCrop')}
                for step in steps
            ]
            for steps in (plain_config(transforms), self.meta.transforms)
        )
        if own != wanted:
            raise InputError(
                f"outputs '{self.folder}': the views were made by the transforms {wanted}, the "
                f'training pipeline has {own}; store them anew or set the pipeline to them'
            )

    def find(self, path: str | PurePath) -> tuple[int, int] | None:
        """Row and key of an image; None if it could not be read when the outputs were stored.

        Raises:
            InputError: It has no stored outputs.
        """
        parts = PurePath(path).parts
        for depth in self.meta.depths:
            key = image_key(PurePath(*parts[-depth:]))
            row = int(np.searchsorted(self.keys, np.uint64(key)))
            if row < len(self.keys) and int(self.keys[row]) == key:
                return row, key
            if key in self._unreadable:
                return None
        raise InputError(
            f"outputs '{self.folder}': none of the image '{path}'; store them for this dataset"
        )

    def read(self, row: int, view: int) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities (float32, all classes, of sum 1) and signature of an image's view.

        Raises:
            InputError: The file is damaged.
        """
        scores = self._tensor(view, 'scores')[row].astype(np.float32)
        signature = self._tensor(view, 'signatures')[row]
        total = float(scores.sum())
        full = self.meta.topk == self.meta.num_classes
        # A comparison with NaN is false.
        if not (scores.min() >= 0 and total <= 1 + _SUM_TOLERANCE) or (full and total <= 0):
            raise self._damaged(view)
        if full:
            return scores / total, signature
        classes = self._tensor(view, 'classes')[row].astype(np.int64)
        if classes.max() >= self.meta.num_classes or len(np.unique(classes)) != len(classes):
            raise self._damaged(view)
        rest = max(0.0, 1 - total) / (self.meta.num_classes - self.meta.topk)
        result = np.full(self.meta.num_classes, rest, np.float32)
        result[classes] = scores
        return result / result.sum(), signature

    def _tensor(self, view: int, name: str) -> Any:
        if view not in self._files:
            self._files[view] = open_view(view_path(self.folder, view))
        count = len(self.keys) if hasattr(self, 'keys') else None
        try:
            found = self._files[view].get_slice(name)
            shape = found.get_shape()
        except Exception as error:  # the library's own error has no class of its own
            raise self._damaged(view) from error
        width = self.meta.topk if name in ('scores', 'classes') else None
        if (count is not None and shape[0] != count) or (width and shape[1:] != [width]):
            raise self._damaged(view)
        return found

    def _damaged(self, view: int) -> DamagedViewError:
        return damaged(view_path(self.folder, view))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_files': {}}  # a mapped file does not go into another process
