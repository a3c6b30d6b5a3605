"""Checkpoints are read; broken files, and what is no checkpoint, are refused in one line."""

import argparse
import errno
import pickle
import random
import re
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from helpers import randomize_, same
from mobileone_mm import MobileOne, load_weights
from mobileone_mm.errors import InputError
from mobileone_mm.weights.allowed import ALLOWED
from mobileone_mm.weights.reading import _reason, first_line, read_checkpoint
from mobileone_mm.weights.unwrap import read_weights

STATE = {'stage0.branch_reparam.weight': torch.arange(4.0), 'head.fc.bias': torch.ones(2)}


def test_names_of_no_file(tmp_path, monkeypatch, refused_file):
    """Folders, empty and special files: see test_hostile_tools.py."""
    (tmp_path / 'below').touch()
    refused_file(tmp_path / 'below' / 'a.pth', 'cannot be read')
    refused_file(tmp_path / ('x' * 256), 'cannot be read')
    refused_file(Path('~nobody-of-this-name/a.pth'), 'no such file')
    with pytest.raises(InputError, match='no such file'):
        read_checkpoint(tmp_path / 'a\0b.pth')
    (tmp_path / 'a.pth').write_text('mine')
    denied = PermissionError(errno.EACCES, 'Permission denied', 'a.pth')
    monkeypatch.setattr(Path, 'open', Mock(side_effect=denied))
    refused_file(tmp_path / 'a.pth', r'cannot be read \(Permission denied\)')


