"""Folders of the published sets, and the label of each image in them."""

from itertools import product
from pathlib import Path

import pytest

from mobileone_mm.errors import InputError
from mobileone_mm.robustness.corruptions import CORRUPTIONS, GROUPS
from mobileone_mm.robustness.sets import make_plan, read_set, wnids


@pytest.mark.parametrize('key', ['a', 'r'])
def test_classes_against_timm(key, paint, tmp_path):
    """With the folders of the real sets, the limit is the list of indices that timm has."""
    timm = pytest.importorskip('timm')
    info = Path(timm.__file__).parent / 'data' / '_info'
    assert (info / 'imagenet_synsets.txt').read_text().split() == list(wnids())
    names = (info / f'imagenet_{key}_synsets.txt').read_text().split()
    expected = [int(line) for line in (info / f'imagenet_{key}_indices.txt').read_text().split()]
    images = read_set(key, paint(tmp_path, dict.fromkeys(names, 0)))
    assert list(images.limit) == sorted(expected)
    assert len(images.limit) == 200
    folders = [Path(file).parent.name for file in images.files]
    assert sorted(folders) == sorted(names)
    assert images.labels == tuple(map(wnids().index, folders))


def test_v2_folders_are_numbers_not_words(paint, tmp_path):
    labels = {name: int(name) for name in ('0', '1', '2', '9', '10', '011', '0100', '999')}
    labels[wnids()[7]] = 7
    images = read_set('v2', paint(tmp_path, labels))
    assert [labels[Path(file).parent.name] for file in images.files] == list(images.labels)
    assert images.labels == (0, 1, 2, 7, 9, 10, 11, 100, 999)
    assert images.names[0] == '0/image.png'
    assert images.limit is None


def test_other_files_are_left_alone(paint, tmp_path, every_fifth):
    folder = paint(tmp_path / 'imagenet-a', every_fifth)
    (folder / 'README.txt').write_text('about')
    (folder / '.ipynb_checkpoints').mkdir()
    (folder / 'n01440764' / 'list.txt').write_text('')
    (folder / 'n01440764' / '._image.png').write_text('')
    assert len(read_set('a', folder).files) == 200
    nested = tmp_path / 'more' / 'imagenet-a'
    nested.mkdir(parents=True)
    folder.rename(nested / 'imagenet-a')
    assert len(read_set('a', nested).files) == 200


@pytest.mark.parametrize(
    ('key', 'folders', 'said'),
    [('r', ['cats'], "ImageNet-R: the folder 'cats' in .* is not a class of ImageNet"),
     ('v2', ['1000'], "'1000' .* is not a class .*; expected numbers 0 to 999 or WordNet"),
     ('sketch', ['7'], "'7' .* is not a class .*; expected WordNet numbers"),
     ('a', wnids()[:3], r"'.*set' has 3 class folders, the set has 200"),
     ('sketch', wnids()[:1], 'no image in class folders')],
)  # fmt: skip
def test_bad_folders(key, folders, said, tmp_path):
    for name in folders:
        (tmp_path / 'set' / name).mkdir(parents=True)
    with pytest.raises(InputError, match=said):
        read_set(key, tmp_path / 'set')


def test_sets_below_a_root(tmp_path, paint):
    for name in ('Sketch', 'imagenetv2-matched-frequency-format-val', 'other'):
        paint(tmp_path / name, {wnids()[3]: 3})
    plan = make_plan(tmp_path, own=False)
    assert [(e.set, e.folder.name) for e in plan] == [
        ('sketch', 'Sketch'), ('v2', 'imagenetv2-matched-frequency-format-val')]  # fmt: skip
    with pytest.raises(InputError, match="--root: '.*gone' is not a folder"):
        make_plan(tmp_path / 'gone')
    with pytest.raises(InputError, match="--root: '.*other' holds none of imagenet-c, imagenet-a"):
        make_plan(tmp_path / 'other')
    with pytest.raises(InputError, match="--sets r: ImageNet-R is not below --root '.*'; give its"):
        make_plan(tmp_path, ['r'])


def test_plan(paint, every_fifth, tmp_path):
    corrupted = tmp_path / 'imagenet-c'
    for group, names in GROUPS.items():
        for name, severity in product(names, '12345'):
            (corrupted / group / name / severity).mkdir(parents=True)
    assert [e.name for e in make_plan()][:2] == ['clean', 'generated/gaussian_noise/1']
    assert len(make_plan()) == 76
    paint(tmp_path / 'imagenet-a', every_fifth)
    names = [e.name for e in make_plan(tmp_path)]
    assert len(names) == 77
    assert (names[0], names[1], names[-1]) == ('clean', 'c/gaussian_noise/1', 'a')
    assert [e.set for e in make_plan(tmp_path, own=False)].count('clean') == 0
    some = make_plan(tmp_path, ['c'], ['fog', 'snow'], [5, 1])
    assert [e.name for e in some] == ['c/snow/1', 'c/snow/5', 'c/fog/1', 'c/fog/5']
    assert some[-1].folder == corrupted / 'weather' / 'fog' / '5'
    elsewhere = make_plan(None, [f'a={tmp_path / "imagenet-a"}'])
    assert elsewhere[0].folder == tmp_path / 'imagenet-a'
    assert {e.corruption for e in make_plan(tmp_path, ['c'])} == set(CORRUPTIONS)
    # A wrong class is found before the first evaluation.
    (corrupted / 'digital' / 'jpeg_compression' / '5' / 'cats').mkdir()
    with pytest.raises(InputError, match="ImageNet-C: the folder 'cats'"):
        make_plan(tmp_path)


def test_corruption_folders_without_groups(tmp_path):
    (tmp_path / 'fog' / '3').mkdir(parents=True)
    (found,) = make_plan(None, [f'c={tmp_path}'], ['fog'], [3])
    assert found.folder == tmp_path / 'fog' / '3'
    with pytest.raises(InputError, match="ImageNet-C: '.*weather/fog/4' does not exist; unpack w"):
        make_plan(None, [f'c={tmp_path}'], ['fog'], [3, 4])


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [((None, ['d']), "--sets: got 'd'; clean, generated, c, a, r, sketch, v2 are allowed"),
     ((None, ['clean=x']), "--sets: got 'clean=x'"),
     ((None, ['a=']), "--sets: got 'a='"),
     ((None, ['a=/nowhere']), "ImageNet-A: '/nowhere' is not a folder"),
     ((None, ['r']), '--sets r: ImageNet-R has no folder; give its folder as r=FOLDER'),
     ((None, None, ['mist']), "--corruptions: got 'mist'; allowed are gaussian_noise"),
     ((None, None, None, [6]), '--severities: got 6; expected 1 to 5')],
)  # fmt: skip
def test_bad_names(arguments, message):
    with pytest.raises(InputError) as caught:
        make_plan(*arguments)
    assert str(caught.value).startswith(message)
