"""What a user can get wrong: one line on stderr that says what, exit code 2, nothing half-written."""

import errno
import os

import pytest
import torch

from helpers import ROOT
from mobileone_mm import MobileOne

from .conftest import train


@pytest.fixture
def checkpoint(trained_run):
    """A checkpoint of the tiny classifier."""
    return trained_run('cls') / 'epoch_1.pth'


def test_checkpoint_that_does_not_fit(tiny_config, checkpoint, refused, tmp_path):
    """A fused file is told by its widths before its units are written into branches."""
    config, weights = tiny_config('cls'), tmp_path / 'weights.pth'
    torch.save(MobileOne('mu0', deploy=True).state_dict(), weights)
    line = refused(*train(config, f'load_from={weights}'))
    assert 'is of another size: its stages are 40/40/80/128/384 channels wide' in line
    assert 'is of another size' in refused('test', config, weights)
    torch.save({'backbone.stage0.x': torch.zeros(1)}, weights)
    assert 'no state of a run' in refused('train', config, '--resume', weights)
    start = 'model.backbone.init_cfg'
    options = (f'{start}.type=Pretrained', f'{start}.checkpoint={checkpoint}', f'{start}.prefix=x')
    assert "has no key below 'x.'" in refused(*train(config, *options))


def test_state_of_a_run_that_does_not_fit(tiny_config, checkpoint, refused, tmp_path):
    """The state is of another optimizer or damaged; errors of torch and mmengine name no file."""
    content, damaged = torch.load(checkpoint, weights_only=False), tmp_path / 'other.pth'
    for name, value in (
        ('optimizer', {'state': {}, 'param_groups': [{'params': [0, 1], 'lr': 1.0}]}),
        ('message_hub', []),
    ):
        torch.save({**content, name: value}, damaged)
        line = refused('train', tiny_config('cls'), '--resume', damaged)
        assert f"--resume: the state in '{damaged}'" in line


@pytest.mark.parametrize(
    ('name', 'content', 'said'),
    [
        ('gone.py', None, 'no such file'),
        ('readme.md', '# no config', 'is not a config'),
        ('broken.py', 'model = dict(', 'cannot be read'),
        ('failing.py', 'model = 1 / 0', 'ZeroDivisionError'),
        ('base.py', "_base_ = ['nowhere.py']", 'nowhere.py'),
        ('list.json', '[1, 2]', 'cannot be read'),
        ('other.json', '{"name": "x"}', "has no 'model'"),
        ('text.py', "model = 'resnet'", 'is not a dict'),
        ('', None, 'is a folder'),
    ],
)
def test_config_that_is_none(name, content, said, refused, tmp_path):
    if content is not None:
        (tmp_path / name).write_text(content)
    line = refused('train', tmp_path / name)
    assert said in line
    assert name in line


def test_variable_that_names_no_base(refused, monkeypatch):
    monkeypatch.setenv('VOC_TRAIN', 'everything')
    line = refused('train', ROOT / 'configs' / 'deeplabv3_mobileone_s0_voc.py')
    assert 'voc2012_everything.py' in line
    assert "it uses these environment variables: VOC_TRAIN='everything'" in line


def test_unknown_scope_and_key(tiny_config, refused):
    assert 'mmpose' in refused('train', tiny_config('cls', "default_scope = 'mmpose'\n"))
    line = refused('train', tiny_config('cls', 'train_cgf = dict(max_epochs=3)\n'))
    assert "'train_cgf'; did you mean 'train_cfg'" in line


