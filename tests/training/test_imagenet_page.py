"""docs/imagenet.md: its snippets are those of the configs, its options fit them."""

import re

import pytest
from mmengine.optim import build_optim_wrapper
from mmengine.registry import HOOKS, MODELS, init_default_scope

from helpers import ROOT, cfg_options
from mobileone_mm.config.read import load_config

from .conftest import rates_of

PAGE = (ROOT / 'docs' / 'imagenet.md').read_text()
SNIPPETS = re.findall(r'```python\n(.*?)```', PAGE, re.DOTALL)


def config(name, options=()):
    path = ROOT / 'configs' / f'{name}.py'
    return load_config(path, cfg_options(*options), needs=('optim_wrapper',))


@pytest.mark.parametrize('size', ['s2', 's3', 's4'])
def test_the_curriculum(size):
    found: dict = {}
    exec(SNIPPETS[0], found)
    hooks = config(f'mobileone_{size}_in1k').to_dict()['custom_hooks']
    assert hooks == found['custom_hooks']


@pytest.mark.parametrize('size', ['s0', 's1', 'mu0', 'mu1', 'mu2'])
def test_one_line_gives_the_resolution_alone(size, tmp_path):
    name = f'mobileone_{size}_in1k'
    hooks = config(name).custom_hooks
    assert [hook.type for hook in hooks] == ['EMAHook']
    text = (ROOT / 'configs' / f'{name}.py').read_text()
    text = text.replace("schedules/imagenet_300e.py'", "schedules/imagenet_300e_resolution.py'")
    path = tmp_path / 'rising.py'
    path.write_text(text.replace("'./_base_", f"'{ROOT}/configs/_base_"))
    ema, rising = load_config(path).custom_hooks
    assert ema == hooks[0]
    assert HOOKS.build(rising).phases == ((0, 160, None), (38, 192, None), (113, 224, None))


def test_a_rate_for_the_head():
    found: dict = {}
    exec(SNIPPETS[1], found)
    cfg = config('mobileone_s0_in1k')
    cfg.merge_from_dict(dict(optim_wrapper=found['optim_wrapper']))
    init_default_scope('mmpretrain')
    model = MODELS.build(cfg.model)
    named = rates_of(model, build_optim_wrapper(model, cfg.optim_wrapper))
    assert named['head.fc.weight'] == (1.0, 1e-4)
    assert named['head.fc.bias'] == (1.0, 0)
    assert {value for name, value in named.items() if '.norm' in name} == {(0.1, 0)}


def test_options():
    options = re.findall(r'(?<![\w/])((?:\w+\.)+\w+=[\w.-]+)', PAGE)
    assert {option.partition('=')[0] for option in options} == {
        'train_cfg.max_epochs', 'param_scheduler.0.end', 'custom_hooks.0.momentum',
        'train_dataloader.batch_size', 'optim_wrapper.accumulative_counts',
        'custom_hooks.0.interval', 'optim_wrapper.dtype',
        'train_dataloader.drop_last', 'model.backbone.with_cp',
    }  # fmt: skip
    config('mobileone_s2_in1k', options)


def test_begins():
    hook = HOOKS.build(config('mobileone_s2_in1k').custom_hooks[1])
    assert hook.begins(30) == [0, 4, 11]
    assert 'here from epochs 1, 5 and 12' in PAGE
    assert hook.begins(300) == [0, 38, 113]
    assert 'from epochs 1, 39, 114' in PAGE
