"""What becomes one line with a path while something is built, and what keeps its traceback."""

import runpy
import sys

import pytest
from mmengine.config import Config
from mmengine.registry import HOOKS, MODELS, DefaultScope

from mobileone_mm.config.explain import config_faults
from mobileone_mm.errors import InputError
from mobileone_mm.faults import user_fault
from mobileone_mm.training.runner import Runner

BACKBONE, MISTYPED = dict(type='mobileone_mm.MobileOne', arch='mu0'), 'mobileone_mm.MobileOn'
# A module of a user, in whose hooks the faults are.
OWN = """
from mmengine.hooks import Hook, LoggerHook

class Body(Hook):
    def __init__(self, alpha=1):
        self.number = len(alpha)

class Child(LoggerHook):
    def __init__(self, beta=1, **kwargs):
        super().__init__(**kwargs)

class Reader(Hook):
    def __init__(self, path='/no/other.txt'):
        self.path = path

    def before_run(self, runner):
        open(self.path)
"""


def build(node, built, error=None):
    """Build a node under a config that has it as its second head."""
    cfg = Config(dict(model=dict(heads=[dict(BACKBONE), node])))
    with config_faults(cfg, built=lambda: built):
        MODELS.build(cfg.model.heads[1])
        if error is not None:
            raise error


@pytest.mark.parametrize('built', [False, True])
@pytest.mark.parametrize(
    ('change', 'said'),
    [
        (dict(norm_evl=True), "has no argument 'norm_evl'; did you mean 'norm_eval'"),
        (dict(arch='s9'), 's9'),
        (dict(type=MISTYPED), f"type: '{MISTYPED}' is unknown; did you mean"),
    ],
)
def test_a_refusal_of_what_stands_in_the_config(change, said, built):
    """Also late: a hook may build a pipeline of the config at its epoch."""
    with pytest.raises(InputError, match=rf'^model\.heads\.1.*{said}'):
        build(BACKBONE | change, built)


@pytest.mark.parametrize('kind', [TypeError, KeyError, ValueError, AssertionError, RuntimeError])
def test_an_error_that_built_nothing(kind):
    with pytest.raises(kind, match='own'):
        build(BACKBONE, True, kind('own'))


@pytest.fixture
def run_hook(tmp_path):
    """Build a hook of a user from a config and run it."""
    (tmp_path / 'own_hooks.py').write_text(OWN)
    module = runpy.run_path(str(tmp_path / 'own_hooks.py'))

    def run(kind, **settings):
        cfg = Config(dict(custom_hooks=[dict(type=module[kind], **settings)]))
        with config_faults(cfg):
            HOOKS.build(cfg.custom_hooks[0]).before_run(None)

    return run


@pytest.mark.parametrize(
    ('kind', 'settings', 'said'),
    [
        ('Body', dict(alpa=1), ": Body has no argument 'alpa'; did you mean 'alpha'"),
        ('Child', dict(intervl=1), ".*Hook has no argument 'intervl'; did you mean 'interval'"),
        ('Reader', dict(path='/no/a.txt'), r"\.path: '/no/a.txt': no such file or folder$"),
        ('Child', dict(interval=0), '.interval: Child: interval must be greater than 0'),
    ],
)
def test_what_a_hook_of_the_user_refuses(kind, settings, said, run_hook):
    """A wrong argument, also one for the host's base class, and a file that the config names."""
    with pytest.raises(InputError, match=rf'^custom_hooks\.0{said}'):
        run_hook(kind, **settings)


@pytest.mark.parametrize(('kind', 'error'), [('Body', TypeError), ('Reader', FileNotFoundError)])
def test_a_fault_inside_a_hook_of_the_user_keeps_its_place(kind, error, run_hook, monkeypatch):
    with pytest.raises(error) as caught:
        run_hook(kind)
    assert user_fault(caught.value) is None
    if kind == 'Reader':
        monkeypatch.setattr(sys, 'argv', ['tool', '/no/other.txt'])
        assert user_fault(caught.value) == "'/no/other.txt': no such file or folder"


@pytest.mark.parametrize(
    ('augments', 'said'),
    [
        ([dict(type='Mixp')], r"\.0\.type: 'Mixp' is unknown; did you mean 'Mixup'"),
        (dict(type='Mixup', alpa=1), ": Mixup has no argument 'alpa'; did you mean 'alpha'"),
        (dict(typ='Mixup'), ": has no 'type'; rename 'typ'"),
    ],
)
def test_mistyped_batch_augmentation(augments, said):
    """The model reads ``train_cfg`` itself, so its registry raises with a text of several lines."""
    pytest.importorskip('mmpretrain.models')
    model = dict(type='ImageClassifier', backbone=BACKBONE, train_cfg=dict(augments=augments))
    cfg = Config(dict(model=model))
    with (
        DefaultScope.overwrite_default_scope('mmpretrain'),
        pytest.raises(InputError, match=rf'^model\.train_cfg\.augments{said}') as caught,
        config_faults(cfg),
    ):
        MODELS.build(cfg.model)
    assert len(str(caught.value)) < 120


def test_a_refusal_of_the_data_loader():
    """No registry builds it; the innermost one builds the loop of ``train_cfg``."""
    loader = dict(num_workers=0, persistent_workers=True, sampler=dict(type='DefaultSampler'))
    loaders = {f'{part}_dataloader': dict(loader, dataset=[part]) for part in ('train', 'val')}
    cfg = Config(dict(loaders, train_cfg=dict(type='X')))
    said = '^val_dataloader.persistent_workers: DataLoader: persistent_workers'
    with pytest.raises(InputError, match=said), config_faults(cfg):
        Runner.build_dataloader(cfg.val_dataloader, seed=0)
