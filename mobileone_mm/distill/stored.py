"""Stored outputs of teachers: a folder with one safetensors file for each view of the dataset.

A view is one pass over the images with the training transforms. Each image has a seed that depends
on its name and on the number of the view. FKD (arXiv 2112.01528) stores the coordinates of crops
instead; a seed works for any transform. A file holds the K greatest probabilities of each image.
The other classes share the rest equally. An image that could not be read has probabilities of 0.
A checksum covers everything in the file.
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
from ..files import atomic_write
from ..registry import FASTER
from ..weights.reading import first_line
from .teachers import describe

_FILE = re.compile(r'view_(\d{4,})\.safetensors')
_ENTRY = 'teacher_outputs'
#: files of version 1 have no checksum
_VERSION = 2


class DamagedViewError(InputError):
    """The file of a view is not as it was written; storing writes it again."""


@dataclass(frozen=True)
class OutputsMeta:
    """What all views of a folder have in common."""

    num_classes: int
    topk: int  # number of stored probabilities of an image
    temperature: float  # divisor of the logits
    teachers: list[dict[str, Any]]  # descriptions without folders
    fingerprints: list[str]  # see Teacher.fingerprint
    transforms: list[dict[str, Any]]  # between loading and packing
    seed: int  # source of the seeds of the views
    images: str  # SHA-256 of the sorted keys of the images
    depths: list[int]  # numbers of path components in the names of the images


class TeacherOutputs:
    """The views of a folder; files are mapped and read row by row.

    Raises:
        InputError: There is no view, a file is damaged, or the views differ in their settings.
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
        first, self.meta = open_view(view_path(self.folder, self.views[0]))
        self.keys = first.get_tensor('keys')
        for view in self.views[1:]:
            if open_view(view_path(self.folder, view))[1] != self.meta:
                raise InputError(
                    f"outputs '{self.folder}': views {self.views[0]} and {view} are of different "
                    'teachers, transforms or images; use one folder for each'
                )

    def __str__(self) -> str:
        return (
            f'{len(self.keys)} images, {len(self.views)} views, the {self.meta.topk} greatest of '
            f"{self.meta.num_classes} classes, from '{self.folder}'"
        )

    def check(
        self, teachers: Sequence[Mapping[str, Any]], temperature: float, num_classes: int
    ) -> None:
        """Raise an InputError if a file is damaged, or a setting differs from that of a config."""
        for view in self.views:
            open_view(view_path(self.folder, view), verify=True)
        for name, own, asked in (
            ('model.head.num_classes', self.meta.num_classes, num_classes),
            ('model.distill_loss.temperature', self.meta.temperature, temperature),
            ('model.teachers', self.meta.teachers, [describe(spec) for spec in teachers]),
        ):
            if own != asked:
                raise InputError(
                    f"outputs '{self.folder}': were made with {name}={own}, the config has {asked}; "
                    'store them again or change the config'
                )

    def check_weights(self, found: Sequence[str | None]) -> None:
        """Raise an InputError if a fingerprint of a teacher differs; None stands for any."""
        for index, (own, now) in enumerate(zip(self.meta.fingerprints, found, strict=True)):
            if now not in (None, own):
                raise InputError(
                    f"outputs '{self.folder}': were made with other weights, normalisation or size of "
                    f'model.teachers.{index}, which has the same name; store them again or use that '
                    'teacher'
                )

    def check_transforms(self, transforms: Any) -> None:
        """Raise an InputError if the views were made by other transforms."""
        own, wanted = plain_config(transforms), plain_config(self.meta.transforms)
        if own != wanted:
            raise InputError(
                f"outputs '{self.folder}': the views were made by the transforms {wanted}, the "
                f'training pipeline has {own}; store them again or change the pipeline'
            )

    def find(self, path: str | PurePath) -> tuple[int, int]:
        """Return row and key of an image; raise an InputError if it has no stored outputs."""
        parts = PurePath(path).parts
        for depth in self.meta.depths:
            key = image_key(PurePath(*parts[-depth:]))
            row = int(np.searchsorted(self.keys, np.uint64(key)))
            if row < len(self.keys) and int(self.keys[row]) == key:
                return row, key
        raise InputError(
            f"outputs '{self.folder}': have nothing for the image '{path}'; store them for this "
            'dataset'
        )

    def read(self, row: int, view: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Read the probabilities (float32, all classes, sum 1) and the signature of an image.

        Returns None for an image that could not be read when the view was stored.
        """
        file = self._file(view)
        scores = file.get_slice('scores')[row].astype(np.float32)
        if not scores.any():
            return None
        signature = file.get_slice('signatures')[row]
        rest = self.meta.num_classes - len(scores)
        if rest:
            classes = file.get_slice('classes')[row].astype(np.int64)
            share = max(0.0, 1 - float(scores.sum())) / rest
            stored, scores = scores, np.full(self.meta.num_classes, share, np.float32)
            scores[classes] = stored
        return scores / scores.sum(), signature

    def _file(self, view: int) -> Any:
        if view not in self._files:
            self._files[view] = open_view(view_path(self.folder, view))[0]
        return self._files[view]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_files': {}}  # a mapped file cannot go to another process


def image_key(name: str | PurePath) -> int:
    """Hash the path of an image below the folder of the dataset to 64 bits."""
    text = PurePath(name).as_posix()
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), 'big')


def digest_of(keys: np.ndarray) -> str:
    """Return the SHA-256 of sorted keys (uint64)."""
    return hashlib.sha256(np.ascontiguousarray(keys, '<u8').tobytes()).hexdigest()


def plain_config(node: Any) -> Any:
    """Convert a part of a config to JSON's types, with one name for each transform.

    The scope of a host is left out, and a faster transform has the name of the transform that it
    replaces (``faster_transforms`` of the config pass): both make the same pixels.
    """

    def canonical(step: dict[str, Any]) -> dict[str, Any]:
        if isinstance(step.get('type'), str):
            scope, _, name = step['type'].rpartition('.')
            if scope != 'mobileone_mm' or name in FASTER:
                step['type'] = name
        return step

    def name_of(value: Any) -> str:
        scope = f'{value.__module__.partition(".")[0]}.' if isinstance(value, type) else ''
        return scope + (getattr(value, '__name__', None) or str(value))

    return json.loads(json.dumps(node, default=name_of), object_hook=canonical)


def view_path(folder: str | Path, view: int) -> Path:
    """Return the file of a view; views count from 0."""
    return Path(folder, f'view_{view:04d}.safetensors')


def views_in(folder: Path) -> list[int]:
    """List the numbers of the views in a folder, which need not exist."""
    found = (_FILE.fullmatch(path.name) for path in (folder.iterdir() if folder.is_dir() else ()))
    return sorted(int(match[1]) for match in found if match)


def write_view(
    folder: str | Path, view: int, tensors: Mapping[str, np.ndarray], meta: OutputsMeta
) -> Path:
    """Write the file of a view in one step.

    The tensors are ``keys`` (uint64, sorted; N), ``signatures`` (uint8; N x S), ``scores`` (float16;
    N x K) and, unless all classes are stored, ``classes`` (uint16 or uint32; N x K).
    """
    library = _library(folder)
    arrays = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    entry = {'version': _VERSION, **asdict(meta)}
    entry['checksum'] = _checksum(entry, arrays)
    data = library.numpy.save(arrays, {_ENTRY: json.dumps(entry, sort_keys=True)})
    path = view_path(folder, view)
    atomic_write(path, lambda file: file.write(data))
    return path


def open_view(path: Path, verify: bool = False) -> tuple[Any, OutputsMeta]:
    """Map the file of a view and read its settings; ``verify`` reads all of it for the checksum.

    Raises:
        DamagedViewError: The file is not as it was written.
        InputError: It cannot be read, or is of another kind or version.
    """
    library = _library(path)
    try:
        file = library.safe_open(path, framework='numpy').__enter__()
    except library.SafetensorError as error:
        raise _damaged(path, first_line(str(error))) from error
    except OSError as error:
        raise InputError(f"outputs '{path}': cannot be read ({first_line(str(error))})") from error
    text = (file.metadata() or {}).get(_ENTRY)
    if text is None:
        raise InputError(f"outputs '{path}': holds no outputs of teachers; remove it")
    try:
        entry = dict(json.loads(text))
        version = entry['version']
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path) from error
    if version != _VERSION:
        raise InputError(
            f"outputs '{path}': has version {version} of the format, expected {_VERSION}; remove it "
            'and store it again'
        )
    checksum = entry.pop('checksum', None)
    try:
        meta = OutputsMeta(**{key: entry[key] for key in OutputsMeta.__dataclass_fields__})
        arrays = {name: file.get_tensor(name) for name in (file.keys() if verify else ())}
    except Exception as error:  # safetensors has a class of its own for each fault
        raise _damaged(path, first_line(str(error))) from error
    keys = arrays.get('keys', np.empty(0, np.uint64))
    if verify and (checksum != _checksum(entry, arrays) or digest_of(keys) != meta.images):
        raise _damaged(path, 'its content does not have its checksum')
    return file, meta


def _damaged(path: Path, reason: str = '') -> DamagedViewError:
    return DamagedViewError(
        f"outputs '{path}': is damaged{reason and f' ({reason})'}; repeat the call of "
        'tools/misc/store_teacher_outputs.py that made it, which writes damaged views again'
    )


def _checksum(entry: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256(json.dumps(entry, sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        digest.update(f'{name} {array.dtype} {array.shape}'.encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _library(path: str | Path) -> Any:
    try:
        import safetensors
        import safetensors.numpy
    except ImportError:
        raise InputError(
            f"outputs '{path}': need a library; run `pip install safetensors`"
        ) from None
    return safetensors
