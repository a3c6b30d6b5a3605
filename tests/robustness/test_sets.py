"""Folders of the published sets, and the label of each image in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mobileone_mm.errors import InputError
from mobileone_mm.robustness.corruptions import CORRUPTIONS, GROUPS
from mobileone_mm.robustness.sets import make_plan, read_set, wnids


def test_classes_are_the_sorted_wordnet_numbers():
    found = wnids()
    assert len(set(found)) == 1000
    assert list(found) == sorted(found)
    assert (found[0], found[1], found[999]) == ('n01440764', 'n01443537', 'n15075141')


def test_classes_against_timm():
    timm = pytest.importorskip('timm')
    info = Path(timm.__file__).parent / 'data' / '_info'
    assert (info / 'imagenet_synsets.txt').read_text().split() == list(wnids())


@pytest.mark.parametrize('key', ['a', 'r'])
def test_limits_of_a_and_r_against_timm(key, paint, tmp_path):
    """With the folders of the real sets, the limit is the list of indices that timm has."""
    timm = pytest.importorskip('timm')
    info = Path(timm.__file__).parent / 'data' / '_info'
    names = (info / f'imagenet_{key}_synsets.txt').read_text().split()
    expected = [int(line) for line in (info / f'imagenet_{key}_indices.txt').read_text().split()]
    images = read_set(key, paint(tmp_path, dict.fromkeys(names, 0), size=1))
    assert list(images.limit) == sorted(expected)
    assert len(images.limit) == 200
    labels = {
        Path(file).parent.name: label
        for file, label in zip(images.files, images.labels, strict=True)
    }
    assert labels == {name: wnids().index(name) for name in names}


def test_v2_folders_are_numbers_not_words(paint, tmp_path):
    labels = {name: int(name) for name in ('0', '1', '2', '9', '10', '11', '100', '999')}
    images = read_set('v2', paint(tmp_path, labels, size=1))
    assert [int(Path(file).parent.name) for file in images.files] == list(images.labels)
    assert images.labels == (0, 1, 2, 9, 10, 11, 100, 999)
    assert images.limit is None
    words = read_set('v2', paint(tmp_path / 'words', {wnids()[7]: 7}, size=1))
    assert words.labels == (7,)


def test_part_of_a_set_keeps_its_labels(paint, tmp_path):
    images = read_set('sketch', paint(tmp_path / 'sketch', {wnids()[k]: k for k in (3, 700, 5)}, 2))
    assert images.labels == (3, 3, 5, 5, 700, 700)
    assert images.names[0] == f'{wnids()[3]}/image_0.png'


def test_other_files_are_left_alone(paint, tmp_path, every_fifth):
    folder = paint(tmp_path / 'imagenet-a', every_fifth, size=1)
    (folder / 'README.txt').write_text('about')
    (folder / '.ipynb_checkpoints').mkdir()
    (folder / 'n01440764' / 'list.txt').write_text('')
    (folder / 'n01440764' / '._image_0.png').write_text('')
    assert len(read_set('a', folder).files) == 200
    nested = tmp_path / 'more' / 'imagenet-a'
    nested.mkdir(parents=True)
    folder.rename(nested / 'imagenet-a')
    assert len(read_set('a', nested).files) == 200


def test_bad_folders(paint, tmp_path, every_fifth):
    with pytest.raises(InputError, match="ImageNet-A: '.*gone' is not a folder"):
        read_set('a', tmp_path / 'gone')
    paint(tmp_path / 'cats', {'cats': 0}, size=1)
    with pytest.raises(
        InputError, match="ImageNet-R: the folder 'cats' in .* is not a class of ImageNet"
    ):
        read_set('r', tmp_path / 'cats')
    paint(tmp_path / 'v2', {'1000': 0}, size=1)
    with pytest.raises(
        InputError, match="'1000' .* is not a class .*; expected numbers 0 to 999 or WordNet"
    ):
        read_set('v2', tmp_path / 'v2')
    paint(tmp_path / 'sketch', {'7': 7}, size=1)
    with pytest.raises(InputError, match="'7' .* is not a class .*; expected WordNet numbers"):
        read_set('sketch', tmp_path / 'sketch')
    some = paint(tmp_path / 'a', dict(list(every_fifth.items())[:3]), size=1)
    with pytest.raises(InputError, match=r"'.*a' has 3 class folders, the set has 200"):
        read_set('a', some)
    (tmp_path / 'empty' / wnids()[0]).mkdir(parents=True)
    with pytest.raises(InputError, match='no image in class folders'):
        read_set('sketch', tmp_path / 'empty')


@pytest.fixture
def corrupted(tmp_path):
    root = tmp_path / 'imagenet-c'
    for group, names in GROUPS.items():
        for name in names:
            for severity in range(1, 6):
                (root / group / name / str(severity)).mkdir(parents=True)
    return root


def test_sets_below_a_root(tmp_path, paint):
    for name in ('Sketch', 'imagenetv2-matched-frequency-format-val', 'other'):
        paint(tmp_path / name, {wnids()[3]: 3}, size=1)
    plan = make_plan(tmp_path, own=False)
    assert [(e.set, e.folder.name) for e in plan] == [
        ('sketch', 'Sketch'), ('v2', 'imagenetv2-matched-frequency-format-val')]  # fmt: skip
    with pytest.raises(InputError, match="--root: '.*gone' is not a folder"):
        make_plan(tmp_path / 'gone')
    with pytest.raises(InputError, match="--root: '.*other' holds none of imagenet-c, imagenet-a"):
        make_plan(tmp_path / 'other')


def test_corruption_folders_with_and_without_groups(corrupted, tmp_path):
    def folder(root, severity):
        return make_plan(None, [f'c={root}'], ['fog'], [severity])[0].folder

    assert folder(corrupted, 3) == corrupted / 'weather' / 'fog' / '3'
    (tmp_path / 'flat' / 'fog' / '3').mkdir(parents=True)
    assert folder(tmp_path / 'flat', 3) == tmp_path / 'flat' / 'fog' / '3'
    with pytest.raises(InputError, match="ImageNet-C: '.*weather/fog/4' does not exist; unpack w"):
        folder(tmp_path / 'flat', 4)


def test_plan(corrupted, paint, every_fifth, tmp_path):
    assert [e.name for e in make_plan()][:2] == ['clean', 'generated/gaussian_noise/1']
    assert len(make_plan()) == 76
    paint(tmp_path / 'imagenet-a', every_fifth, size=1)
    names = [e.name for e in make_plan(tmp_path)]
    assert len(names) == 77
    assert (names[0], names[1], names[-1]) == ('clean', 'c/gaussian_noise/1', 'a')
    assert [e.set for e in make_plan(tmp_path, own=False)].count('clean') == 0
    some = make_plan(tmp_path, ['c'], ['fog', 'snow'], [5, 1])
    assert [e.name for e in some] == ['c/snow/1', 'c/snow/5', 'c/fog/1', 'c/fog/5']
    elsewhere = make_plan(None, [f'a={tmp_path / "imagenet-a"}'])
    assert elsewhere[0].folder == tmp_path / 'imagenet-a'
    assert {e.corruption for e in make_plan(tmp_path, ['c'])} == set(CORRUPTIONS)


@pytest.mark.parametrize(
    ('sets', 'message'),
    [(['d'], "--sets: got 'd'; clean, generated, c, a, r, sketch, v2 are allowed"),
     (['clean=x'], "--sets: got 'clean=x'"),
     (['a='], "--sets: got 'a='"),
     (['a=/nowhere'], "--sets a: '/nowhere' is not a folder"),
     (['r'], '--sets r: ImageNet-R has no folder; give its folder as r=FOLDER')],
)  # fmt: skip
def test_bad_sets(sets, message):
    with pytest.raises(InputError) as caught:
        make_plan(None, sets)
    assert str(caught.value).startswith(message)


def test_a_wrong_class_is_found_before_the_first_evaluation(corrupted, tmp_path):
    (corrupted / 'digital' / 'jpeg_compression' / '5' / 'cats').mkdir()
    with pytest.raises(InputError, match="ImageNet-C: the folder 'cats'"):
        make_plan(tmp_path)