@pytest.mark.parametrize(
    ('option', 'said'),
    [
        ('optim_wrapper.optimizer.type=SGDD', "did you mean 'SGD'"),
        ("custom_hooks=['EMAHook']", "custom_hooks.0: got 'EMAHook'; expected a dict"),
        ('default_hooks.logger.priority=XX', "logger.priority: got 'XX'; expected 0 to 100 or"),
        ("custom_hooks=[dict(type='EMAHok')]", "0.type: unknown hook 'EMAHok'; did you mean 'EMAHook'"),
        ("custom_hooks=[dict(type='NoHook')]", "0.type: unknown hook 'NoHook'; import"),
        ("custom_hooks=[dict(type='mobileone_mm.BestDeployHook')] "
         'default_hooks.checkpoint.save_best=None', 'no best checkpoint is saved'),
        ("custom_hooks=[dict(type='mobileone_mm.DeployEvalHook',priority='LOWEST')]", 'behind'),
        ("custom_hooks=[dict(type='EMAHook',momentum=2)]", 'custom_hooks.0.momentum: '),
        ("visualizer.vis_backends=[dict(type='LocalVisBackEnd')]", "did you mean 'LocalVisBackend'"),
        ("visualizer.vis_backends=[dict(type='LocalVisBackend',x=1)]", 'backends.0: LocalVisBackend: '),
        ("visualizer.vis_backends=['LocalVisBackend']", "backends.0: got 'LocalVisBackend'; expected"),
        ('model.data_preprocessor.mean=[1,2]', 'mean: got [1, 2]; expected 1 or 3 numbers'),
        ('model.data_preprocessor.std=[1,0,1]', 'model.data_preprocessor.std: got [1, 0, 1]; expected'),
        ('data_preprocessor.mean=[1,2,3]', "nothing reads 'data_preprocessor' beside model.data_prep"),
        ('train_dataloader.dataset.pipeline.1.scale=-5', 'RandomResizedCrop: expected scale > 0'),
        ('default_hooks.checkpoint.out_dir=/dev/null/x', 'checkpoint.out_dir: cannot write '),
        ('val_evaluator=None', 'has no val_evaluator'),
        ('train_dataloader.batch_size=99 train_dataloader.drop_last=True', 'than one batch of 99'),
        ('load_from=/no/such.pth', '/no/such.pth'),
        ('model.backbone.frozen_stages=9', 'model.backbone'),
        ('model.head.num_classes=many', 'model.head.num_classes'),
        ('val_evaluator.topk=(1,1001)', 'val_evaluator.topk: got (1, 1001)'),
        ('optim_wrapper.type=AmpOptimWrapper', 'optim_wrapper'),  # on a machine without a GPU
    ],
)  # fmt: skip
def test_option_that_cannot_be(option, said, tiny_config, refused):
    """A plan is refused like its run."""
    run = train(tiny_config('cls'), *option.split())
    line = refused(*run)
    assert said in line
    assert refused(*run, '--dry-run') == line


@pytest.mark.parametrize('task', ['cls', 'det', 'seg'])
def test_another_size_without_its_channels(task, tiny_config, refused):
    """Hosts build it, and end in torch's message about the shape of a weight."""
    line = refused(*train(tiny_config(task), 'model.backbone.arch=s1'))
    part = {'cls': 'model.head', 'det': 'model.neck', 'seg': 'model.decode_head'}[task]
    assert f'{part}.in_channels: got ' in line
    assert "the backbone of size 's1' gives " in line


def test_unwritable_output(tiny_config, checkpoint, refused, tmp_path, monkeypatch):
    (tmp_path / 'file').write_text('in the way')
    config, inside = tiny_config('cls'), tmp_path / 'file' / 'run'
    line = refused('train', config, '--work-dir', inside)
    assert 'cannot write' in line
    assert str(inside) in line
    assert '--out' in refused('test', config, checkpoint, '--out', inside / 'a.csv')
    assert '--out' in refused('test', config, checkpoint, '--out', tmp_path / 'a.txt')
    assert '--show-dir' in refused('test', config, checkpoint, '--show-dir', inside)

    def refuse(*args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr('mobileone_mm.training.folders.tempfile.NamedTemporaryFile', refuse)
    assert 'Read-only file system' in refused('train', config)


def test_full_disk(tiny_config, tool, refused, tmp_path, monkeypatch):
    """The checkpoint that does not fit is not there, its predecessor is, and can be resumed."""
    run = tmp_path / 'run'
    command = ('train', tiny_config('cls'), '--work-dir', run, '--no-validate', '--resume')
    command += ('--cfg-options', 'default_hooks.checkpoint.max_keep_ckpts=1')
    assert tool(*command) == 0
    sync = os.fsync

    def fsync(handle):
        if os.fstat(handle).st_size > 100_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(handle)

    with monkeypatch.context() as full:
        full.setattr(os, 'fsync', fsync)
        line = refused(*command, 'train_cfg.max_epochs=2', got_somewhere=True)
    assert 'the disk is full' in line
    assert 'epoch_2.pth' in line
    assert [file.name for file in run.glob('*.pth')] == ['epoch_1.pth']
    assert tool(*command, 'train_cfg.max_epochs=2') == 0
    assert [file.name for file in run.glob('*.pth')] == ['epoch_2.pth']


def test_device_and_flags(tiny_config, refused, monkeypatch):
    """Without a GPU and Slurm."""
    monkeypatch.delenv('LOCAL_RANK')
    for flags, said in (
        (('--device', 'cuda'), '--device cuda'),
        (('--amp',), '--amp'),
        (('--launcher', 'slurm'), 'SLURM_PROCID'),
    ):
        assert said in refused('train', tiny_config('cls'), *flags)
