"""Load images so that one broken file does not end a long run."""

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
from .packed import packs as _packs  # noqa: F401  (registers the file backend)

# What the decoders of mmcv raise for a file that is no image, or a damaged one.
DECODING_ERRORS = (OSError, SyntaxError, ValueError, cv2.error, Image.DecompressionBombError)
_JPEG_START, _JPEG_END = b'\xff\xd8\xff', b'\xff\xd9'
_GRAY = 114
_FALLBACK_SIZE = (256, 256)


@TRANSFORMS.register_module()
class LoadImage(LoadImageFromFile):
    """Load an image. Report a file that cannot be read by name, and continue.

    mmcv's loader ends the run with a traceback, often without the file name, and some versions of
    OpenCV fill a truncated JPEG with gray.

    Args:
        on_error: The reaction to a file that cannot be read. ``skip``: the dataset returns another
            sample (training). ``blank``: a gray image of the annotated size, so that the metric
            counts the missed objects (evaluation). ``raise``: the run ends with an InputError.
        **kwargs: Arguments of mmcv's ``LoadImageFromFile``.
    """

    def __init__(self, *args: Any, on_error: str = 'skip', **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.on_error = known_reaction(on_error, ('skip', 'blank', 'raise'))
        _reports()  # before the workers start: they share it

    def transform(self, results: dict) -> dict | None:
        """Add ``img``, ``img_shape`` and ``ori_shape`` to the results; None if the file is skipped."""
        path = str(results['img_path'])
        try:
            image = self.decode(self.content(path), path)
        except InputError as error:
            if self.on_error == 'raise':
                raise
            then = 'skipped' if self.on_error == 'skip' else 'replaced by a gray image'
            report_file(path, f'{error}; it is {then}')
            if self.on_error == 'skip':
                return None
            channels = () if self.color_type.startswith('grayscale') else (3,)
            image = np.full((*_annotated_size(results, path), *channels), _GRAY, np.uint8)
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
                return image
        raise InputError(f"image '{path}' is not an image, or is truncated or damaged")


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


def _annotated_size(results: dict, path: str) -> tuple[int, int]:
    """Return height and width from the annotation, else from the header of the mask or image."""
    if results.get('height') and results.get('width'):
        return int(results['height']), int(results['width'])
    for name in (results.get('seg_map_path'), path):
        try:
            with Image.open(io.BytesIO(fileio.get(name))) as image:
                return image.height, image.width
        except (OSError, SyntaxError, TypeError, ValueError):
            continue
    return _FALLBACK_SIZE


@cache
def _reports() -> torch.Tensor:
    """Return checksums of the reported names, shared with the workers to avoid repeated reports."""
    return torch.zeros(4096, dtype=torch.int64).share_memory_()


def report_file(path: str, message: str) -> None:
    """Log the fault of a file, once in all processes of a run."""
    table, mark = _reports().numpy(), zlib.crc32(path.encode()) + 1
    if mark not in table:
        table[(table == 0).argmax()] = mark
        # mmengine's loggers of other ranks only pass errors.
        level = logging.WARNING if get_rank() == 0 else logging.ERROR
        print_log(message, logger='current', level=level)


def reported_files(reset: bool = False) -> int:
    """Count the unreadable files of this process and its workers; ``reset`` forgets them."""
    count = int((_reports() != 0).sum())
    if reset:
        _reports().zero_()
    return count
