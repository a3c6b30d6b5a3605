"""Checkpoints are read, hostile and broken files are refused in one line."""

from __future__ import annotations

import builtins
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from mobileone_mm.errors import InputError
from mobileone_mm.weights.allowed import ALLOWED
from mobileone_mm.weights.reading import read_checkpoint
from mobileone_mm.weights.unwrap import read_weights

STATE = {'stage0.branch_reparam.weight': torch.arange(4.0), 'head.fc.bias': torch.ones(2)}


def refused(path: Path, match: str) -> None:
    with pytest.raises(InputError, match=match) as caught:
        read_checkpoint(path)
    message = str(caught.value)
    assert '\n' not in message
    assert str(path) in message
    assert len(message.replace(str(path), '')) < 400


class Bomb:
    """Pickles as a call that makes a file."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def reading_through_getattr(marker: Path):
    """getattr(HistoryBuffer, '__init__').__globals__... the way an allowed getattr opens."""
    from mmengine.logging.history_buffer import HistoryBuffer

    return Bomb(getattr, Bomb(getattr, HistoryBuffer, '__init__'), '__globals__')


HOSTILE = {
    'os.system': lambda marker: Bomb(os.system, f'touch {marker}'),
    'eval': lambda marker: Bomb(eval, f'open({str(marker)!r}, "w")'),
    'open': lambda marker: Bomb(open, str(marker), 'w'),
    'getattr of a class': reading_through_getattr,
    'getattr of a tensor': lambda marker: Bomb(getattr, torch.ones(1), 'numpy'),
    'numpy loads': lambda marker: Bomb(np.load, str(marker)),
    'import': lambda marker: Bomb(builtins.__import__, 'antigravity'),
    'torch.hub': lambda marker: Bomb(torch.hub.load, 'a/b', 'c'),
}


@pytest.mark.parametrize('name', HOSTILE)
@pytest.mark.parametrize('legacy', [False, True])
def test_code_in_a_file_does_not_run(tmp_path, name, legacy):
    path, marker = tmp_path / 'evil.pth', tmp_path / 'marker'
    torch.save(
        {'state_dict': STATE, 'meta': HOSTILE[name](marker)},
        path,
        _use_new_zipfile_serialization=not legacy,
    )
    # Whatever another library has put on torch's list must not help.
    with torch.serialization.safe_globals([getattr, eval, open, np.load]):
        refused(path, 'refers to code .* was not loaded')
        assert set(torch.serialization.get_safe_globals()) >= {getattr, eval, open}
    assert not marker.exists()


def test_a_plain_pickle_with_code_does_not_run(tmp_path):
    path, marker = tmp_path / 'evil.pth', tmp_path / 'marker'
    path.write_bytes(pickle.dumps(Bomb(os.system, f'touch {marker}'), protocol=2))
    refused(path, 'refers to code')
    assert not marker.exists()


@pytest.mark.parametrize(
    ('dtype', 'state'),
    [
        (('O', False, True), (3, '|', None, None, None, -1, -1, 63)),
        (('V8', False, True), (3, '|', None, ('a',), {'a': 1}, 8, 1, 27)),
        (('f8', False, True), (3, '<', None, ('a',), {'a': 1}, 8, 1, 27)),
        (('f8', False, True), (3, 'x', None, None, None, -1, -1, 0)),
    ],
)
def test_numpy_types_that_could_reinterpret_memory_are_refused(tmp_path, dtype, state):
    class Forged:
        def __reduce__(self):
            return np.dtype, dtype, state

    torch.save({'state_dict': STATE, 'meta': Forged()}, tmp_path / 'a.pth')
    refused(tmp_path / 'a.pth', 'numpy|code')


def test_an_array_larger_than_its_data_is_refused(tmp_path):
    class Forged:
        def __reduce__(self):
            args = (np.ndarray, (0,), b'b')
            return (
                np._core.multiarray._reconstruct,
                args,
                (1, (9,), np.dtype('f8'), False, b'12345678'),
            )

    torch.save({'state_dict': STATE, 'meta': Forged()}, tmp_path / 'a.pth')
    refused(tmp_path / 'a.pth', 'its shape does not fit')


def save(path: Path) -> bytes:
    torch.save(STATE, path)
    return path.read_bytes()


def test_missing_folder_empty_and_special_files(tmp_path):
    refused(tmp_path / 'no.pth', 'no such file')
    refused(tmp_path, 'is a folder')
    (tmp_path / 'empty.pth').touch()
    refused(tmp_path / 'empty.pth', 'is empty')
    os.mkfifo(tmp_path / 'pipe.pth')
    refused(tmp_path / 'pipe.pth', 'no regular file')
    (tmp_path / 'below').touch()
    refused(tmp_path / 'below' / 'a.pth', 'cannot be read')
    refused(tmp_path / ('x' * 300), 'cannot be read')
    refused(Path('~nobody-of-this-name/a.pth'), 'no such file')
    with pytest.raises(InputError, match='no such file'):
        read_checkpoint(tmp_path / 'a\0b.pth')


@pytest.mark.skipif(os.geteuid() == 0, reason='root may read anything')
def test_no_permission_to_read(tmp_path):
    save(tmp_path / 'a.pth')
    (tmp_path / 'a.pth').chmod(0)
    refused(tmp_path / 'a.pth', 'cannot be read')


@pytest.mark.parametrize('part', [0.02, 0.3, 0.6, 0.95, 0.999])
def test_truncated(tmp_path, part):
    data = save(tmp_path / 'a.pth')
    (tmp_path / 'a.pth').write_bytes(data[: int(part * len(data))])
    refused(tmp_path / 'a.pth', 'cut off, damaged')


def test_truncated_legacy_file(tmp_path):
    torch.save(STATE, tmp_path / 'a.pth', _use_new_zipfile_serialization=False)
    data = (tmp_path / 'a.pth').read_bytes()
    for end in (1, 20, len(data) // 2, len(data) - 3):
        (tmp_path / 'a.pth').write_bytes(data[:end])
        refused(tmp_path / 'a.pth', 'cut off, damaged')


def test_a_flipped_bit_in_the_weights_is_noticed(tmp_path):
    path = tmp_path / 'a.pth'
    data = bytearray(save(path))
    where = data.index(torch.arange(4.0).numpy().tobytes())
    data[where + 6] ^= 1
    path.write_bytes(data)
    refused(path, 'damaged')


def test_what_is_no_checkpoint(tmp_path):
    path = tmp_path / 'a.pth'
    for content in (b'<html>404 not found</html>', b'\x89PNG\r\n\x1a\n' + bytes(40), bytes(100)):
        path.write_bytes(content)
        refused(path, 'is no checkpoint')
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('word/document.xml', '<x/>')
    refused(path, 'other zip file')
    torch.jit.trace(torch.nn.ReLU(), torch.ones(1)).save(path)
    refused(path, 'TorchScript')
    torch.save([1, 2], path)
    refused(path, 'holds a list')


def test_a_zip_bomb_is_not_unpacked(tmp_path):
    path = tmp_path / 'a.pth'
    save(path)
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    entries['archive/data/9'] = bytes(2_000_000)
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    refused(path, 'more data than it has')


def test_safetensors(tmp_path, monkeypatch):
    library = pytest.importorskip('safetensors.torch')
    path = tmp_path / 'a.safetensors'
    library.save_file(STATE, path)
    read = read_checkpoint(path)
    assert all(torch.equal(read[key], STATE[key]) for key in STATE)
    data = path.read_bytes()
    path.write_bytes(data[:-3])
    refused(path, 'cut off, damaged')
    path.write_bytes(data)
    path.rename(tmp_path / 'a.pth')  # told by its content, not its name
    assert read_checkpoint(tmp_path / 'a.pth').keys() == STATE.keys()
    monkeypatch.setitem(__import__('sys').modules, 'safetensors.torch', None)
    refused(tmp_path / 'a.pth', 'pip install safetensors')


@pytest.mark.parametrize('legacy', [False, True])
def test_plain_state_dicts_are_read(tmp_path, legacy):
    path = tmp_path / 'a.pth.tar'
    torch.save(OrderedDict(STATE), path, _use_new_zipfile_serialization=not legacy)
    read = read_checkpoint(path)
    assert all(torch.equal(read[key], STATE[key]) for key in STATE)


def test_numpy_values_survive(tmp_path):
    meta = {
        'palette': np.array([[1, 2], [3, 4]], dtype=np.uint8),
        'fortran': np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        'big endian': np.arange(3, dtype='>i4'),
        'names': np.array(['cat', 'Hündin']),
        'empty': np.zeros((0, 3), np.float32),
        'best': np.float64(0.5),
        'flag': np.bool_(True),
    }
    torch.save({'state_dict': STATE, 'meta': meta}, tmp_path / 'a.pth')
    read = read_checkpoint(tmp_path / 'a.pth')['meta']
    for key, value in meta.items():
        assert np.array_equal(read[key], value), key
        # NumPy itself turns foreign byte order into the machine's.
        assert read[key].dtype == pickle.loads(pickle.dumps(value, protocol=2)).dtype
    # mmengine compares dataset infos by their pickles.
    del read['big endian'], meta['big endian']
    assert pickle.dumps(read) == pickle.dumps(meta)


def test_numpy_1_names_are_on_the_list():
    names = {name for _, name in ALLOWED}
    assert all(name.replace('numpy._core', 'numpy.core') in names for name in names)


def test_namespace_beside_the_weights(tmp_path):
    import argparse

    torch.save({'model': STATE, 'args': argparse.Namespace(lr=0.1)}, tmp_path / 'a.pth')
    assert read_weights(tmp_path / 'a.pth').state.keys() == STATE.keys()


@pytest.mark.parametrize('key', ['state_dict', 'model', 'model_state_dict', None])
@pytest.mark.parametrize('prefix', ['', 'module.', '_orig_mod.'])
def test_wrappings_come_off(key, prefix):
    wrapped = {prefix + name: value for name, value in STATE.items()}
    checkpoint = wrapped if key is None else {key: wrapped, 'epoch': 3}
    assert read_weights(checkpoint).state.keys() == STATE.keys()


def test_averaged_weights_are_the_state_dict_of_mmengine():
    checkpoint = {'state_dict': STATE, 'ema_state_dict': {'steps': torch.tensor(3)}}
    assert read_weights(checkpoint).state.keys() == STATE.keys()


@pytest.mark.parametrize('checkpoint', [{}, {'epoch': 3}, {'state_dict': {}}])
def test_no_weights(checkpoint):
    with pytest.raises(InputError, match='holds no weights'):
        read_weights(checkpoint)
