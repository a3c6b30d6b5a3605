"""Stored outputs of teachers: a folder with two files for each view of the dataset.

A view is one pass over the images with the training transforms. Each image has a seed that depends
on its name and on the number of the view. FKD (arXiv 2112.01528) stores the coordinates of crops
instead; a seed works for any transform. ``view_NNNN.npy`` has a row for each image: its key, the K
greatest probabilities with their classes, and the signature of the view. The other classes share
the rest equally. An image that could not be read has probabilities of 0. ``view_NNNN.json`` says
what the rows were made from, and has a checksum of both files.
"""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from ..errors import InputError, one_line
from ..files import atomic_write_all, reason_of
from ..registry import FASTER

# The mean colours of a coarse grid identify a view: decoders differ by a level or two, another crop
# of the same image differs by tens of levels.
GRID = 4


class DamagedViewError(InputError):
    """The files of a view are not as they were written; storing writes them again."""


@dataclass(frozen=True)
class OutputsMeta:
    """What all views of a folder have in common; only types of JSON."""

    num_classes: int
    topk: int  # number of stored probabilities of an image
    temperature: float  # divisor of the logits
    teachers: list[dict[str, Any]]  # see describe
    fingerprints: list[str]  # see Teacher.fingerprint
    transforms: list[dict[str, Any]]  # between loading and packing, see plain_config
    seed: int  # source of the seeds of the views
    images: str  # SHA-256 of the sorted keys of the images

    def check(self, place: str | Path, **wanted: Any) -> None:
        """Raise an InputError if a value differs from that of a config or of other outputs."""
        for name, now in wanted.items():
            own = getattr(self, name)
            if own != now:
                raise InputError(
                    f"outputs '{place}': have other {name} ({own}; now: {now}); store them in another "
                    'folder, or change the config'
                )

    def rows(self, keys: np.ndarray) -> np.ndarray:
        """Make the rows of the images with these sorted keys; all other values are 0."""
        fields: list[tuple] = [('key', '<u8'), ('scores', '<f2', self.topk)]
        if self.topk < self.num_classes:
            fields.append(('classes', '<u2' if self.num_classes <= 1 << 16 else '<u4', self.topk))
        rows = np.zeros(len(keys), [*fields, ('signature', 'u1', 3 * GRID**2)])
        rows['key'] = keys
        return rows


class TeacherOutputs:
    """The views of a folder; the files are mapped and read row by row.

    ``verify`` reads the files for their checksums. An InputError says that there is no view, that
    a file is damaged, or that the views differ in their settings.
    """

    def __init__(self, folder: str | Path, verify: bool = False) -> None:
        self.folder = Path(folder).expanduser()
        self.views = views_in(self.folder)
        if not self.views:
            raise InputError(
                f"outputs '{self.folder}': has no view_NNNN.json; make it with "
                'tools/misc/store_teacher_outputs.py'
            )
        self._rows: dict[int, np.ndarray] = {}
        for view in self.views:
            path = view_path(self.folder, view)
            self._rows[view], meta = open_view(path, verify)
            if view == self.views[0]:
                self.meta = meta
            meta.check(path, **asdict(self.meta))
        self.keys = np.ascontiguousarray(self._rows[self.views[0]]['key'])

    def __str__(self) -> str:
        return (
            f'{len(self.keys)} images, {len(self.views)} views, the {self.meta.topk} greatest of '
            f"{self.meta.num_classes} classes, from '{self.folder}'"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return TeacherOutputs, (self.folder,)  # a pickled map would be a copy of the file

    def find(self, path: str | PurePath) -> int:
        """Return the row of an image; raise an InputError if it has no stored outputs."""
        parts = PurePath(path).parts
        for start in range(len(parts)):  # the folder of the dataset can have another place here
            key = np.uint64(image_key(PurePath(*parts[start:])))
            row = int(np.searchsorted(self.keys, key))
            if row < len(self.keys) and self.keys[row] == key:
                return row
        raise InputError(
            f"outputs '{self.folder}': have nothing for the image '{path}'; store them for this "
            'dataset'
        )

    def read(self, row: int, view: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Read the probabilities (float32, all classes, sum 1) and the signature of an image.

        Returns None for an image that could not be read when the view was stored.
        """
        found = self._rows[view][row]
        scores = found['scores'].astype(np.float32)
        if not scores.any():
            return None
        rest = self.meta.num_classes - len(scores)
        if rest:
            share = max(0.0, 1 - float(scores.sum())) / rest
            stored, scores = scores, np.full(self.meta.num_classes, share, np.float32)
            scores[found['classes']] = stored
        return scores / scores.sum(), found['signature']


def image_key(name: str | PurePath) -> int:
    """Hash the path of an image below the folder of the dataset to 64 bits."""
    text = PurePath(name).as_posix()
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), 'big')


def describe(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the description of a teacher without folders of its files; addresses stay whole."""
    plain = plain_config(spec)
    for key in ('checkpoint', 'config'):
        if plain.get(key) and '://' not in plain[key]:
            plain[key] = plain[key].rpartition('/')[2]
    return {key: value for key, value in plain.items() if value is not None}


def plain_config(node: Any) -> Any:
    """Convert a part of a config to JSON's types, with one name for each type.

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
    """Return the file with the rows of a view; views count from 0."""
    return Path(folder, f'view_{view:04d}.npy')


def views_in(folder: Path) -> list[int]:
    """List the numbers of the views in a folder, which need not exist."""
    numbers = (path.stem.removeprefix('view_') for path in folder.glob('view_*.json'))
    return sorted(int(number) for number in numbers if number.isdecimal())


def write_view(path: Path, rows: np.ndarray, meta: OutputsMeta) -> None:
    """Write both files of a view, or none; ``rows`` are filled :meth:`OutputsMeta.rows`."""
    # Into memory first: np.save hides the reason when its file fails, such as a full disk.
    data = io.BytesIO()
    np.save(data, rows)
    text = json.dumps({**asdict(meta), 'checksum': _checksum(meta, rows)}, indent=2) + '\n'
    # Readers look for the second file.
    atomic_write_all({
        path: lambda file: file.write(data.getbuffer()),
        path.with_suffix('.json'): text.encode(),
    })  # fmt: skip


def open_view(path: Path, verify: bool = False) -> tuple[np.ndarray, OutputsMeta]:
    """Map the rows of a view and read its settings; ``verify`` reads all of it for the checksum.

    Files that cannot be read are an InputError; a DamagedViewError if they are not as written.
    """
    try:
        entry = json.loads(path.with_suffix('.json').read_bytes())
        checksum = entry.pop('checksum')
        meta = OutputsMeta(**entry)
        rows = np.load(path, mmap_mode='r')
        if rows.dtype != meta.rows(np.empty(0)).dtype:
            raise ValueError('its rows are of another type')
        if verify and checksum != _checksum(meta, rows):
            raise ValueError('its content does not have its checksum')
    except Exception as error:  # NumPy and json have a class of error for each fault
        if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
            raise InputError(f"outputs '{path}': cannot be read: {reason_of(error)}") from error
        raise DamagedViewError(
            f"outputs '{path}': is damaged ({one_line(error)}); repeat the call of "
            'tools/misc/store_teacher_outputs.py that made it, which writes damaged views again'
        ) from error
    return rows, meta


def _checksum(meta: OutputsMeta, rows: np.ndarray) -> str:
    digest = hashlib.sha256(json.dumps(asdict(meta), sort_keys=True).encode())
    digest.update(rows.view(np.uint8).data)
    return digest.hexdigest()
