"""The three files of a pair, without a model: paths, contents and metadata."""

import json

import pytest
import torch
from mmengine.config import Config

from mobileone_mm import __version__
from mobileone_mm.deploy.pair import SUFFIXES, Conversion, output_paths, pair_meta
from mobileone_mm.files import sha256_of


@pytest.mark.parametrize('trial', [False, True])
@pytest.mark.parametrize('suffix', SUFFIXES)
def test_the_files_of_a_pair_and_of_a_trial(tmp_path, suffix, trial):
    """A trial writes to another folder; safetensors has no place for the meta."""
    paths = output_paths(tmp_path / f'net{suffix}', [])
    meta = {'cfg': 'a = 1', 'form': 'deploy'}
    report = {'checkpoint_bytes': {'before': 1}}
    made = Conversion(paths, 'a = 1', {'w': torch.ones(2)}, meta, report)
    (tmp_path / 'trial').mkdir()
    folder = tmp_path / 'trial' if trial else tmp_path
    written = made.write(folder) if trial else made.write()
    suffixes = dict(checkpoint=suffix, config='.py', report='.json')
    assert written == {k: folder / f'net{s}' for k, s in suffixes.items()}
    assert len(list(tmp_path.rglob('net.*'))) == 3
    assert written['config'].read_text() == 'a = 1'
    assert written['report'].read_text() == json.dumps(report, indent=2) + '\n'
    size = written['checkpoint'].stat().st_size
    hashes = {f'{kind}_sha256': sha256_of(written[kind]) for kind in ('checkpoint', 'config')}
    assert report.pop('meta', None) == ({'form': 'deploy'} if 'safe' in suffix else None)
    assert report == {'checkpoint_bytes': {'before': 1, 'after': size}, 'written': hashes}


def test_paths_of_a_pair(tmp_path, monkeypatch):
    """Home is known in the output and in the inputs, which may be names without a file."""
    monkeypatch.setenv('HOME', str(tmp_path))
    (tmp_path / 'net.json').write_text('{"written": {"config_sha256": ""}}')
    (tmp_path / 'net.py').touch()
    (tmp_path / 'other.py').touch()
    paths = output_paths('~/net.pt', ['mobileone_s0', '~/other.py', '\0'])
    assert paths['checkpoint'] == tmp_path / 'net.pt'
    with pytest.raises(ValueError, match=r"net\.py' would overwrite the input '.*/net\.py'"):
        output_paths('~/net.pt', ['~/other.py', '~/net.py'])


@pytest.mark.parametrize(
    ('given', 'dataset_meta', 'expected'),
    [
        ({'dataset_meta': {1: torch.ones(1)}}, {'classes': ('b',)}, {'1': [1.0]}),
        ({'CLASSES': ['a'], 'PALETTE': torch.ones(1, 1).numpy()}, None,
         {'classes': ['a'], 'palette': [[1.0]]}),
        ({'CLASSES': ['a'], 'epoch': 3}, {'classes': ['b']}, {'classes': ['a']}),
        ({}, {'classes': ('b',), 'palette': None}, {'classes': ('b',)}),
        ({'dataset_meta': {}}, {'classes': ['b']}, {'classes': ['b']}),
        ({}, None, None),
    ],
)  # fmt: skip
@pytest.mark.parametrize('where', ['model', 'config', 'neither'])
def test_meta_of_a_pair(given, dataset_meta, expected, where):
    preprocessor = dict(type=torch.nn.Identity, mean=[1.5], other=(torch.ones(1),))
    plain = dict(type='torch.nn.modules.linear.Identity', mean=[1.5], other=([1.0],))
    config = Config(dict(model=dict(type='X')))
    if where != 'neither':
        (config.model if where == 'model' else config)['data_preprocessor'] = preprocessor
    found = pair_meta(given, config, 'a', {'file': 'f', 'sha256': 's'}, dataset_meta)
    assert found.pop('data_preprocessor', 'none') == ('none' if where == 'neither' else plain)
    assert found.pop('dataset_meta', None) == expected
    own = {'cfg': 'a', 'form': 'deploy', 'mobileone_mm_version': __version__}
    assert found == {**own, 'source_file': 'f', 'source_sha256': 's'}
