"""Draw contact sheets of the training images as the pipeline outputs them, with their labels."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, HOOKS

from ..config.tree import mapping, type_name
from ..data.loading import read_image
from ..errors import InputError, check_least
from ..hooks.curriculum import install
from ..inference.draw import Painter, save_image
from ..runs.prepare import TRAIN_IMAGES, prepare
from ..training.folders import check_writable
from ..training.seeding import derived_seed, seeded

MODES = ('transformed', 'concat')
_SIDE = 320  # of a cell, in pixels
_GAP = 6
_CAPTION = 40
_THINNEST = 8  # the greatest ratio of width and height at which the image of a file is shown


def browse(
    config: str | Path,
    out_dir: str | Path,
    num: int = 16,
    mode: str = 'transformed',
    seed: int = 0,
    cfg_options: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Draw what the model will be trained on: one sheet, or one for each phase of a curriculum.

    The browsers of the hosts show one image per file or window, have different options, and show no
    phases. Images have the size that the model gets. Returns the paths of the sheets.

    Args:
        num: Images per sheet, spread evenly over the training set; at least 1.
        mode: ``transformed`` shows images after the pipeline; ``concat`` also the image of the file.
        seed: Seed of the augmentation.
    """
    check_least(1, num=num)
    if mode not in MODES:
        raise InputError(f"--mode: got '{mode}'; expected {' or '.join(MODES)}")
    cfg = prepare(config, cfg_options, TRAIN_IMAGES).cfg
    check_writable(out_dir, '--out-dir')
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    painter = Painter(dataset.metainfo)
    preprocessor = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor')
    rgb = bool(mapping(preprocessor).get('rgb_to_bgr'))  # the hosts load BGR by default
    places = np.linspace(0, len(dataset) - 1, min(num, len(dataset))).round().astype(int)
    sheets = []
    for name, caption in _phases(cfg, dataset, Path(config).stem):
        images = []
        for place in places.tolist():
            with seeded(derived_seed(seed, place)):
                images.append(_shown(painter, dataset[place], mode, rgb))
        sheets.append(save_image(contact_sheet(images, caption), Path(out_dir, f'{name}.png')))
    return sheets


def _phases(cfg: Config, dataset: Any, name: str) -> Iterator[tuple[str, str]]:
    """Yield name and caption of each sheet; the dataset stays in its phase until the next one."""
    hooks = cfg.get('custom_hooks') or []
    found = next((hook for hook in hooks if type_name(hook).endswith('CurriculumHook')), None)
    if found is None:
        yield name, name
        return
    hook = HOOKS.build(found)
    begins = hook.begins(cfg.train_cfg.max_epochs)
    index = torch.zeros(1, dtype=torch.int64)
    install(dataset, hook.phases, index)
    for number, (begin, phase) in enumerate(zip(begins, hook.phases, strict=True)):
        index.fill_(number)
        caption = f'{name}, phase {number + 1} of {len(begins)}, from epoch {begin + 1}: {phase}'
        yield f'{name}_phase_{number + 1}', caption


def contact_sheet(images: Sequence[np.ndarray], caption: str) -> np.ndarray:
    """Put RGB images (uint8) of any sizes in rows and columns, below a line of ASCII text."""
    width = max(round(_SIDE * image.shape[1] / image.shape[0]) for image in images)
    width = min(width, 2 * _SIDE + _GAP)
    columns = max(1, round((len(images) * _SIDE / width) ** 0.5))
    rows = -(-len(images) // columns)
    size = _CAPTION + rows * (_SIDE + _GAP), columns * (width + _GAP) + _GAP
    sheet = np.full((*size, 3), 255, np.uint8)
    font, black = cv2.FONT_HERSHEY_SIMPLEX, (0, 0, 0)
    cv2.putText(sheet, caption, (_GAP, 28), font, 0.7, black, 1, cv2.LINE_AA)
    for place, image in enumerate(images):
        row, column = divmod(place, columns)
        scale = min(_SIDE / image.shape[0], width / image.shape[1])
        size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        top = _CAPTION + row * (_SIDE + _GAP) + (_SIDE - size[1]) // 2
        left = _GAP + column * (width + _GAP) + (width - size[0]) // 2
        sheet[top : top + size[1], left : left + size[0]] = small
    return sheet


def _shown(painter: Painter, sample: Mapping[str, Any], mode: str, rgb: bool) -> np.ndarray:
    """Draw the labels of a sample, with the image of the file beside it in mode ``concat``."""
    inputs = sample['inputs']
    if inputs.is_floating_point():  # normalised by the pipeline itself
        low, high = inputs.min(), inputs.max()
        inputs = (inputs - low) / (high - low).clamp(min=1e-12) * 255
    image = inputs.permute(1, 2, 0).to(torch.uint8).numpy()
    image = np.ascontiguousarray(image if rgb else image[..., ::-1])
    drawn = painter.draw_truth(image, sample['data_samples'])
    if mode == 'transformed':
        return drawn
    original, height = read_image(str(sample['data_samples'].img_path)), drawn.shape[0]
    width = round(original.shape[1] * height / original.shape[0])
    size = min(max(1, width), _THINNEST * height), height
    gap = np.full((height, _GAP, 3), 255, np.uint8)
    return np.hstack([cv2.resize(original, size, interpolation=cv2.INTER_AREA), gap, drawn])
