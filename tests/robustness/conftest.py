"""Images whose colour says their class, and a classifier that reads it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from mobileone_mm.robustness.sets import wnids


class ReadsColour(nn.Module):
    """Gives the class of the colour a score of 5, and the class after it 9.

    So the first prediction is wrong and the second right, but where the class after it is left out.
    """

    def __init__(self, classes=1000):
        super().__init__()
        self.classes = classes

    def data_preprocessor(self, batch, training):
        return {**batch, 'inputs': torch.stack(list(batch['inputs']))}

    def forward(self, inputs, mode):
        assert mode == 'tensor'
        middle = inputs[:, :, inputs.shape[2] // 2, inputs.shape[3] // 2].long() // 8
        labels = middle[:, 2] * 32 + middle[:, 1]  # BGR
        logits = torch.zeros(len(inputs), self.classes)
        rows = torch.arange(len(inputs))
        logits[rows, (labels + 1) % self.classes] = 9
        logits[rows, labels % self.classes] = 5
        return logits


@pytest.fixture
def reads_colour():
    return ReadsColour


@pytest.fixture
def paint():
    """Write class folders with images of their class's colour: (folder, {name: label}, count)."""

    def write(folder: Path, labels: dict[str, int], count: int = 1) -> Path:
        for name, label in labels.items():
            (folder / name).mkdir(parents=True, exist_ok=True)
            image = np.full((8, 8, 3), (label // 32 * 8 + 4, label % 32 * 8 + 4, 0), np.uint8)
            for number in range(count):
                Image.fromarray(image).save(folder / name / f'image_{number}.png')
        return folder

    return write


@pytest.fixture
def every_fifth():
    """200 classes: WordNet numbers by label 0, 5, 10, ..."""
    return {wnid: label for label, wnid in enumerate(wnids()) if label % 5 == 0}
