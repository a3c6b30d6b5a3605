"""Stored outputs of teachers: a folder with one safetensors file for each view of the data set.

A view is one pass over the pictures with the training transforms, each under a seed that depends on
the picture's name and the number of the view (the stored crops of FKD, arXiv 2112.01528, with the seed
in the place of coordinates, so that any transform will do). A file holds the K greatest probabilities
of each picture; the classes besides get the rest in equal parts.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from ..errors import InputError
from ..weights.reading import first_line
from ..weights.writing import atomic_write
from .teachers import describe

_FILE = re.compile(r'view_(\d{4,})\.safetensors')
_ENTRY = 'teacher_outputs'
_VERSION = 1
FASTER_CROP = 'mobileone_mm.RandomResizedCrop'
#: of the float16 probabilities of one picture
_SUM_TOLERANCE = 5e-3


@dataclass(frozen=True)
class OutputsMeta:
    """What all views of a folder have in common.

    Attributes:
        num_classes: Of the teachers.
        topk: How many probabilities a picture has; all of them where it equals ``num_classes``.
        temperature: What logits were divided by.
        teachers: Their descriptions, without folders.
        fingerprints: SHA-256 of their weights.
        transforms: Config of the transforms between loading and packing.
        seed: From which the seeds of the views are derived.
        pictures: SHA-256 of the sorted keys.
        depths: How many parts of a path the pictures' names have.
    """

    num_classes: int
    topk: int
    temperature: float
    teachers: list[dict[str, Any]]
    fingerprints: list[str]
    transforms: list[dict[str, Any]]
    seed: int
    pictures: str
    depths: list[int]


def picture_key(name: str | PurePath) -> int:
    """The key of a picture: 64 bits of a hash of its path below the data set's folder."""
    text = PurePath(name).as_posix()
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), 'big')


def digest_of(keys: np.ndarray) -> str:
    """SHA-256 of sorted keys (uint64)."""
    return hashlib.sha256(np.ascontiguousarray(keys, '<u8').tobytes()).hexdigest()


def view_path(folder: str | Path, view: int) -> Path:
    """The file of a view, counted from 0."""
    return Path(folder, f'view_{view:04d}.safetensors')


def plain_config(node: Any) -> Any:
    """A part of a config as JSON has it: lists for tuples, names for classes."""
    return json.loads(
        json.dumps(node, default=lambda value: getattr(value, '__name__', None) or str(value))
    )


def write_view(
    folder: str | Path, view: int, tensors: Mapping[str, np.ndarray], meta: OutputsMeta
) -> Path:
    """Write the file of a view in one step.

    Args:
        folder: Of the outputs.
        view: Its number.
        tensors: ``keys`` (uint64, sorted; N), ``signatures`` (uint8; N x S), ``scores`` (float16;
            N x K) and, unless all classes are stored, ``classes`` (uint16 or uint32; N x K).
        meta: Of the folder.

    Raises:
        InputError: It cannot be written, or the library is missing.
    """
    library = _library(folder)
    data = library.numpy.save(
        {name: np.ascontiguousarray(value) for name, value in tensors.items()},
        {_ENTRY: json.dumps({'version': _VERSION, **asdict(meta)}, sort_keys=True)},
    )
    path = view_path(folder, view)
    atomic_write(path, lambda file: file.write(data))
    return path


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
                'tools/store_teacher_outputs.py'
            )
        self._files: dict[int, Any] = {}
        self.meta = read_meta(self.folder, self.views[0])
        for view in self.views[1:]:
            if read_meta(self.folder, view) != self.meta:
                raise InputError(
                    f"outputs '{self.folder}': views {self.views[0]} and {view} are of other teachers, "
                    'transforms or pictures; make each in a folder of its own'
                )
        self.keys = self._tensor(self.views[0], 'keys')[:]
        if self.keys.ndim != 1 or digest_of(self.keys) != self.meta.pictures:
            raise InputError(
                f"outputs '{self.folder}': the file of view {self.views[0]} is damaged"
            )

    def __str__(self) -> str:
        return (
            f'{len(self.keys)} pictures, {len(self.views)} views, the {self.meta.topk} greatest of '
            f"{self.meta.num_classes} classes, from '{self.folder}'"
        )

    def check(
        self, teachers: Sequence[Mapping[str, Any]], temperature: float, num_classes: int
    ) -> None:
        """Check that they are those of these teachers.

        Raises:
            InputError: Naming what differs.
        """
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
                f"outputs '{self.folder}': the views were made by the transforms "
                f'{self.meta.transforms}, the training pipeline has {plain_config(transforms)}; store '
                'them anew or set the pipeline to them'
            )

    def find(self, path: str | PurePath) -> tuple[int, int]:
        """Row and key of a picture.

        Raises:
            InputError: It has no stored outputs.
        """
        parts = PurePath(path).parts
        for depth in self.meta.depths:
            key = picture_key(PurePath(*parts[-depth:]))
            row = int(np.searchsorted(self.keys, np.uint64(key)))
            if row < len(self.keys) and int(self.keys[row]) == key:
                return row, key
        raise InputError(
            f"outputs '{self.folder}': none of the picture '{path}'; store them for this data set"
        )

    def read(self, row: int, view: int) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities (float32, all classes, of sum 1) and signature of a picture's view.

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
            self._files[view] = _open(view_path(self.folder, view))
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

    def _damaged(self, view: int) -> InputError:
        return InputError(f"outputs '{view_path(self.folder, view)}': is damaged; store it anew")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_files': {}}  # a mapped file does not go into another process


def views_in(folder: Path) -> list[int]:
    """Numbers of the views that a folder has; none if there is no such folder."""
    if not folder.is_dir():
        return []
    found = (_FILE.fullmatch(path.name) for path in folder.iterdir())
    return sorted(int(match[1]) for match in found if match)


def read_meta(folder: str | Path, view: int) -> OutputsMeta:
    """What the file of a view says about itself.

    Raises:
        InputError: It is damaged, or no such file.
    """
    path = view_path(folder, view)
    try:
        entry = json.loads(_open(path).metadata()[_ENTRY])
        if entry.pop('version') != _VERSION:
            raise InputError(
                f"outputs '{path}': is of another version of the format; store it anew"
            )
        return OutputsMeta(**entry)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"outputs '{path}': holds no outputs of teachers") from error


def _open(path: Path) -> Any:
    library = _library(path)
    try:
        return library.safe_open(path, framework='numpy').__enter__()
    except (OSError, library.SafetensorError) as error:
        raise InputError(
            f"outputs '{path}': cannot be read ({first_line(str(error))}); store it anew"
        ) from error


def _library(path: str | Path) -> Any:
    try:
        import safetensors
        import safetensors.numpy
    except ImportError:
        raise InputError(
            f"outputs '{path}': a library is needed; run `pip install safetensors`"
        ) from None
    return safetensors
