"""Inputs on which two forms of a model are compared."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor, nn

from ..errors import InputError

DEFAULT_SIZE = (224, 224)


def test_size(config: Config) -> tuple[int, int]:
    """Height and width of the test pipeline's result, for an image of 3 : 4; 224 x 224 if unknown."""
    height, width = 480, 640
    found = False
    for step in _test_pipeline(config):
        name = str(step.get('type', '')).rpartition('.')[2]
        if name == 'Pad':
            height, width = _padded(step, height, width)
        size = step.get('scale') if name in ('Resize', 'ResizeEdge') else step.get('crop_size')
        if size is None or name not in ('Resize', 'ResizeEdge', 'CenterCrop'):
            continue
        found = True
        pair = (size, size) if isinstance(size, int) else tuple(size)
        if name == 'CenterCrop':
            height, width = int(pair[0]), int(pair[-1])
        elif name == 'Resize' and not step.get('keep_ratio', False):
            width, height = int(pair[0]), int(pair[1])
        else:
            # By edge: the short one has the size; else the image fits into the size.
            ratio = max(pair) / min(height, width)
            if name == 'Resize':
                ratio = min(max(pair) / max(height, width), min(pair) / min(height, width))
            height, width = round(height * ratio), round(width * ratio)
    return (height, width) if found else DEFAULT_SIZE


def _padded(step: Mapping[str, Any], height: int, width: int) -> tuple[int, int]:
    if step.get('pad_to_square'):
        height = width = max(height, width)
    if step.get('size'):
        width, height = (max(a, int(b)) for a, b in zip((width, height), step['size'], strict=True))
    return round_up((height, width), step.get('size_divisor') or 1)


def round_up(size: tuple[int, int], divisor: int) -> tuple[int, int]:
    """Height and width as the next multiples of a number."""
    return math.ceil(size[0] / divisor) * divisor, math.ceil(size[1] / divisor) * divisor


test_size.__test__ = False  # type: ignore[attr-defined]  # pytest takes it for a test


def second_sizes(size: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Other sizes, not square, in multiples of 32, the first that the model takes to be chosen.

    Three quarters by one half; for models that need large images, the same height and wider.
    """
    height = math.ceil(size[0] * 0.75 / 32) * 32
    width = math.ceil(size[1] * 0.5 / 32) * 32
    tall, wide = math.ceil(size[0] / 32) * 32, math.ceil(size[1] * 1.25 / 32) * 32
    for rows, columns in ((height, width), (tall, wide)):
        while rows == columns or (rows, columns) == tuple(size):
            columns += 32  # noqa: PLW2901
        yield rows, columns


def structured_input(size: tuple[int, int], channels: int = 3, seed: int = 0) -> Tensor:
    """An image-like input (1, C, H, W) of mean 0 and spread 1: waves of several lengths and noise.

    White noise alone averages out in the first layers and would test little of the later ones.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = torch.linspace(0, 1, size[0]).reshape(1, -1, 1)
    columns = torch.linspace(0, 1, size[1]).reshape(1, 1, -1)
    image = torch.zeros(channels, *size)
    for cycles in (1, 3, 9, 27):
        angle, phase = torch.rand(2, channels, 1, 1, generator=generator) * 2 * math.pi
        wave = torch.cos(angle) * rows + torch.sin(angle) * columns
        image += torch.sin(2 * math.pi * cycles * wave + phase)
    image += 0.3 * torch.randn(image.shape, generator=generator)
    return ((image - image.mean()) / image.std())[None]


def image_inputs(
    model: nn.Module, paths: Sequence[str | os.PathLike[str]], size: tuple[int, int]
) -> Iterator[tuple[str, Tensor]]:
    """Images, resized and put through the model's own preprocessor, each (1, C, H, W).

    Raises:
        InputError: A file is missing or no image.
    """
    for path in paths:
        pixels = torch.from_numpy(_bgr(path, size)).permute(2, 0, 1)
        data = dict(inputs=[pixels], data_samples=None)
        inputs = model.data_preprocessor(data, False)['inputs']  # type: ignore[operator]
        yield os.path.basename(path), inputs.float()


def _bgr(path: str | os.PathLike[str], size: tuple[int, int]) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(path) as image:
            resized = image.convert('RGB').resize(size[::-1], Image.Resampling.BILINEAR)
    except (OSError, ValueError, SyntaxError) as error:
        reason = 'no such file' if isinstance(error, FileNotFoundError) else 'no readable image'
        raise InputError(f"images: '{os.fspath(path)}': {reason}") from error
    return np.ascontiguousarray(np.asarray(resized)[..., ::-1])


def _test_pipeline(config: Config) -> list[Mapping[str, Any]]:
    node: Any = config.get('test_dataloader') or config.get('val_dataloader') or {}
    node = node.get('dataset') or {}
    while isinstance(node, Mapping) and 'pipeline' not in node:
        inner = node.get('dataset') or next(iter(node.get('datasets') or ()), None)
        if inner is None:
            break
        node = inner
    steps = node.get('pipeline') if isinstance(node, Mapping) else None
    return [
        step for step in steps or config.get('test_pipeline') or [] if isinstance(step, Mapping)
    ]
