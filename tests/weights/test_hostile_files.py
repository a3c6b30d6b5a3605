"""Hostile files: no code runs, nothing is read beyond the file, the error is one line.

What torch's ``weights_only`` reader refuses is tested here so that a release of torch that no longer
refuses it turns a test red. A file can still take long to read: torch hashes whatever a pickle uses as
a key, and tuples that hold one another twice, 50 deep, have no end. That is torch's limit as well.
"""

import builtins
import functools
import os
import pickle
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer

from helpers import Pickled
from mobileone_mm.errors import InputError
from mobileone_mm.weights.allowed import Array, DType, History, attribute, no_bytes, shown_name
from mobileone_mm.weights.reading import read_checkpoint
from mobileone_mm.weights.unwrap import read_weights

STATE = {'stage0.branch_reparam.weight': torch.arange(4.0), 'head.fc.bias': torch.ones(2)}

pytestmark = pytest.mark.timeout(60)


def object_array(folder: Path, marker: Path) -> str:
    array = np.array([Pickled(os.system, f'touch {marker}')], dtype=object)
    np.save(folder / 'evil.npy', array, allow_pickle=True)
    return str(folder / 'evil.npy')


def inner_checkpoint(folder: Path, marker: Path) -> str:
    torch.save(Pickled(os.system, f'touch {marker}'), folder / 'inner.pth')
    return str(folder / 'inner.pth')


def config(folder: Path, marker: Path) -> str:
    (folder / 'evil.py').write_text(f'open({str(marker)!r}, "w").close()\n')
    return str(folder / 'evil.py')


GLOBALS = Pickled(getattr, Pickled(getattr, HistoryBuffer, '__init__'), '__globals__')
# By name: folder for further files, path of the marker -> an object that makes the marker on loading.
# All other functions are refused in the way of the first.
CODE = {
    'os.system': lambda folder, m: Pickled(os.system, f'touch {m}'),
    'eval': lambda folder, m: Pickled(eval, f'open({str(m)!r}, "w").close()'),
    'getattr of an import': lambda folder, m: Pickled(
        Pickled(getattr, Pickled(builtins.__import__, 'os'), 'system'), f'touch {m}'
    ),
    'globals of a method': lambda folder, m: Pickled(
        Pickled(dict.get, Pickled(dict.get, GLOBALS, '__builtins__'), 'open'), str(m), 'w'
    ),
    'a pickle in a pickle': lambda folder, m: Pickled(
        pickle.loads, pickle.dumps(Pickled(os.system, f'touch {m}'))
    ),
    'torch.load of another file': lambda folder, m: Pickled(
        functools.partial(torch.load, weights_only=False), inner_checkpoint(folder, m)
    ),
    'numpy.load of objects': lambda folder, m: Pickled(np.load, object_array(folder, m), None, True),
    'numpy.memmap': lambda folder, m: Pickled(np.memmap, str(m), 'uint8', 'w+', 0, (1,)),
    '_rebuild_from_type_v2': lambda folder, m: Pickled(
        torch._tensor._rebuild_from_type_v2, os.system, torch.Tensor, (f'touch {m}',), {}
    ),
    'mmengine config': lambda folder, m: Pickled(Config.fromfile, config(folder, m)),
    'state of an object': lambda folder, m: Pickled(
        Pickled(functools.partial, print, state=(os.system, (f'touch {m}',), {}, None))
    ),
}  # fmt: skip
CONTAINERS = ('zip', 'legacy', 'plain', 'protocol 4')


def save_in(container: str, content: object, path: Path) -> None:
    if container in ('zip', 'legacy'):
        torch.save(content, path, _use_new_zipfile_serialization=container == 'zip')
    else:
        path.write_bytes(pickle.dumps(content, protocol=2 if container == 'plain' else 4))


