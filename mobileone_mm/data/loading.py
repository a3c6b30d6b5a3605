"""Loading images so that one broken file does not end a long run."""

from __future__ import annotations

import io
import logging
import zlib
from functools import cache
from typing import Any

import cv2
import numpy as np
import torch
from mmcv.transforms import LoadImageFromFile
from mmengine import fileio
from mmengine.dist import get_rank
from mmengine.logging import print_log
from PIL import Image

from ..errors import InputError
from ..registry import TRANSFORMS
from .packed import backend as _packed  # noqa: F401  (registers the file backend)

ON_ERROR = ('skip', 'blank', 'raise')
_JPEG_START, _JPEG_END = b'\xff\xd8\xff', b'\xff\xd9'
_GREY = 114
_FALLBACK_SIZE = (256, 256)


@TRANSFORMS.register_module()
class LoadImage(LoadImageFromFile):
    """Load an image; report a file that cannot be read by name, and go on.

    mmcv's loader ends the run with the traceback of a worker, often without the name of the file;
    its ``ignore_empty`` skips such files in silence, and in evaluation mmengine then dies without
    a name. OpenCV fails for a file that is cut off, yet some versions return what there is with the
    rest grey; such a JPEG counts as broken here.

    Args:
        on_error: What happens to a file that cannot be read. ``skip``: the dataset takes another
            sample instead (training). ``blank``: a grey image of the annotated size takes its
            place, so that the metric counts what is missed (evaluation). ``raise``: the run ends.
        **kwargs: Arguments of mmcv's ``LoadImageFromFile``.

    Raises:
        ValueError: ``on_error`` is none of these.
    """

    def __init__(self, *args: Any, on_error: str = 'skip', **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if on_error not in ON_ERROR:
            raise ValueError(f"on_error: got '{on_error}'; {', '.join(ON_ERROR)} are allowed")
        self.on_error = on_error
        _reports()  # before the workers start, so that they share it

    def transform(self, results: dict) -> dict | None:
        """Add ``img``, ``img_shape`` and ``ori_shape`` to the results; None if there is nothing.

        Raises:
            InputError: The file cannot be read and ``on_error`` is ``raise``.
        """
        path = str(results['img_path'])
        try:
            image = self._read(path)
        except InputError as error:
            if self.on_error == 'raise':
                raise
            skipped = self.on_error == 'skip'
            then = 'left out' if skipped else 'counted as a grey image'
            report_file(path, f'{error}; it is {then}')
            if skipped:
                return None
            image = self._blank(results, path)
        if self.to_float32:
            image = image.astype(np.float32)
        results['img'] = image
        results['img_shape'] = image.shape[:2]
        results['ori_shape'] = image.shape[:2]
        return results

    def _read(self, path: str) -> np.ndarray:
        return decode(self.content(path), path, self.color_type, self.imdecode_backend)

    def content(self, path: str) -> bytes:
        """The bytes of an image's file.

        Raises:
            InputError: It cannot be read.
        """
        try:
            if self.file_client_args is not None:
                return fileio.FileClient.infer_client(self.file_client_args, path).get(path)
            return fileio.get(path, backend_args=self.backend_args)
        except OSError as error:
            raise InputError(f"image '{path}' cannot be read: {error.strerror or error}") from error

    def _blank(self, results: dict, path: str) -> np.ndarray:
        height, width = _annotated_size(results, path)
        grey = self.color_type.startswith('grayscale')
        return np.full((height, width) if grey else (height, width, 3), _GREY, np.uint8)


def read_image(path: str) -> np.ndarray:
    """Read an image from a local file: height x width x 3, RGB, 8 bits.

    Raises:
        InputError: It cannot be read, is no image, or cut off.
    """
    return np.ascontiguousarray(LoadImage(on_error='raise')._read(str(path))[..., ::-1])


def decode(
    content: bytes, path: str, color_type: str = 'color', backend: str = 'cv2'
) -> np.ndarray:
    """Decode an image to an array of height, width and channels BGR (none for ``grayscale``).

    Args:
        content: The bytes of the file.
        path: Its name, for the message.
        color_type: Flag of ``mmcv.imfrombytes``.
        backend: Backend of ``mmcv.imfrombytes``.

    Raises:
        InputError: It is no image, or cut off.
    """
    import mmcv

    if not content:
        raise InputError(f"image '{path}' is empty (0 bytes)")
    if _may_be_cut_off(content) and not opencv_notices_cuts():
        try:
            Image.open(io.BytesIO(content)).load()
        except (OSError, SyntaxError, ValueError) as error:
            raise InputError(f"image '{path}' is cut off or damaged: {error}") from error
    try:
        image = mmcv.imfrombytes(content, flag=color_type, backend=backend)
    except (OSError, ValueError, SyntaxError, cv2.error, Image.DecompressionBombError) as error:
        raise InputError(f"image '{path}' is no image or damaged") from error
    if image is None:
        raise InputError(f"image '{path}' is no image, cut off or damaged")
    return image


def _may_be_cut_off(content: bytes) -> bool:
    # The end marker may be followed by other data, and the preview in the head of a file has one
    # of its own: only its absence in the second half is a reason to look closer.
    return content.startswith(_JPEG_START) and content.rfind(_JPEG_END, len(content) // 2) < 0


@cache
def opencv_notices_cuts() -> bool:
    """Whether the installed OpenCV fails for a JPEG that is cut off, instead of filling it up."""
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    content = cv2.imencode('.jpg', noise)[1]
    return cv2.imdecode(content[: len(content) // 2], cv2.IMREAD_COLOR) is None


def _annotated_size(results: dict, path: str) -> tuple[int, int]:
    """Height and width that the annotation speaks of, else those in the head of the file."""
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
    """Checksums of the names already reported, shared with the data-loader workers.

    Without it each worker, and each new generation of them, would report the same file again.
    """
    return torch.zeros(4096, dtype=torch.int64).share_memory_()


def report_file(path: str, message: str) -> None:
    """Log what is wrong with a file, once in all processes of a run."""
    if first_report(path):
        # mmengine's loggers of other ranks pass errors only.
        level = logging.WARNING if get_rank() == 0 else logging.ERROR
        print_log(message, logger='current', level=level)


def first_report(path: str) -> bool:
    """Whether this file has not been reported yet; from now on it has."""
    mark = zlib.crc32(path.encode()) + 1
    table = _reports().numpy()
    for step in range(64):
        slot = (mark + step) % len(table)
        if table[slot] == mark:
            return False
        if table[slot] == 0:
            table[slot] = mark
            return True
    return True


def reported_files(reset: bool = False) -> int:
    """How many unreadable files this process and its data-loader workers have met.

    Args:
        reset: Forget them, for the next run in this process.
    """
    count = int((_reports() != 0).sum())
    if reset:
        _reports().zero_()
    return count
