"""labels.txt against the images and the classes that are packed."""

from __future__ import annotations

import shutil

import pytest

from mobileone_mm.data.checks.packed_data import check_packed
from mobileone_mm.data.datasets import DatasetConfig
from mobileone_mm.data.packed.dataset import PackedDataset
from mobileone_mm.errors import InputError


def check(settings):
    check_packed(DatasetConfig('train_dataloader.dataset', settings, PackedDataset), None)


def zeros(lines):
    return [f'{line.rpartition(" ")[0]} 0' for line in lines]


def silent(lines):
    return [f'{line.rpartition(" ")[0]} -1' for line in lines]


def one_more(lines):
    return [*lines, 'n01440764/gone.JPEG 0']


def one_less(lines):
    return lines[:-1]


@pytest.fixture
def spoilt(layouts, tmp_path):
    """Settings of a copy of the packed dataset with another list."""

    def make(form, change):
        if form not in layouts:
            pytest.skip('lmdb is not installed')
        settings = dict(layouts[form])
        folder = shutil.copytree(f'{settings["data_root"]}/train', tmp_path / 'train')
        listed = folder / 'labels.txt'
        listed.write_text('\n'.join(change(listed.read_text().splitlines())) + '\n')
        return {**settings, 'data_root': str(tmp_path)}

    return make


@pytest.mark.parametrize(
    ('change', 'line'),
    [
        (
            zeros,
            r"labels.txt': '.*' has class 0, but its .cls or .json member in the shards has [1-9]",
        ),
        (
            one_more,
            r"labels.txt' does not fit the shards: line 9: 'n01440764/gone.JPEG' is not in the shards",
        ),
        (one_less, r"does not fit the shards: '.*' is not listed"),
    ],
)
def test_a_list_that_disagrees(change, line, spoilt, build):
    """Found before the run, and where the dataset is built from Python."""
    settings = spoilt('shards', change)
    with pytest.raises(InputError, match=line) as caught:
        check(settings)
    assert str(caught.value).startswith('train_dataloader.dataset: ')
    assert '\n' not in str(caught.value)
    with pytest.raises(InputError, match=line):
        build(settings)


def test_a_list_without_classes_is_an_order(spoilt, build, layouts):
    settings = spoilt('shards', silent)
    check(settings)
    found, whole = build(settings), build(layouts['shards'])
    for index in range(len(whole)):
        for key in ('gt_label', 'pack_row'):
            assert found.get_data_info(index)[key] == whole.get_data_info(index)[key]


def test_classes_that_nobody_asks_for(spoilt, build):
    settings = {**spoilt('shards', zeros), 'with_label': False}
    check(settings)
    assert 'gt_label' not in build(settings).get_data_info(0)


def test_classes_of_an_lmdb(spoilt, build):
    """Nothing else has them there."""
    settings = spoilt('lmdb', zeros)
    check(settings)
    assert set(build(settings).get_gt_labels()) == {0}


def test_a_image_that_an_lmdb_lacks(spoilt):
    settings = spoilt('lmdb', one_more)
    with pytest.raises(InputError, match="lists 'n01440764/gone.JPEG', which the LMDB does not"):
        check(settings)


def test_a_damaged_lmdb(spoilt, tmp_path):
    settings = spoilt('lmdb', one_less)
    (tmp_path / 'train' / 'data.mdb').write_bytes(b'no LMDB' * 2000)
    with pytest.raises(InputError, match=r"^train_dataloader.dataset: '.*' cannot be read: LMDB: "):
        check(settings)
