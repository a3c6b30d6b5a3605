"""Load images so that one broken file does not end a long run, and compare them with annotations."""

import io
import logging
import zlib
from contextlib import suppress
from functools import cache
from typing import Any

import cv2
import mmcv
import numpy as np
import torch
from mmcv.transforms import LoadImageFromFile
from mmengine import fileio
from mmengine.dist import get_rank
from mmengine.logging import print_log
from PIL import Image

from ..errors import InputError
from ..registry import TRANSFORMS
from .exif import DECODING_ERRORS, read_header, turned
from .packed import packs as _packs  # noqa: F401  (registers the file backend)
from .sizes import count_size, shared_counts, size_fault

_JPEG_START, _JPEG_END = b'\xff\xd8\xff', b'\xff\xd9'
_GRAY = 114
_FALLBACK_SIZE = (256, 256)
UNREADABLE, SIZE = 'unreadable', 'of another size'  # kinds of reports


@TRANSFORMS.register_module()
class LoadImage(LoadImageFromFile):
    """Load an image. Report a file that cannot be read by name, and continue.

    mmcv's loader ends the run with a traceback, often without the file name, and some versions of
    OpenCV fill a truncated JPEG with gray. Its decoders do not turn all images by EXIF; here, all do,
    also with ``color_type='unchanged'``, but not with ``*_ignore_orientation``.

    An image whose size is not the annotated one (``height`` and ``width``) is reported by name. If
    these are more than 1 % of the loaded images, an InputError ends the run.

    Args:
        on_error: The reaction to a file that cannot be read. ``skip``: the dataset returns another
            sample (training). ``blank``: a gray image of the annotated size, so that the metric
            counts the missed objects (evaluation). ``raise``: the run ends with an InputError.
        **kwargs: Arguments of mmcv's ``LoadImageFromFile``.
    """

    def __init__(self, *args: Any, on_error: str = 'skip', **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.on_error = known_reaction(on_error, ('skip', 'blank', 'raise'))
        _reports()  # before the workers start: they share the reports and the counts
        shared_counts()

    def transform(self, results: dict) -> dict | None:
        """Add ``img``, ``img_shape`` and ``ori_shape`` to the results; None if the file is skipped."""
        path = str(results['img_path'])
        content = b''
        try:
            content = self.content(path)
            image = self.decode(content, path)
        except InputError as error:
            if self.on_error == 'raise':
                raise
            then = 'skipped' if self.on_error == 'skip' else 'replaced by a gray image'
            report_file(path, f'{error}; it is {then}')
            if self.on_error == 'skip':
                return None
            channels = () if self.color_type.startswith('grayscale') else (3,)
            image = np.full((*_annotated_size(results, content), *channels), _GRAY, np.uint8)
        else:
            self._compare_size(results, path, image.shape[:2], content)
        if self.to_float32:
            image = image.astype(np.float32)
        results.update(img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2])
        return results

    def content(self, path: str) -> bytes:
        """Return the bytes of an image file; InputError if it cannot be read."""
        try:
            if self.file_client_args is not None:
                return fileio.FileClient.infer_client(self.file_client_args, path).get(path)
            return fileio.get(path, backend_args=self.backend_args)
        except OSError as error:
            raise InputError(f"image '{path}' cannot be read: {error.strerror or error}") from error

    def decode(self, content: bytes, path: str) -> np.ndarray:
        """Decode an image to (height, width, 3) in BGR order, or (height, width) for gray."""
        if not content:
            raise InputError(f"image '{path}' is empty (0 bytes)")
        # Other data may follow the end marker, and a preview in the file header has its own one.
        complete = content.rfind(_JPEG_END, len(content) // 2) >= 0
        with suppress(*DECODING_ERRORS):
            if content.startswith(_JPEG_START) and not complete and not opencv_rejects_truncated():
                Image.open(io.BytesIO(content)).load()
            image = mmcv.imfrombytes(content, flag=self.color_type, backend=self.imdecode_backend)
            if image is not None:
                return turned(image, content, self.color_type, self.imdecode_backend)
        raise InputError(f"image '{path}' is not an image, or is truncated or damaged")

    def _compare_size(
        self, results: dict, path: str, found: tuple[int, int], content: bytes
    ) -> None:
        annotated = _size_of(results)
        if annotated is None:
            return
        fault = size_fault(path, annotated, found)
        if fault is not None and not self.color_type.endswith('ignore_orientation'):
            with suppress(*DECODING_ERRORS):
                header = read_header(io.BytesIO(content))
                fault = size_fault(path, annotated, found, header.orientation)
        if fault is not None:
            report_file(path, fault.text, SIZE)
        count_size(fault)


def known_reaction(on_error: str, known: tuple[str, ...]) -> str:
    """Return ``on_error``; ValueError if it is not known."""
    if on_error not in known:
        raise ValueError(f"on_error: got '{on_error}'; expected one of {', '.join(known)}")
    return on_error


def read_image(path: str) -> np.ndarray:
    """Read a local file as (height, width, 3) of uint8, RGB; InputError if it is no whole image."""
    loaded = LoadImage(on_error='raise').transform(dict(img_path=str(path)))
    return np.ascontiguousarray(loaded['img'][..., ::-1])  # type: ignore[index]


@cache
def opencv_rejects_truncated() -> bool:
    """Return whether the installed OpenCV rejects a truncated JPEG instead of filling it."""
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    content = cv2.imencode('.jpg', noise)[1]
    return cv2.imdecode(content[: len(content) // 2], cv2.IMREAD_COLOR) is None


def _size_of(results: dict) -> tuple[int, int] | None:
    """Return height and width of the annotation, if it has them."""
    size = results.get('height'), results.get('width')
    if all(isinstance(side, (int, float)) and side > 0 for side in size):
        return int(size[0]), int(size[1])  # type: ignore[arg-type]
    return None


def _annotated_size(results: dict, content: bytes) -> tuple[int, int]:
    """Return height and width from the annotation, else from the header of the mask or image."""
    if (size := _size_of(results)) is not None:
        return size
    with suppress(*DECODING_ERRORS, TypeError):  # without a mask
        return read_header(io.BytesIO(fileio.get(results.get('seg_map_path'))))[:2]
    with suppress(*DECODING_ERRORS):
        return read_header(io.BytesIO(content))[:2]
    return _FALLBACK_SIZE


@cache
def _reports() -> dict[str, torch.Tensor]:
    """Return checksums of the reported names, shared with the workers to avoid repeated reports."""
    kinds = UNREADABLE, SIZE
    return {kind: torch.zeros(4096, dtype=torch.int64).share_memory_() for kind in kinds}


def report_file(path: str, message: str, kind: str = UNREADABLE) -> None:
    """Log the fault of a file, once in all processes of a run and for each kind of fault."""
    table, mark = _reports()[kind].numpy(), zlib.crc32(path.encode()) + 1
    if mark not in table:
        table[(table == 0).argmax()] = mark
        # mmengine's loggers of other ranks only pass errors.
        level = logging.WARNING if get_rank() == 0 else logging.ERROR
        print_log(message, logger='current', level=level)


def reported_files(reset: bool = False, kind: str = UNREADABLE) -> int:
    """Count the reported files of this process and its workers; ``reset`` forgets them."""
    count = int((_reports()[kind] != 0).sum())
    if reset:
        _reports()[kind].zero_()
    return count


def forget_files() -> None:
    """Forget all reported files and counted sizes, at the start of a run."""
    for table in (*_reports().values(), shared_counts()):
        table.zero_()
