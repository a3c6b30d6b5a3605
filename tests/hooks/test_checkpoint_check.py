"""The hook between mmengine's reader and the model of a run."""

import copy
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import EMAHook
from torch import nn

from helpers import randomize_
from mobileone_mm import MobileOne, reparameterize_model
from mobileone_mm.errors import InputError
from mobileone_mm.hooks.checkpoint_check import CheckpointCheckHook
from mobileone_mm.weights.forms import fuse_state

from ..training.conftest import assert_same

ARCH = dict(num_blocks=(1, 1, 1, 1), width_factor=(0.0625,) * 4)


class Model(nn.Module):
    def __init__(self, seed: int, backbone: nn.Module | None = None, classes: int = 3) -> None:
        super().__init__()
        self.backbone = backbone or MobileOne(ARCH)
        self.head = nn.Linear(4, classes)
        randomize_(self, seed=seed)


def checked(
    checkpoint: dict, model: nn.Module, *hooks, resume=False, whole=True, log=print
) -> dict:
    logger = SimpleNamespace(info=log, warning=log)
    runner = SimpleNamespace(
        model=model, _load_from='x.pth', _resume=resume, hooks=hooks, logger=logger
    )
    hook = CheckpointCheckHook() if whole else CheckpointCheckHook(whole=False)
    hook.after_load_checkpoint(runner, checkpoint)
    return checkpoint


def checkpoint_of_a_run(prefix: str) -> tuple[dict, dict, dict]:
    """A Runner's checkpoint with EMA, whose model had a prefix; its averaged and raw weights."""
    averaged, raw = (Model(seed).state_dict() for seed in (1, 2))
    content = {
        'meta': {'epoch': 1},
        'message_hub': {},
        'optimizer': {'state': {}},
        'state_dict': {prefix + key: value for key, value in averaged.items()},
        'ema_state_dict': {
            **{f'module.{prefix}{key}': value for key, value in raw.items()},
            'steps': torch.tensor(7),
        },
    }
    return content, averaged, raw


@pytest.mark.parametrize('prefix', ['', '_orig_mod.', 'module.'])
def test_resume_gives_both_sets_the_names_of_the_model(prefix):
    content, averaged, raw = checkpoint_of_a_run(prefix)
    found = checked(content, Model(3), EMAHook(), resume=True)
    assert_same(found['state_dict'], averaged)
    expected = {f'module.{key}': value for key, value in raw.items()} | dict(steps=torch.tensor(7))
    assert_same(found['ema_state_dict'], expected)
    assert found['optimizer'] == {'state': {}}


@pytest.mark.parametrize('resume', [True, False])
def test_without_an_average_the_raw_weights_stay_as_they_are(resume):
    content, averaged, _ = checkpoint_of_a_run('module.')
    raw, lines = content['ema_state_dict'], []
    found = checked(content, Model(3), resume=resume, log=lines.append)
    assert_same(found['state_dict'], averaged)
    assert content['ema_state_dict'] is raw
    assert ['this run has none: it continues from the averaged' in line for line in lines] == (
        [True] * resume
    )


@pytest.mark.parametrize(
    ('hooks', 'resume'), [([], True), ([EMAHook()], True), ([EMAHook()], False)]
)
def test_an_average_that_the_checkpoint_lacks_is_named_at_resume(hooks, resume):
    content, lines = checkpoint_of_a_run('')[0], []
    del content['ema_state_dict']
    checked(content, Model(3), *hooks, resume=resume, log=lines.append)
    named = bool(hooks) and resume
    assert ['the average starts from its weights' in line for line in lines] == [True] * named


@pytest.mark.parametrize('resume', [True, False])
def test_an_optimizer_state_that_the_checkpoint_lacks_is_named_at_resume(resume):
    """mmengine saves a best checkpoint without it, and resumes in silence."""
    content, lines = checkpoint_of_a_run('')[0], []
    del content['optimizer']
    checked(content, Model(3), EMAHook(), resume=resume, log=lines.append)
    assert ["'x.pth' has no optimizer state" in line for line in lines] == [True] * resume


BIAS = 'module.head.bias'


@pytest.mark.parametrize(
    ('spoilt', 'line'),
    [
        (
            lambda raw: fuse_state({k[7:]: v for k, v in raw.items() if k != 'steps'}),
            ': is in another form than the model',
        ),
        (lambda raw: {k: v for k, v in raw.items() if k != BIAS}, ' lacks'),
        (lambda raw: {**raw, BIAS: torch.full((3,), torch.nan)}, ' NaN'),
    ],
)
def test_raw_weights_that_do_not_fit(spoilt, line):
    """An error in a resumed run; a test and a new run take the averaged weights alone."""
    content, averaged, _ = checkpoint_of_a_run('')
    # Also if both fit: mmpretrain's EMAHook would give a new run the raw weights.
    found = checked(copy.deepcopy(content), Model(3), EMAHook(), whole=False)
    assert 'ema_state_dict' not in found
    assert_same(found['state_dict'], averaged)
    content['ema_state_dict'] = spoilt(content['ema_state_dict'])
    with pytest.raises(InputError, match=f'^--resume: .*ema_state_dict.*{line}'):
        checked(copy.deepcopy(content), Model(3), EMAHook(), resume=True)
    lines = []
    found = checked(content, Model(3), EMAHook(), log=lines.append)
    assert 'ema_state_dict' not in found
    assert_same(found['state_dict'], averaged)
    assert lines[0].startswith('Only the averaged weights are loaded')


@pytest.mark.parametrize(
    ('fused', 'line'),
    [
        ('file', "'x.pth' is in deploy form, the model in training form;"),
        ('model', "'x.pth' is in training form, the model in deploy form;"),
    ],
)
def test_resume_in_the_other_form_is_an_error(fused, line):
    models = {'file': Model(1).eval(), 'model': Model(2).eval()}
    models[fused] = reparameterize_model(models[fused])
    with pytest.raises(InputError, match=f'^--resume: {line}'):
        checked({'state_dict': models['file'].state_dict()}, models['model'], resume=True)


def test_a_file_of_another_program_becomes_a_checkpoint_of_mmengine():
    state = Model(1).state_dict()
    found = checked({'model': {f'module.{k}': v for k, v in state.items()}, 'lr': 1}, Model(2))
    assert found.keys() == {'state_dict'}
    assert_same(found['state_dict'], state)


def test_a_training_may_start_with_another_head_but_not_another_backbone():
    state, model = Model(1, classes=5).state_dict(), Model(2)
    with pytest.raises(InputError, match='number of classes'):
        checked({'state_dict': copy.copy(state)}, model)
    assert_same(checked({'state_dict': state}, model, whole=False)['state_dict'], state)
    other = Model(1, MobileOne(dict(ARCH, width_factor=(0.125,) * 4))).state_dict()
    with pytest.raises(InputError, match='another size'):
        checked({'state_dict': other}, model, whole=False)
    lacking = {key: value for key, value in state.items() if 'stage3' not in key}
    with pytest.raises(InputError, match='another size: units or branches differ'):
        checked({'state_dict': lacking}, model, whole=False)


def test_a_partial_file_of_a_foreign_backbone_is_left_to_mmengine():
    """Where the model has no MobileOne, mmengine's rule holds: what fits is loaded, the rest logged."""
    model = Model(1, nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))
    part = {'backbone.0.weight': torch.ones(4, 3, 1, 1), 'other.weight': torch.ones(1)}
    found = checked({'state_dict': dict(part)}, model, whole=False)
    assert_same(found['state_dict'], part)
    with pytest.raises(InputError, match='lacks'):
        checked({'state_dict': dict(part)}, model)
