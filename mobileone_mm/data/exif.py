"""Size and orientation of an image in its header; turn images that a decoder has left as stored.

The decoders of mmcv differ: OpenCV turns JPEG and PNG by EXIF, but not WebP and AVIF; turbojpeg and
tifffile never turn; with ``unchanged`` no decoder turns. Boxes and drawings need one rule for all of
them.
"""

import io
import warnings
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import cv2
import mmcv
import numpy as np
from PIL import Image

# What the decoders of mmcv, and Pillow for a header, raise for a file that is no image, or damaged.
DECODING_ERRORS = (OSError, SyntaxError, ValueError, cv2.error, Image.DecompressionBombError)
_TAIL = 65536  # bytes
_WIDTH, _HEIGHT, _ORIENTATION = 256, 257, 274  # numbers of the tags in TIFF and EXIF
# Formats with an orientation: Pillow's name, and the first bytes from some place on.
_SIGNATURES = (
    ('JPEG', 0, b'\xff\xd8\xff'), ('PNG', 0, b'\x89PNG'), ('WEBP', 8, b'WEBP'),
    ('TIFF', 0, b'II*\0'), ('TIFF', 0, b'MM\0*'), ('AVIF', 4, b'ftypavif'),
)  # fmt: skip


class Header(NamedTuple):
    """Size in pixels after turning, and orientation from 1 (as stored) to 8."""

    height: int
    width: int
    orientation: int


def read_header(file: str | Path | BinaryIO, turns: bool = True) -> Header:
    """Read size and orientation without decoding; one of ``DECODING_ERRORS`` if it is no image.

    ``turns``: Whether the loader turns the image; otherwise all is as stored.
    """
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # Pillow warns of damaged EXIF, which OpenCV passes over
        with Image.open(file) as image:
            (width, height), orientation = image.size, 1
            with suppress(Exception):  # Pillow raises anything for a damaged block of EXIF
                tags = _tags(image)
                orientation = tags.get(_ORIENTATION, 1)
                # Pillow exchanges the sides of a TIFF itself.
                if image.format == 'TIFF':
                    width, height = tags[_WIDTH], tags[_HEIGHT]
    if orientation not in range(1, 9) or not turns:
        orientation = 1
    return Header(*((width, height) if orientation > 4 else (height, width)), orientation)


def _tags(image: Image.Image) -> Any:
    """Return the tags of a TIFF or of EXIF."""
    if image.format == 'TIFF':
        return image.tag_v2  # type: ignore[attr-defined]
    # Not `getexif`: it decodes a PNG, and looks into XMP, which OpenCV does not.
    exif = Image.Exif()
    exif.load(image.info.get('exif') or _late_exif(image))
    return exif


def _late_exif(image: Image.Image) -> bytes:
    """Return EXIF behind the pixels of a PNG, which OpenCV uses, and Pillow finds by decoding."""
    file = image.fp if image.format == 'PNG' else None  # type: ignore[attr-defined]
    if file is None:
        return b''
    file.seek(max(0, file.seek(0, io.SEEK_END) - _TAIL))
    return file.read().partition(b'eXIf')[2]


def turned(image: np.ndarray, content: bytes, flag: str, backend: str | None) -> np.ndarray:
    """Turn a decoded image (height, width, ...) by its EXIF orientation if its decoder has not.

    Args:
        content: The encoded image.
        flag: mmcv's ``color_type``; with ``*_ignore_orientation`` the image stays as it is.
        backend: mmcv's ``imdecode_backend``, which has decoded the image.
    """
    kind = next((k for k, start, mark in _SIGNATURES if content.startswith(mark, start)), None)
    if kind is None or flag.endswith('ignore_orientation') or _turns(kind, flag, backend):
        return image
    try:
        orientation = read_header(io.BytesIO(content)).orientation
    except DECODING_ERRORS:  # a format that this Pillow does not know
        return image
    if orientation > 4:
        image = image.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


@cache
def _turns(kind: str, flag: str, backend: str | None) -> bool:
    """Return whether a decoder turns images of a format itself; releases of OpenCV differ."""
    Image.init()
    if kind not in Image.SAVE:  # Pillow cannot read the orientation either
        return True
    file, exif = io.BytesIO(), Image.Exif()
    exif[_ORIENTATION] = 6
    Image.new('RGB', (16, 8)).save(file, kind, exif=exif)
    return mmcv.imfrombytes(file.getvalue(), flag=flag, backend=backend).shape[:2] == (16, 8)
