"""Class folders with images whose colour says their class."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobileone_mm.robustness.sets import wnids


@pytest.fixture
def paint():
    """Write class folders with an image of their class's colour: (folder, {name: label})."""

    def write(folder: Path, labels: dict[str, int]) -> Path:
        for name, label in labels.items():
            (folder / name).mkdir(parents=True, exist_ok=True)
            image = np.full((8, 8, 3), (label // 32 * 8 + 4, label % 32 * 8 + 4, 0), np.uint8)
            Image.fromarray(image).save(folder / name / 'image.png')
        return folder

    return write


@pytest.fixture
def every_fifth():
    """200 classes: WordNet numbers by label 0, 5, 10, ..."""
    return {wnid: label for label, wnid in enumerate(wnids()) if label % 5 == 0}
