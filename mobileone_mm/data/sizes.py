"""Compare the size of an image with its annotation, and count the images that have another one.

Boxes belong to the pixels that the annotator saw. The hosts scale the boxes of an image that was
turned or resized since like all others: training and metric are wrong without a message.
"""

from functools import cache
from typing import NamedTuple

import torch
from mmengine.dist import all_reduce

from ..errors import InputError

LARGEST_SHARE = 0.01
# One wrong image of many must not end a run because it comes early.
_LEAST = 10
_Size = tuple[float, float]  # height, width


class SizeFault(NamedTuple):
    """The image, both sizes and the likely cause in a sentence; what to do."""

    text: str
    advice: str


def size_fault(path: str, annotated: _Size, found: _Size, orientation: int = 1) -> SizeFault | None:
    """Describe how an image differs from its annotation by more than 1 px; None if it does not.

    ``found`` is the size after turning by the EXIF orientation.
    """
    if _close(annotated, found):
        return None
    (height, width), turned = annotated, annotated[::-1]
    cause, advice = _exchanged(orientation)
    if _same_ratio(annotated, found):
        cause = f'the image was resized after the annotation, by {found[0] / height:.3g}'
        advice = (
            'take the images that were annotated, or scale the sizes and boxes of the annotation'
        )
    elif _close(turned, found):
        pass
    elif _same_ratio(turned, found):
        cause = f'{cause}; the image was also resized, by {found[0] / width:.3g}'
    else:
        cause = 'it is another image, or was cropped or padded after the annotation'
        advice = 'take the images that were annotated'
    text = (
        f"image '{path}' has {found[1]} x {found[0]} pixels, its annotation says {width} x {height}"
    )
    return SizeFault(f'{text}: {cause}', advice)


def _exchanged(orientation: int) -> tuple[str, str]:
    """Return cause and advice for exchanged sides."""
    if orientation > 4:
        return (
            f'height and width are exchanged: the EXIF orientation {orientation} turns the image, and '
            'the annotation has its stored size',
            'remove the orientation from the files (exiftool -Orientation= FILE) if the boxes fit the '
            'stored pixels, else exchange height and width in the annotation',
        )
    return (
        'height and width are exchanged: the image was turned after the annotation, or they are in '
        'the wrong order',
        'turn the images back, or exchange height and width in the annotation if its boxes fit',
    )


def _close(first: _Size, second: _Size) -> bool:
    return all(abs(one - other) <= 1 for one, other in zip(first, second, strict=True))


def _same_ratio(annotated: _Size, found: _Size) -> bool:
    """Return whether one factor gives both sides, each rounded to whole pixels."""
    (height, width), (new_height, new_width) = annotated, found
    return abs(new_width * height - new_height * width) <= max(height, width)


@cache
def shared_counts() -> torch.Tensor:
    """Return the numbers of loaded and of wrong images, shared with the workers."""
    return torch.zeros(2, dtype=torch.int64).share_memory_()


def count_size(fault: SizeFault | None) -> None:
    """Count a loaded image; InputError if more than 1 % of the images have another size."""
    counts = shared_counts().numpy()
    counts += (1, fault is not None)  # two workers at once may lose a count
    loaded, wrong = counts.tolist()
    if fault and wrong >= _LEAST and wrong > LARGEST_SHARE * loaded:
        raise InputError(
            f'{wrong} of {loaded} loaded images have another size than their annotation: {fault.text}; '
            f'{fault.advice}'
        )


def check_sizes_at_end() -> None:
    """Raise an InputError if more than 1 % of the images of a finished run had another size.

    All processes call this, and end alike: one alone would leave the others waiting.
    """
    counts = shared_counts().clone()
    all_reduce(counts)
    loaded, wrong = counts.tolist()
    if wrong > LARGEST_SHARE * loaded:
        raise InputError(
            f'{wrong} of {loaded} loaded images have another size than their annotation, so the '
            'results are wrong; the log names each with the likely cause'
        )
