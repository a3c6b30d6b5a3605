"""Encode images."""

import cv2
import numpy as np

from ..errors import InputError


def encode_image(image: np.ndarray, suffix: str) -> bytes:
    """Return the bytes of an image file: RGB of uint8, or one channel; JPEG has quality 95.

    InputError if the format cannot hold the image: a JPEG ends at 65,500 px. OpenCV only returns False
    then, or raises an error that does not say it.
    """
    pixels = np.ascontiguousarray(image[..., ::-1]) if image.ndim == 3 else image
    try:
        done, content = cv2.imencode(suffix, pixels)
    except cv2.error:
        done = False
    if not done:
        height, width = image.shape[:2]
        limit = ' (at most 65500 px)' if suffix.lower() in ('.jpg', '.jpeg') else ''
        raise InputError(f'{width} x {height} px cannot be written as {suffix}{limit}')
    return content.tobytes()
