"""Lists of names: what the hosts would read wrong is one line."""

import pytest
from mmengine.dataset import BaseDataset
from mmengine.fileio import list_from_file
from mmengine.logging import MMLogger

from mobileone_mm.data.lists import read_class_list, read_lines
from mobileone_mm.errors import InputError

FILES = [
    ('ant\n\nbee\n', 'line 2: the line is empty; remove it'),
    ('ant\nbee\n\n', 'line 3: the line is empty'),
    ('ant\n  \nbee', 'line 2: the line is empty'),
    ('\ufeffant\nbee\n', 'begins with a byte order mark'),
    ('\ufeff', 'begins with a byte order mark'),
]
NAMES = [
    ('ant\nbee \n', ", line 2: 'bee ' has spaces at its start or end"),
    ('ant\nbee\nant\n', "classes 0 and 2 have the same name 'ant'"),
    ('', 'the class list is empty'),
    ('\n\n', 'the class list is empty'),
]


def refused(call, said):
    with pytest.raises(InputError) as caught:
        call()
    line = str(caught.value)
    assert said in line
    assert '\n' not in line
    return line


def test_files_are_read_as_the_hosts_read_them(tmp_path):
    file = tmp_path / 'a list.txt'
    for content in (b'ant\nbee', b'ant\nbee\n', b'ant\r\nbee\r\n', 'Ä b\nc\u2028d\n'.encode()):
        file.write_bytes(content)
        assert read_lines(file) == list_from_file(file)
    assert read_lines(tmp_path / 'none.txt') is None
    refused(lambda: read_lines(tmp_path, 'x: '), f"x: '{tmp_path}' is not a readable list")


@pytest.mark.parametrize(('content', 'said'), [*FILES, *NAMES])
def test_files_of_names(content, said, tmp_path):
    file = tmp_path / 'names.txt'
    file.write_text(content)
    line = refused(lambda: read_class_list(str(file), 'a.classes'), said)
    assert line.startswith(f"a.classes: '{file}'")
    if (content, said) in NAMES:
        read_lines(file)
    else:
        refused(lambda: read_lines(file), said)


@pytest.mark.parametrize(
    ('given', 'said'),
    [
        (
            'person',
            "got 'person'; no file has this name, .* one class is a tuple, too: ('person',)",
        ),
        ('ant, bee', "expected a tuple of names: ('ant', 'bee')"),
        ('data/classes.txt', "got 'data/classes.txt'; no such file"),
        ((), 'is empty'),
        ([], 'is empty'),
        (('ant', ''), "the name of class 1, '', is empty"),
        (('ant', '  '), "the name of class 1, '  ', is empty"),
        (('ant', 'bee', 'bee'), "classes 1 and 2 have the same name 'bee'"),
        ((0, 1), "class 0 is 0; expected a string ('0')"),
        (('ant', None), "class 1 is None; expected a string ('None')"),
        ({'ant': 0}, "got {'ant': 0}; expected a tuple of names"),
        (5, 'got 5; expected a tuple of names'),
    ],
)
def test_lists_of_a_config(given, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, _, last = said.partition(' .* ')
    line = refused(lambda: read_class_list(given, 'val.metainfo.classes'), first)
    assert line.startswith('val.metainfo.classes: ')
    assert last in line


def test_a_string_is_what_the_host_makes_of_it():
    """If mmengine refuses it, the check can go."""
    assert BaseDataset._load_metainfo(dict(classes='person'))['classes'] == 'person'


def test_names_that_are_good(tmp_path, capsys):
    """ImageNet has two cranes, in files from everywhere."""
    file = tmp_path / 'names.txt'
    file.write_text('ant\nbig bee\n')
    assert read_class_list(str(file), '') == ('ant', 'big bee')
    assert read_class_list(['person'], '') == ('person',)
    assert read_class_list(('o ', 'p'), '') == ('o ', 'p')  # as ODinW's annotation file has it
    assert read_class_list('s3://bucket/names.txt', '') is None
    cranes = ['crane', 'crane', *map(str, range(998))]
    MMLogger.get_instance('cranes', logger_name='cranes')
    assert read_class_list(cranes, '', unique=False) == tuple(cranes)
    assert "classes 0 and 1 have the same name 'crane'" in ''.join(capsys.readouterr())
    refused(lambda: read_class_list(cranes, ''), "the same name 'crane'")
