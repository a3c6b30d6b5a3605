"""Broken and ambiguous safetensors are refused in one line; the file is read, not mapped."""

from __future__ import annotations

import json

import pytest
import torch
import torch.utils.collect_env

from mobileone_mm.weights.reading import read_checkpoint

STATE = {'stage0.branch_reparam.weight': torch.arange(4.0), 'head.fc.bias': torch.ones(2)}

pytestmark = pytest.mark.timeout(60)


F32 = {'dtype': 'F32', 'shape': [2], 'data_offsets': [0, 8]}


def with_(**changes) -> dict:
    return {'w': {**F32, **changes}}


HEADERS = {
    'no JSON': b'{"w": nothing}',
    'a list': b'[1, 2]',
    'nested deeply': b'{"w":' + b'[' * 200_000,
    'not UTF-8': b'{"\xff": 1}',
    'key twice': b'{"w": %b, "w": %b}' % ((json.dumps(F32).encode(),) * 2),
    'dtype twice': json.dumps({'w': F32})
    .encode()
    .replace(b'{"dtype"', b'{"dtype": "I32", "dtype"'),
    'overlap': json.dumps({'v': F32, 'w': F32}).encode(),
    'hole': json.dumps({'v': {**F32, 'shape': [1], 'data_offsets': [4, 8]}}).encode(),
    'out of range': json.dumps(with_(data_offsets=[0, 2**40], shape=[2**38])).encode(),
    'backwards': json.dumps(with_(data_offsets=[8, 0])).encode(),
    'negative': json.dumps(with_(data_offsets=[-8, 8])).encode(),
    'overflow': json.dumps(with_(shape=[2**62, 2, 2**62])).encode(),
    'fewer than declared': json.dumps(with_(shape=[1])).encode(),
    'unknown type': json.dumps(with_(dtype='F33')).encode(),
    'no offsets': b'{"w": {"dtype": "F32", "shape": [2]}}',
    'an entry that is none': b'{"w": 3}',
}


@pytest.mark.parametrize('name', HEADERS)
def test_safetensors_headers(tmp_path, name, little_memory, refused_file):
    pytest.importorskip('safetensors')
    path, header = tmp_path / 'a.safetensors', HEADERS[name]
    path.write_bytes(len(header).to_bytes(8, 'little') + header + bytes(8))
    refused_file(path, "holds the key '(dtype|w)' twice" if 'twice' in name else 'damaged')


@pytest.mark.parametrize('length', [0, 1, 2**31, 2**40, 2**63, 2**64 - 1])
def test_safetensors_header_length(tmp_path, length, little_memory, refused_file):
    pytest.importorskip('safetensors')
    header = json.dumps({'w': F32}).encode()
    (tmp_path / 'a.safetensors').write_bytes(length.to_bytes(8, 'little') + header + bytes(8))
    refused_file(tmp_path / 'a.safetensors', 'damaged')


def test_safetensors_are_no_map_of_the_file(tmp_path):
    """The library's load_file maps it: what is written over the file later would be the weights."""
    library = pytest.importorskip('safetensors.torch')
    path = tmp_path / 'a.safetensors'
    library.save_file({'w': torch.ones(5000)}, path)
    read = read_checkpoint(path)
    with path.open('r+b') as file:
        file.seek(200)
        file.write(bytes(10_000))
    assert torch.equal(read['w'], torch.ones(5000))
    path.write_bytes(b'')
    assert torch.equal(read['w'], torch.ones(5000))
