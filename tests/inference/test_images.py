"""Images that the arguments select, and unique names for their outputs."""

from pathlib import Path, PurePath

import pytest

from mobileone_mm.errors import InputError
from mobileone_mm.inference.images import find_images, result_names, with_suffix


@pytest.fixture
def tree(tmp_path, monkeypatch):
    for name in ('b/2.jpg', 'b/1.PNG', 'a/1.jpg', 'a/deep/3.webp', 'a/.hidden.jpg', 'a/notes.txt'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ('inputs', 'found'),
    [
        (['b/2.jpg'], ['b/2.jpg']),
        (['a/notes.txt'], ['a/notes.txt']),
        (['.'], ['a/1.jpg', 'a/deep/3.webp', 'b/1.PNG', 'b/2.jpg']),
        (['b', 'a'], ['b/1.PNG', 'b/2.jpg', 'a/1.jpg', 'a/deep/3.webp']),
        (['*/*.jpg'], ['a/1.jpg', 'b/2.jpg']),
        (['**/*.*p*'], ['a/1.jpg', 'a/deep/3.webp', 'b/2.jpg']),
        (['b*'], ['b/1.PNG', 'b/2.jpg']),
        (['b/2.jpg', 'b'], ['b/2.jpg', 'b/1.PNG']),
    ],
)
def test_find(inputs, found, tree):
    assert [path.as_posix() for path in find_images(inputs)] == found


def test_results_of_an_earlier_call_are_left_out(tree):
    assert find_images(['.'], leave_out=['a']) == [Path('b/1.PNG'), Path('b/2.jpg')]
    assert find_images(['**/*.jpg'], leave_out=['a']) == [Path('b/2.jpg')]
    assert find_images(['a/1.jpg'], leave_out=['a']) == [Path('a/1.jpg')]  # named itself


@pytest.mark.parametrize('entry', ['gone', 'c/*.jpg', 'a/d*p/*.jpg'])
def test_nothing_found(entry, tree):
    with pytest.raises(InputError, match='INPUT'):
        find_images([entry])


@pytest.mark.parametrize(
    ('images', 'names'),
    [
        (['x/a/1.jpg'], ['1.jpg']),
        (['x/a/1.jpg', 'y/2.jpg'], ['1.jpg', '2.jpg']),
        (['x/a/1.jpg', 'x/b/1.jpg'], ['a/1.jpg', 'b/1.jpg']),
        (['x/1.jpg', 'x/b/1.jpg', 'x/b/2.jpg'], ['1.jpg', 'b/1.jpg', 'b/2.jpg']),
        (['x/1.jpg', 'x/1.JPG'], ['1_1.jpg', '2_1.JPG']),
    ],
)
def test_names(images, names):
    assert [name.as_posix() for name in result_names([Path(p) for p in images])] == names


def test_names_with_another_suffix():
    names = [PurePath(name) for name in ('a.jpg', 'a.png', 'b.jpg', 'c/b.jpg')]
    renamed = [name.as_posix() for name in with_suffix(names, '.png')]
    assert renamed == ['a.jpg.png', 'a.png.png', 'b.png', 'c/b.png']
