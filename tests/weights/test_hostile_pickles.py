"""Small files that ask for all memory or time, or declare what they do not hold: one line."""

from __future__ import annotations

import pickle
import pickletools
import zipfile
from pathlib import Path

import pytest
import torch
import torch.utils.collect_env

from mobileone_mm.weights.reading import read_checkpoint

STATE = {'stage0.branch_reparam.weight': torch.arange(4.0), 'head.fc.bias': torch.ones(2)}

pytestmark = pytest.mark.timeout(60)


TENSOR = b'ctorch._utils\n_rebuild_tensor_v2\n'


def number(value: int) -> bytes:
    raw = value.to_bytes(value.bit_length() // 8 + 1, 'little', signed=True)
    return b'\x8a' + bytes([len(raw)]) + raw


def text(value: str) -> bytes:
    return b'X' + len(value.encode()).to_bytes(4, 'little') + value.encode()


def tensor(size, stride, offset=0, numel=4, kind='Float', key='0') -> bytes:
    """Instructions that rebuild a tensor of the file's storage 0, which has 16 bytes."""
    pid = b'(' + text('storage') + f'ctorch\n{kind}Storage\n'.encode() + text(key) + text('cpu')
    tuples = [b'(' + b''.join(map(number, values)) + b't' for values in (size, stride)]
    hooks = b'ccollections\nOrderedDict\n)R'
    return (
        TENSOR
        + b'('
        + pid
        + number(numel)
        + b'tQ'
        + number(offset)
        + b''.join(tuples)
        + b'\x89'
        + hooks
        + b'tR'
    )


def call(name: str, *args: bytes) -> bytes:
    module, _, attribute = name.rpartition('.')
    return f'c{module}\n{attribute}\n('.encode() + b''.join(args) + b'tR'


def doubling(depth: int) -> bytes:
    """A tuple that holds twice the one before, and so on."""
    return b')q\x00' + b'h\x00\x86q\x00' * depth


def entry(value: bytes, key: bytes = b'') -> bytes:
    """A dict with one weight."""
    return b'}' + (key or text('head.fc.bias')) + value + b's'


GREEDY = {
    'bytearray': (call('builtins.bytearray', number(2**40)), 'refers to code .builtins.bytearray'),
    'old tensor': (call('torch.FloatTensor', number(2**38)), 'refers to code .torch.FloatTensor'),
    'storage': (call('torch.storage.UntypedStorage', number(2**40)), 'damaged'),
    'meta': (
        call('torch._utils._rebuild_meta_tensor_no_storage', b'ctorch\nfloat32\n', b')', b')', b'\x89'),
        'tensors without data',
    ),
    'quantised': (call('torch._utils._rebuild_qtensor'), 'quantised'),
    'sparse': (call('torch._utils._rebuild_sparse_tensor'), 'sparse'),
    'stride 0': (tensor((2**40,), (0,)), 'more data than it has'),
    'stride 0, many': (b'(' + tensor((4000,), (0,)) * 40 + b't', 'more data than it has'),
    'beyond its storage': (tensor((5,), (1,)), 'beyond its data'),
    'offset': (tensor((2,), (1,), offset=3), 'beyond its data'),
    'stride': (tensor((2, 2), (3, 1)), 'beyond its data'),
    'negative stride': (tensor((2,), (-1,), offset=3), 'shape'),
    'negative size': (tensor((-1,), (1,)), 'shape'),
    'overflow': (tensor((2**61, 8), (8, 2**60)), 'beyond its data'),
    'storage larger than its record': (
        tensor((4096,), (1,), numel=4096),
        'declares 16384 bytes .* which has 16',
    ),
    'storage of another type': (tensor((4,), (1,), kind='Double'), 'declares 32 bytes'),
    'storage that is not there': (tensor((4,), (1,), key='7'), 'which has none'),
    'deep': (b']' * 100_000 + b'a' * 99_999, 'nested too deeply'),
    'itself': (b']q\0h\0a', 'contains itself'),
    'tuples, doubled': (doubling(60), 'nested too deeply, or too often'),
    'tuples, doubled and called': (doubling(60) + b')R', 'Unsupported call'),
    'tuples, doubled, as a key': (entry(b'K\x01', doubling(60)), 'key of a dict'),
    'tuples, doubled, in a set': (call('builtins.set', b']' + doubling(60) + b'a'), 'key'),
    'a codec': (call('_codecs.encode', text('é' * 200_000), text('punycode')), 'bytes'),
    'numpy type': (call('numpy.dtype', doubling(60)), 'nested too deeply'),
    'far memo': (b'K\x01r\xff\xff\xff\xff', 'holds a int'),
    'long text': (b'X\xff\xff\xff\xffabc', 'damaged'),
    'surrogates': (b'X\x03\0\0\0\xed\xa0\x80', 'damaged'),
    'metadata': (b'ccollections\nOrderedDict\n)R}' + text('_metadata') + b'K\x01sb', 'attributes'),
    'shadowed method': (b'ccollections\nOrderedDict\n)R}' + text('items') + b'K\x01sb', 'attributes'),
    'key twice': (b'}(' + (text('w') + b'K\x01') * 2 + b'u', "key 'w' twice"),
}  # fmt: skip


def write_archive(path: Path, pickled: bytes) -> None:
    """What torch.save writes, by hand: a pickle and one storage of 16 bytes."""
    with zipfile.ZipFile(path, 'w') as archive:
        for record, content in {
            'data.pkl': pickled,
            'data/0': bytes(16),
            'version': b'3\n',
        }.items():
            archive.writestr(f'archive/{record}', content)


@pytest.mark.parametrize('name', GREEDY)
@pytest.mark.parametrize('legacy', [False, True])
def test_greedy_pickles(tmp_path, name, legacy, little_memory, refused_file):
    body, said = GREEDY[name]
    path = tmp_path / 'greedy.pth'
    pickled = b'\x80\x02' + body + b'.'
    if legacy:
        torch.save({}, path, _use_new_zipfile_serialization=False)
        head = path.read_bytes().removesuffix(pickle.dumps({}, 2) + pickle.dumps([], 2))
        # As in a file of old, with one more part in each storage's name: no view.
        pickled = pickled.replace(b'tQ', b'NtQ')
        path.write_bytes(
            head + pickled + pickle.dumps(['0'], 2) + (4).to_bytes(8, 'little') + bytes(16)
        )
        said = '' if 'storage' in name or name == 'far memo' else said
    else:
        write_archive(path, pickled)
    refused_file(path, said)


def test_the_hand_made_container_is_sound(tmp_path):
    """Else the tests above would show nothing."""
    path = tmp_path / 'good.pth'
    write_archive(path, b'\x80\x02' + entry(tensor((2, 2), (2, 1))) + b'.')
    assert read_checkpoint(path)['head.fc.bias'].shape == (2, 2)


def test_a_storage_that_an_old_file_does_not_fill(tmp_path, refused_file):
    """torch would leave what happens to stand in memory."""
    path = tmp_path / 'old.pth'
    torch.save(STATE, path, _use_new_zipfile_serialization=False)
    with path.open('rb') as file:
        for _ in range(4):
            list(pickletools.genops(file))
        start = file.tell()
        keys = pickle.load(file)
        rest = file.read()
    data = path.read_bytes()
    path.write_bytes(data[:start] + pickle.dumps(keys[:1], 2) + rest[: 8 + 16])
    refused_file(path, 'does not fill its storages')
    path.write_bytes(data + b'more')
    refused_file(path, 'bytes of data where')


def rezipped(path: Path, change) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = [(info.filename, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(path, 'w') as archive:
        for name, content in change(entries):
            archive.writestr(name, content)


@pytest.mark.filterwarnings('ignore:Duplicate name')
def test_entries_of_one_name(tmp_path, refused_file):
    """Two readers could take different ones: what is checked would not be what is loaded."""
    path = tmp_path / 'a.pth'
    for rename in (str, str.upper):
        torch.save(STATE, path)
        rezipped(path, lambda entries, r=rename: [*entries, (r(entries[0][0]), b'x')])
        refused_file(path, 'entry twice')
    torch.save(STATE, path)
    rezipped(path, lambda entries: [('other/first', b'x'), *entries])
    refused_file(path, 'entry twice')


def test_a_zip_whose_entries_overlap(tmp_path, refused_file):
    """One compressed run of zeros, listed a hundred times."""
    path = tmp_path / 'a.pth'
    torch.save(STATE, path)
    data = path.read_bytes()
    with zipfile.ZipFile(path, 'a') as archive:
        info = archive.infolist()[-1]
        archive.filelist.extend([info] * 100)
        archive._didModify = True
    assert path.read_bytes() != data
    refused_file(path)
