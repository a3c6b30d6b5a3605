"""Inputs of the proof."""

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import TRANSFORMS, init_default_scope
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ..config.tree import datasets
from ..errors import InputError, one_line
from ..reparam.surgery import unfused_blocks
from .forward import RawForward

DEFAULT_SIZE = (224, 224)
IMAGE_SIZE = (480, 640)


@torch.no_grad()
def proof_inputs(
    config: Config,
    forward: RawForward,
    model: nn.Module,
    images: Sequence[str | os.PathLike[str]],
    device: torch.device,
) -> list[tuple[str, Tensor]]:
    """Return names and inputs (1, C, H, W): random input of two sizes, then the images.

    The test pipeline of the config gives the first size. The model is in training form, on the device.
    """
    # The preprocessor pads its batches, and necks that join upsampled maps rely on that.
    divisor = getattr(getattr(model, 'data_preprocessor', None), 'pad_size_divisor', 1) or 1
    size = round_up(pipeline_size(config), divisor)
    channels = next(unfused_blocks(model))[1].kernel_shape[1]
    sizes = [size, *(round_up(other, divisor) for other in second_sizes(size))]
    inputs: list[tuple[str, Tensor]] = []
    for height, width in sizes:
        name = f'random input of {height} x {width}'
        tensor = structured_input((height, width), channels).to(device)
        try:
            forward(model, tensor)
        except Exception as error:  # forward methods of the hosts raise anything
            if inputs:  # some heads need images of a certain size
                continue
            raise InputError(
                f'config: its model does not run on {name}, the size that its test pipeline makes of '
                f'an image of 3 : 4 ({type(error).__name__}: {one_line(error)[:200]}); check the test '
                'pipeline, the weights and test_cfg'
            ) from error
        inputs.append((name, tensor))
        if len(inputs) == 2:
            break
    for name, image in image_inputs(model, images, size):
        if image.shape[1] != channels:
            raise InputError(
                f"images: '{name}' has {image.shape[1]} channels after the preprocessor, but the "
                f'model takes {channels}; leave --images out'
            )
        inputs.append((name, image.to(device)))
    return inputs


def pipeline_size(config: Config) -> tuple[int, int]:
    """Return height and width that the test pipeline makes of an image of 480 x 640 pixels.

    Returns :data:`DEFAULT_SIZE` if the pipeline does not change the size.
    """
    init_default_scope(config.get('default_scope') or 'mmengine')
    data: dict[str, Any] = dict(img=np.zeros((*IMAGE_SIZE, 3), np.uint8), img_shape=IMAGE_SIZE)
    loaders = ('test_dataloader', 'val_dataloader')
    found = next((dataset for key in loaders for _, dataset in datasets(config, key)), None)
    pipeline = config.get('test_pipeline') if found is None else found.get('pipeline')
    for step in pipeline or []:
        # The size comes from the transforms of the image; others need files and annotations.
        with suppress(Exception):
            data = {**data, **TRANSFORMS.build(step)(data)}
    size = getattr(data['img'], 'shape', IMAGE_SIZE)[:2]
    return DEFAULT_SIZE if size == IMAGE_SIZE else size


def round_up(size: tuple[float, float], divisor: int) -> tuple[int, int]:
    """Return height and width, each rounded up to a multiple of the divisor."""
    return math.ceil(size[0] / divisor) * divisor, math.ceil(size[1] / divisor) * divisor


def second_sizes(size: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Yield other sizes to try: not square, in multiples of 32.

    First three quarters by one half; then, for models that need large images, a wider one.
    """
    for height, width in ((0.75, 0.5), (1, 1.25)):
        rows, columns = round_up((size[0] * height, size[1] * width), 32)
        while rows == columns or (rows, columns) == tuple(size):
            columns += 32
        yield rows, columns


def structured_input(size: tuple[int, int], channels: int) -> Tensor:
    """Return an image-like input (1, C, H, W): smooth structures and noise, mean 0, std 1.

    White noise alone averages out in the first layers and tests little of the later ones.
    """
    generator = torch.Generator().manual_seed(0)
    image = 0.3 * torch.randn(1, channels, *size, generator=generator)
    for cells in (2, 6, 18):
        coarse = torch.randn(1, channels, cells, cells, generator=generator)
        image += interpolate(coarse, size, mode='bicubic')
    return (image - image.mean()) / image.std()


def image_inputs(
    model: nn.Module, paths: Sequence[str | os.PathLike[str]], size: tuple[int, int]
) -> Iterator[tuple[str, Tensor]]:
    """Yield names and images (1, C, H, W), resized and preprocessed by the model's own preprocessor."""
    # By the name: `data` and `deploy` do not import each other.
    load = TRANSFORMS.build(dict(type='mobileone_mm.LoadImage', on_error='raise'))
    for path in paths:
        try:
            image = load(dict(img_path=os.fspath(path)))['img']
        except InputError as error:
            raise InputError(f'images: {error}') from error
        bgr = torch.from_numpy(cv2.resize(image, size[::-1])).permute(2, 0, 1)
        data = dict(inputs=[bgr], data_samples=None)
        inputs = model.data_preprocessor(data, False)['inputs']  # type: ignore[operator]
        yield os.path.basename(path), inputs.float()
