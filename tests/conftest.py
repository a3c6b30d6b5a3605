"""What all tests share: the stand-ins in place, few threads, tiny data sets in the hosts' layouts."""

from __future__ import annotations

import mobileone_mm  # noqa: F401  isort: skip  (first: it puts the stand-ins in place)

import os
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]

torch.set_num_threads(int(os.environ.get('OMP_NUM_THREADS', '2')))


@pytest.fixture(scope='session')
def real_data() -> Path:
    """The folder with small pieces of public data sets and Apple's S0 weights."""
    given = os.environ.get('MOBILEONE_MM_DATA')
    folder = Path(given) if given else ROOT.parent / 'shared' / 'data'
    if not folder.is_dir():
        pytest.skip(f'no real data at {folder}; set MOBILEONE_MM_DATA')
    return folder


@pytest.fixture(scope='session')
def tiny_coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures to train on and four to validate on, 96 px, in COCO's layout."""
    from mobileone_mm.data.synthetic import make_coco

    root = tmp_path_factory.mktemp('coco')
    make_coco(root, num_train=6, num_val=4, size=96, seed=0)
    return root


@pytest.fixture(scope='session')
def tiny_imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pictures to train on and eight to validate on, 64 px, in ImageNet's layout."""
    from mobileone_mm.data.synthetic import make_imagenet

    root = tmp_path_factory.mktemp('imagenet')
    make_imagenet(root, num_train=8, num_val=8, size=64, seed=0)
    return root


@pytest.fixture(scope='session')
def tiny_voc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures to train on and four to validate on, 96 px, in VOC's layout."""
    from mobileone_mm.data.synthetic import make_voc

    root = tmp_path_factory.mktemp('voc')
    make_voc(root, num_train=6, num_val=4, size=96, seed=0)
    return root


@pytest.fixture(scope='session')
def tiny_ade(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures to train on and four to validate on, 96 px, in ADE20K's challenge layout."""
    from mobileone_mm.data.synthetic import make_ade

    root = tmp_path_factory.mktemp('ade')
    make_ade(root, num_train=6, num_val=4, size=96, seed=0)
    return root
