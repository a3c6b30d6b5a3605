"""Files that run code when an ordinary reader loads them: nothing runs, the code is named."""

from __future__ import annotations

import builtins
import cProfile
import functools
import importlib
import os
import pickle
import runpy
import subprocess
import timeit
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.utils.collect_env
from mmengine.config import Config
from mmengine.logging import HistoryBuffer

STATE = {'stage0.branch_reparam.weight': torch.arange(4.0), 'head.fc.bias': torch.ones(2)}

pytestmark = pytest.mark.timeout(60)


class Bomb:
    """Pickles as a call; what it calls may be another one."""

    def __init__(self, function, *args):
        self.call = function, args

    def __call__(self):
        raise AssertionError('only pickled')

    def __reduce__(self):
        return self.call


class Stateful:
    """Pickles as an object with a state that its class is given on loading."""

    def __init__(self, kind, argument, state):
        self.made = kind, (argument,), state

    def __call__(self):
        raise AssertionError('only pickled')

    def __reduce__(self):
        return self.made


def script(folder: Path, name: str, marker: Path) -> str:
    (folder / name).write_text(f'open({str(marker)!r}, "w").close()\n')
    return str(folder / name)


def object_array(folder: Path, marker: Path) -> str:
    array = np.array([Bomb(os.system, f'touch {marker}')], dtype=object)
    np.save(folder / 'evil.npy', array, allow_pickle=True)
    return str(folder / 'evil.npy')


def inner_checkpoint(folder: Path, marker: Path) -> str:
    torch.save(Bomb(os.system, f'touch {marker}'), folder / 'inner.pth')
    return str(folder / 'inner.pth')


def hub(folder: Path, marker: Path) -> str:
    script(folder, 'hubconf.py', marker)
    return str(folder)


# By name: folder for further files, path of the marker -> an object that makes the marker on loading.
CODE = {
    'os.system': lambda folder, m: Bomb(os.system, f'touch {m}'),
    'subprocess.call': lambda folder, m: Bomb(subprocess.call, ['touch', str(m)]),
    'exec': lambda folder, m: Bomb(exec, f'open({str(m)!r}, "w").close()'),
    'eval': lambda folder, m: Bomb(eval, f'open({str(m)!r}, "w").close()'),
    'open': lambda folder, m: Bomb(open, str(m), 'w'),
    'timeit': lambda folder, m: Bomb(
        timeit.timeit, f'open({str(m)!r}, "w")', 'pass', timeit.default_timer, 1
    ),
    'cProfile': lambda folder, m: Bomb(cProfile.run, f'open({str(m)!r}, "w")', os.devnull),
    'getattr of an import': lambda folder, m: Bomb(
        Bomb(getattr, Bomb(builtins.__import__, 'os'), 'system'), f'touch {m}'
    ),
    'getattr of a module by name': lambda folder, m: Bomb(
        Bomb(getattr, Bomb(importlib.import_module, 'os'), 'mkdir'), str(m)
    ),
    'globals of a method': lambda folder, m: Bomb(
        Bomb(
            dict.get,
            Bomb(
                dict.get,
                Bomb(getattr, Bomb(getattr, HistoryBuffer, '__init__'), '__globals__'),
                '__builtins__',
            ),
            'open',
        ),
        str(m),
        'w',
    ),
    'a pickle in a pickle': lambda folder, m: Bomb(
        pickle.loads, pickle.dumps(Bomb(os.system, f'touch {m}'))
    ),
    'torch.load of another file': lambda folder, m: Bomb(
        functools.partial(torch.load, weights_only=False), inner_checkpoint(folder, m)
    ),
    'numpy.load of objects': lambda folder, m: Bomb(np.load, object_array(folder, m), None, True),
    'numpy.memmap': lambda folder, m: Bomb(np.memmap, str(m), 'uint8', 'w+', 0, (1,)),
    '_rebuild_from_type_v2': lambda folder, m: Bomb(
        torch._tensor._rebuild_from_type_v2, os.system, torch.Tensor, (f'touch {m}',), {}
    ),
    'torch collect_env': lambda folder, m: Bomb(torch.utils.collect_env.run, f'touch {m}'),
    'torch.hub': lambda folder, m: Bomb(
        functools.partial(torch.hub.load, source='local'), hub(folder, m), 'go'
    ),
    'runpy': lambda folder, m: Bomb(runpy.run_path, script(folder, 'evil.py', m)),
    'mmengine config': lambda folder, m: Bomb(Config.fromfile, script(folder, 'evil.py', m)),
    'state of an object': lambda folder, m: Bomb(
        Stateful(functools.partial, print, (os.system, (f'touch {m}',), {}, None))
    ),
}  # fmt: skip
CONTAINERS = ('zip', 'legacy', 'plain', 'protocol 4')


def save_in(container: str, content: object, path: Path) -> None:
    if container in ('zip', 'legacy'):
        torch.save(content, path, _use_new_zipfile_serialization=container == 'zip')
    else:
        path.write_bytes(pickle.dumps(content, protocol=2 if container == 'plain' else 4))


@pytest.mark.parametrize('name', CODE)
def test_code_does_not_run(tmp_path, name, refused_file):
    path, marker = tmp_path / 'evil.pth', tmp_path / 'marker'
    evil = CODE[name](tmp_path, marker)
    with_lists = torch.serialization.safe_globals([getattr, eval, exec, open, os.system, np.load])
    for container in CONTAINERS:
        for content in (evil, {'state_dict': STATE, 'meta': {'x': evil}}, {'state_dict': evil}):
            save_in(container, content, path)
            with with_lists:  # what another library has put on torch's list must not help
                message = refused_file(path)
            if container != 'protocol 4':
                assert 'refers to code' in message
            assert not marker.exists()
    # The file is dangerous indeed: an ordinary reader runs it.
    save_in('plain', evil, path)
    with suppress(Exception):
        pickle.loads(path.read_bytes())
    assert marker.exists()
    assert refused_file(path)
