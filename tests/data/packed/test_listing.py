"""labels.txt against the images and the classes that are packed."""

import shutil

import pytest
from mmengine.registry import DATASETS

from mobileone_mm.data.checks.dataset_files import check_packed
from mobileone_mm.data.datasets import DatasetConfig
from mobileone_mm.data.packed.dataset import PackedDataset
from mobileone_mm.errors import InputError


def check(settings):
    check_packed(DatasetConfig('train_dataloader.dataset', settings, PackedDataset), None)


def zeros(lines, label=0):
    return [f'{line.rpartition(" ")[0]} {label}' for line in lines]


def one_more(lines):
    return [*lines, 'n01440764/gone.JPEG 0']


@pytest.fixture
def spoilt(layouts, tmp_path):
    """Settings of a copy of the packed dataset with another list."""

    def make(form, change):
        settings = dict(layouts[form])
        folder = shutil.copytree(f'{settings["data_root"]}/train', tmp_path / 'train')
        listed = folder / 'labels.txt'
        listed.write_text('\n'.join(change(listed.read_text().splitlines())) + '\n')
        return {**settings, 'data_root': str(tmp_path)}

    return make


@pytest.mark.parametrize(
    ('change', 'line'),
    [
        (zeros, r"labels.txt': '.*' has class 0, but its .cls or .json member in the shards has [1-9]"),
        (one_more, r"does not fit the shards: 'n01440764/gone.JPEG' is not in the shards"),
        (lambda lines: lines[:-1], r"labels.txt' does not fit the shards: '.*' is not listed"),
    ],
)  # fmt: skip
def test_a_list_that_disagrees(change, line, spoilt):
    """Found before the run, and where the dataset is built from Python."""
    settings = spoilt('shards', change)
    with pytest.raises(InputError, match=line) as caught:
        check(settings)
    assert str(caught.value).startswith('train_dataloader.dataset: ')
    assert '\n' not in str(caught.value)
    with pytest.raises(InputError, match=line):
        DATASETS.build(settings)


def test_a_list_without_classes_is_an_order(spoilt, layouts):
    settings = spoilt('shards', lambda lines: zeros(lines, -1))
    check(settings)
    found, whole = DATASETS.build(settings), DATASETS.build(layouts['shards'])
    for index in range(len(whole)):
        for key in ('gt_label', 'pack_row'):
            assert found.get_data_info(index)[key] == whole.get_data_info(index)[key]


def test_classes_that_nobody_asks_for(spoilt):
    settings = {**spoilt('shards', zeros), 'with_label': False}
    check(settings)
    assert 'gt_label' not in DATASETS.build(settings).get_data_info(0)


def test_lists_of_an_lmdb(spoilt, tmp_path):
    """Nothing else has the classes there."""
    settings = spoilt('lmdb', zeros)
    check(settings)
    assert set(DATASETS.build(settings).get_gt_labels()) == {0}
    listed = tmp_path / 'train' / 'labels.txt'
    listed.write_text('\n'.join(one_more(listed.read_text().splitlines())))
    line = "gone.JPEG', listed in labels.txt, cannot be read: no image"
    with pytest.raises(InputError, match=line):
        check(settings)