@pytest.mark.parametrize('legacy', [False, True])
def test_truncated(tmp_path, legacy, refused_file):
    path = tmp_path / 'a.pth'
    torch.save(STATE, path, _use_new_zipfile_serialization=not legacy)
    data = path.read_bytes()
    parts = (0.02, 0.3, 0.6, 0.95, 0.999)
    ends = [1, 20, len(data) // 2, len(data) - 3] if legacy else [int(p * len(data)) for p in parts]
    for end in ends:
        path.write_bytes(data[:end])
        refused_file(path, 'cut off, damaged')


def test_a_flipped_bit_in_the_weights_is_noticed(tmp_path, refused_file):
    path = tmp_path / 'a.pth'
    torch.save(STATE, path)
    data = bytearray(path.read_bytes())
    where = data.index(torch.arange(4.0).numpy().tobytes())
    data[where + 6] ^= 1
    path.write_bytes(data)
    refused_file(path, 'damaged')


def test_what_is_no_checkpoint(tmp_path, refused_file):
    path = tmp_path / 'a.pth'
    for content in (b'<html>404 not found</html>', b'\x89PNG\r\n\x1a\n' + bytes(40), bytes(100)):
        path.write_bytes(content)
        refused_file(path, 'is no checkpoint')
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('word/document.xml', '<x/>')
    refused_file(path, 'other zip file')
    torch.jit.trace(torch.nn.ReLU(), torch.ones(1)).save(path)
    refused_file(path, 'TorchScript')
    torch.save([1, 2], path)
    refused_file(path, 'holds a list')


def test_a_zip_bomb_is_not_unpacked(tmp_path, refused_file):
    path = tmp_path / 'a.pth'
    torch.save(STATE, path)
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    entries['archive/data/9'] = bytes(2_000_000)
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    refused_file(path, 'more data than it has')


def test_safetensors(tmp_path, monkeypatch, refused_file):
    library = pytest.importorskip('safetensors.torch')
    path = tmp_path / 'a.safetensors'
    library.save_file(STATE, path)
    read = read_checkpoint(path)
    data = path.read_bytes()
    path.write_bytes(bytes(len(data)))  # load_file would map the file: this would change `read`
    assert same(read, STATE)
    path.write_bytes(data[:-3])
    refused_file(path, 'cut off, damaged')
    path.write_bytes(data)
    path.rename(tmp_path / 'a.pth')  # told by its content, not its name
    assert read_checkpoint(tmp_path / 'a.pth').keys() == STATE.keys()
    monkeypatch.setitem(__import__('sys').modules, 'safetensors.torch', None)
    refused_file(tmp_path / 'a.pth', 'pip install safetensors')


@pytest.mark.parametrize(
    ('error', 'said'),
    [
        (InputError('as it is'), 'as it is'),
        (FileNotFoundError(2, 'x', 'file'), 'no such file; check the path'),
        (PermissionError(13, 'not yours', 'file'), r'cannot be read \(not yours\)'),
        (OSError(5, 'of the data'), r'is cut off, .*OSError: \[Errno 5\] of the data\); copy'),
        (RuntimeError('GLOBAL a.b was'), r'refers to code \(a\.b\)'),
        (MemoryError(), 'does not fit into memory'),
        (
            RuntimeError('Attempting to deserialize object on a GPU. Use'),
            'cannot be loaded to the device: Attempt.* a GPU',
        ),
    ],
)
def test_reasons(error, said):
    assert re.fullmatch(f'{said}.*', _reason(error))


def test_the_first_line_of_an_error():
    for text, line in (
        ('advice WeightsUnpickler error: cause. More', 'cause'),
        ('\x1b[31m red\nsecond', 'red'),
        (' \n ', 'no reason given'),
        ('x' * 200, 'x' * 150),
        ('a\tb', 'ab'),
    ):
        assert first_line(text) == line


@pytest.mark.parametrize('form', ['pth', 'safetensors'])
def test_where_tensors_are_put(tmp_path, form, monkeypatch):
    path = tmp_path / f'a.{form}'
    if form == 'pth':
        torch.save(STATE, path)
    else:
        pytest.importorskip('safetensors.torch').save_file(STATE, path)
    monkeypatch.setenv('HOME', str(tmp_path))
    before = set(torch.serialization.get_safe_globals())
    assert same(read_checkpoint(f'~/a.{form}'), STATE)
    assert same(read_checkpoint(path, None), STATE)
    assert all(value.is_meta for value in read_checkpoint(path, 'meta').values())
    assert set(torch.serialization.get_safe_globals()) == before


def test_how_a_file_is_told(tmp_path, refused_file):
    for name, head, said in (
        ('a.pth', b'PK\x03\x04....{', 'BadZipFile'),
        ('b.safetensors', b'\x80' * 20, 'SafetensorError'),
        ('c.pth', b'\x80' * 8 + b'{', 'SafetensorError'),
        ('d.pth', b'\x81' * 8, 'is no checkpoint; expected a file of torch.save'),
    ):
        (tmp_path / name).write_bytes(head)
        refused_file(tmp_path / name, said)


def test_numpy_values_survive(tmp_path):
    meta = {
        'palette': np.array([[1, 2], [3, 4]], dtype=np.uint8),
        'fortran': np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        'big endian': np.arange(3, dtype='>i4'),
        'names': np.array(['cat', 'Hündin']),
        'empty': np.zeros((0, 3), np.float32),
        'point': np.array(0.5),
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
    names = {name for _, name in ALLOWED}  # also those of NumPy 1
    assert all(name.replace('numpy._core', 'numpy.core') in names for name in names)


TINY = dict(num_blocks=[1, 1, 1, 1], width_factor=[0.0625] * 4)


def damaged(rng: random.Random, data: bytes) -> bytes:
    """Flip, cut, insert or wipe bytes, half of the time near an end, where the headers are."""
    out = bytearray(data)
    spot = rng.choice((rng.randrange(len(out)), rng.randrange(400), -1 - rng.randrange(400)))
    spot, length = spot % len(out), rng.choice((1, 2, 8, 64, 1000))
    change = rng.randrange(5)
    if change == 0:
        out[spot] ^= 1 << rng.randrange(8)
    elif change == 1:
        del out[spot:]
    elif change == 2:
        del out[spot : spot + length]
    elif change == 3:
        out[spot:spot] = rng.randbytes(length)
    else:
        out[spot : spot + length] = rng.choice((b'\0', b'\xff')) * length
    return bytes(out)


@pytest.mark.parametrize('kind', ['zip', 'legacy', 'safetensors'])
def test_damage_is_one_line_or_harmless(tmp_path, kind, little_memory):
    """A zip file has checksums, so damage there never changes a weight; the others have none."""
    source, path = randomize_(MobileOne(TINY)), tmp_path / 'a.pth'
    if kind == 'safetensors':
        pytest.importorskip('safetensors.torch').save_file(source.state_dict(), path)
    else:
        torch.save(source.state_dict(), path, _use_new_zipfile_serialization=kind == 'zip')
    data, messages = path.read_bytes(), []
    model = MobileOne(TINY)
    for seed in range(150):
        path.write_bytes(damaged(random.Random(seed), data))
        before = {key: value.clone() for key, value in model.state_dict().items()}
        try:
            load_weights(model, path)
        except InputError as error:
            messages.append(str(error))
            assert same(model, before)
        else:
            for key, value in model.state_dict().items():
                assert torch.isfinite(value).all()
                if kind == 'zip' and not key.endswith('num_batches_tracked'):
                    assert torch.equal(value, source.state_dict()[key])
    assert len(messages) > 50
    assert all(message.isprintable() for message in messages)


def test_what_runs_save_besides_the_weights(tmp_path):
    """Counters, sets, complex numbers, sizes, optimizers and schedulers are still read."""
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5])
    content = {
        'state_dict': OrderedDict(model.state_dict()),
        'optimizer': optimizer.state_dict(),
        'schedule': schedule.state_dict(),
        'things': [Counter([1, 1]), {1, 'x'}, 1j, torch.Size([2]), torch.float16, b'ab', 2**70],
        'args': argparse.Namespace(lr=0.1),
        'shared': [model.weight.detach(), model.weight.detach()[:1]],
    }
    for legacy in (True, False):
        torch.save(content, tmp_path / 'a.pth', _use_new_zipfile_serialization=not legacy)
        read = read_checkpoint(tmp_path / 'a.pth')
        assert read['things'] == content['things']
        assert read['schedule']['milestones'] == Counter([3, 5])
        assert read['args'].lr == 0.1
        assert torch.equal(read['shared'][1], content['shared'][1])
        assert all(torch.equal(read['state_dict'][k], v) for k, v in model.state_dict().items())
        assert read['optimizer']['param_groups'] == content['optimizer']['param_groups']
        assert read_weights(read).state.keys() == {'weight', 'bias'}