@pytest.mark.parametrize('name', CODE)
def test_code_does_not_run(tmp_path, name, refused_file, monkeypatch):
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')  # it must not help either
    path, marker = tmp_path / 'evil.pth', tmp_path / 'marker'
    evil = CODE[name](tmp_path, marker)
    with_lists = torch.serialization.safe_globals([getattr, eval, exec, open, os.system, np.load])
    for container in CONTAINERS:
        for content in (evil, {'state_dict': STATE, 'meta': {'x': evil}}, {'state_dict': evil}):
            save_in(container, content, path)
            with with_lists:  # what another library has put on torch's list must not help
                message = refused_file(path)
                assert set(torch.serialization.get_safe_globals()) >= {getattr, eval, open}
            if container != 'protocol 4':
                assert 'refers to code' in message
            assert not marker.exists()
    # The file is dangerous indeed: an ordinary reader runs it.
    save_in('plain', evil, path)
    with suppress(Exception):
        pickle.loads(path.read_bytes())
    assert marker.exists()
    assert refused_file(path)


def number(value: int) -> bytes:
    raw = value.to_bytes(value.bit_length() // 8 + 1, 'little', signed=True)
    return b'\x8a' + bytes([len(raw)]) + raw


def string(value: str) -> bytes:
    return b'X' + len(value.encode()).to_bytes(4, 'little') + value.encode()


def tensor(size, stride, offset=0, numel=4, kind='Float', key='0') -> bytes:
    """Instructions that rebuild a tensor of the file's storage 0, which has 16 bytes."""
    storage = b'(' + string('storage') + f'ctorch\n{kind}Storage\n'.encode() + string(key)
    shape, step = (b'(' + b''.join(map(number, values)) + b't' for values in (size, stride))
    return (
        b'ctorch._utils\n_rebuild_tensor_v2\n('
        + (storage + string('cpu') + number(numel) + b'tQ' + number(offset) + shape + step)
        + b'\x89ccollections\nOrderedDict\n)RtR'
    )


def archive_of(path: Path, value: bytes) -> Path:
    """What torch.save writes, by hand: a dict with one weight, and one storage of 16 bytes."""
    pickled = b'\x80\x02}' + string('head.fc.bias') + value + b's.'
    with zipfile.ZipFile(path, 'w') as archive:
        for name, content in {'data.pkl': pickled, 'data/0': bytes(16), 'version': b'3\n'}.items():
            archive.writestr(f'archive/{name}', content)
    return path


DECLARED = {
    'beyond its storage': tensor((5,), (1,)),
    'offset': tensor((2,), (1,), offset=3),
    'stride': tensor((2, 2), (3, 1)),
    'negative stride': tensor((2,), (-1,), offset=3),
    'negative size': tensor((-1,), (1,)),
    'overflow': tensor((2**61, 8), (8, 2**60)),
    'storage larger than its record': tensor((4096,), (1,), numel=4096),
    'storage of another type': tensor((4,), (1,), kind='Double'),
    'storage that is not there': tensor((4,), (1,), key='7'),
    'a terabyte': b'cbuiltins\nbytearray\n(' + number(2**40) + b'tR',
    'a terabyte of bytes': b'cbuiltins\nbytes\n(' + number(2**40) + b'tR',
    'long string': b'X\xff\xff\xff\xffabc',
}


@pytest.mark.parametrize('name', DECLARED)
def test_declarations_beyond_the_file(tmp_path, name, little_memory, refused_file):
    said = 'Unsupported call of bytes' if 'of bytes' in name else 'damaged|memory'
    refused_file(archive_of(tmp_path / 'a.pth', DECLARED[name]), said)


def test_one_number_shown_often(tmp_path, little_memory):
    """torch reads it: a stride of 0 takes no memory, until someone asks whether all is finite."""
    path = archive_of(tmp_path / 'a.pth', tensor((2, 2), (2, 1)))  # a sound one
    assert read_checkpoint(path)['head.fc.bias'].shape == (2, 2)
    path = archive_of(tmp_path / 'a.pth', tensor((2**40,), (0,)))
    with pytest.raises(InputError, match='no model here can take .*1099511627776. of 16 bytes'):
        read_weights(path)


def test_forged_numpy_objects_are_refused(tmp_path, refused_file):
    """A type that could reinterpret memory, and an array that is larger than its data."""
    fields = (3, '<', None, ('a',), {'a': 1}, 8, 1, 27)
    nine = (1, (9,), np.dtype('f8'), False, b'12345678')
    for forged, said in (
        (Pickled(np.dtype, 'V8', False, True), 'dtype V8'),
        (Pickled(np.dtype, 'f8', False, True, state=fields), 'dtype with fields'),
        (
            Pickled(np._core.multiarray._reconstruct, np.ndarray, (0,), b'b', state=nine),
            'its shape does not fit',
        ),
    ):
        torch.save({'state_dict': STATE, 'meta': forged}, tmp_path / 'a.pth')
        refused_file(tmp_path / 'a.pth', said)


NO_STATE = (3, '<', None, None, None, -1, -1, 0)


@pytest.mark.parametrize(
    ('stand_in', 'state'),
    [
        *((DType('f8'), (*NO_STATE[:i], 'x', *NO_STATE[i + 1 :])) for i in (1, 2, 3, 4)),
        *((DType('f8'), state) for state in (list(NO_STATE), NO_STATE[:4], 3)),
        (Array(), (1, (-1, -1), DType('f8'), False, bytes(8))),
        (Array(), (1, (8,), DType('u1'), False, [0] * 8)),
        (Array(), (1, (1,), np.dtype('f8'), False, bytes(8))),
        (Array(), (1, (1,), DType('f8'), bytes(8))),
    ],
)
def test_states_of_stand_ins_are_checked(stand_in, state):
    with pytest.raises(pickle.UnpicklingError, match='Unsupported numpy'):
        stand_in.__setstate__(state)


def test_calls_of_stand_ins_are_checked():
    for call in (
        *(lambda spec=spec: DType(spec) for spec in ('O', 'V8', 'f1', 'f8,f8', 8)),
        *(lambda pair=pair: attribute(*pair) for pair in ((History, 'update'), (dict, 'mean'))),
        lambda: no_bytes(0),
    ):
        with pytest.raises(pickle.UnpicklingError, match='Unsupported'):
            call()
    assert attribute(History, 'mean') is None
    assert (no_bytes(), Array().size) == (b'', 0)
    assert DType('f8').__setstate__(NO_STATE[:5]) is None
    assert [shown_name(x) for x in ('a\n' * 50, 3, [1])] == ['a?' * 40, '3', 'a list']


@pytest.mark.filterwarnings('ignore:.*quantiz')
@pytest.mark.parametrize(
    ('make', 'said'),
    [
        (lambda: torch.ones(2).to_sparse(), 'torch.float32, torch.sparse_coo'),
        (lambda: torch.ones(2, device='meta'), 'without data'),
        (lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.quint8), 'torch.quint8'),
        (lambda: torch.ones(2).to(torch.float8_e4m3fn), 'torch.float8_e4m3fn, torch.strided'),
        (lambda: torch.ones(2, dtype=torch.uint16), 'torch.uint16, torch.strided'),
    ],
)
def test_tensors_that_no_model_takes(make, said):
    with pytest.raises(InputError, match=f'no model here can take .{said}'):
        read_weights({'head.fc.bias': make()})


@pytest.mark.parametrize('key', [3, None, b'w', 'a\nb', '\x1b[31mred', 'x' * 5000, '\u202egnp'])
def test_names_that_are_no_names(key):
    for state in ({key: torch.ones(1)}, {'state_dict': {'w': torch.ones(1), key: torch.ones(1)}}):
        with pytest.raises(InputError, match='no name of a layer') as caught:
            read_weights(state)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 300


def test_attributes_of_tensors_are_left_behind():
    value = torch.nn.Parameter(torch.ones(2))
    value.isfinite = value.clone = None
    weights = read_weights({'w': value}).state
    assert weights['w'].clone().tolist() == [1, 1]
    assert not weights['w'].requires_grad
