"""What a user can get wrong: one line on stderr that says what, exit code 2, nothing half-written."""

import errno
import os
import shutil
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mobileone_mm import MobileOne
from mobileone_mm.config.check import check_values
from mobileone_mm.errors import InputError

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'


def train(config, *options):
    return ('train', config, *(('--cfg-options', *options) if options else ()))


# -- checkpoints -----------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(trained_run):
    """A checkpoint of the tiny classifier."""
    return trained_run('cls') / 'epoch_1.pth'


def test_checkpoint_of_another_size(tiny_config, checkpoint, refused, tmp_path):
    """Fine-tuning takes the backbone, and only of the same size, as a test does."""
    config, fused = tiny_config('cls'), tmp_path / 'fused.pth'
    wider = (
        'model.backbone.arch.width_factor=(0.25,0.125,0.0625,0.125)',
        'model.head.in_channels=64',
    )
    line = refused('test', config, checkpoint, '--cfg-options', *wider)
    assert 'is of another size' in line
    assert str(checkpoint) in line
    assert 'is of another size' in refused(*train(config, *wider, f'load_from={checkpoint}'))
    # A fused file is told by its widths before its units are written into branches.
    torch.save(MobileOne('mu0', deploy=True).state_dict(), fused)
    line = refused(*train(config, f'load_from={fused}'))
    assert 'is of another size: its stages are 40/40/80/128/384 channels wide' in line
    assert 'is of another size' in refused('test', config, fused)


def test_checkpoint_that_does_not_fit(tiny_config, checkpoint, refused, tmp_path):
    config = tiny_config('cls')
    options = ('--resume', checkpoint, '--cfg-options', 'model.backbone.deploy=True')
    line = refused('train', config, *options)
    assert 'is in training form, the model in deploy form' in line
    assert str(checkpoint) in refused('test', tiny_config('seg'), checkpoint)
    torch.save({'backbone.stage0.x': torch.zeros(1)}, tmp_path / 'weights.pth')
    line = refused('train', config, '--resume', tmp_path / 'weights.pth')
    assert 'no state of a run' in line
    start = 'model.backbone.init_cfg'
    options = (f'{start}.type=Pretrained', f'{start}.checkpoint={checkpoint}', f'{start}.prefix=x')
    assert "has no key below 'x.'" in refused(*train(config, *options))


def test_checkpoint_that_is_none(tiny_config, refused, tmp_path):
    config = tiny_config('cls')
    assert 'no such file' in refused('test', config, tmp_path / 'gone.pth')
    assert 'is a folder' in refused('test', config, tmp_path)
    (tmp_path / 'text.pth').write_text('no weights')
    assert 'is no checkpoint' in refused('test', config, tmp_path / 'text.pth')
    assert not (tmp_path / 'work_dirs').exists()
    assert '/no/such.pth' in refused(*train(config, 'load_from=/no/such.pth'))


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('optimizer', {'state': {}, 'param_groups': [{'params': [0, 1], 'lr': 1.0}]}),
        ('optimizer', {'state': 3}),
        ('param_schedulers', [3]),
        ('message_hub', {'log_scalars': 1}),
        ('message_hub', []),
    ],
)
def test_state_of_a_run_that_does_not_fit(name, value, tiny_config, checkpoint, refused, tmp_path):
    """The state is of another optimizer or damaged; errors of torch and mmengine name no file."""
    content = {**torch.load(checkpoint, weights_only=False), name: value}
    torch.save(content, tmp_path / 'other.pth')
    line = refused('train', tiny_config('cls'), '--resume', tmp_path / 'other.pth')
    assert '--resume: the state in' in line
    assert 'other.pth' in line


def test_refused_in_the_folder_of_another_run(tiny_config, checkpoint, refused, tmp_path):
    """The copy of the config that the run has left is the one that it had."""
    copy = shutil.copytree(checkpoint.parent, tmp_path / 'run') / 'cls.py'
    before = copy.read_bytes()
    options = ('--work-dir', tmp_path / 'run', '--cfg-options', 'model.head.in_channels=31')
    refused('test', tiny_config('cls'), checkpoint, *options)
    assert copy.read_bytes() == before


# -- configs ---------------------------------------------------------------------------------------


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
    line = refused('train', CONFIGS / 'deeplabv3_mobileone_s0_voc.py')
    assert 'voc2012_everything.py' in line
    assert "it uses these environment variables: VOC_TRAIN='everything'" in line


RECIPE = """
recipe = dict(action_epoch=2, batch_augmnts=None)
custom_hooks = [dict(type='SwitchRecipeHook', schedule=[recipe])]
"""


@pytest.mark.parametrize(
    ('extra', 'path', 'meant'),
    [
        ("model['backbone'].update(norm_evl=True)", 'model.backbone', 'norm_eval'),
        ("model['backbone'].update(type='mobileone_mm.MobileOn')", 'model.backbone.type', 'MobileOne'),
        ("custom_hooks = [dict(type='EMAHook', momentun=0.1)]", 'custom_hooks.0', 'momentum'),
        ("train_cgf = dict(max_epochs=3)", 'train_cgf', 'train_cfg'),
        (RECIPE, 'custom_hooks.0.schedule.0', 'batch_augments'),
        ("default_scope = 'mmpose'", 'mmpose', 'mmpose'),
    ],
)  # fmt: skip
def test_mistyped_key(extra, path, meant, tiny_config, refused):
    line = refused('train', tiny_config('cls', extra + '\n'))
    assert path in line
    assert meant in line


@pytest.mark.parametrize(
    ('option', 'said'),
    [
        ('model.bakbone.arch=s1', "did you mean 'backbone'"),
        ('no_such_section.key=1', "has no 'no_such_section'"),
        ('model.backbone.frozen_stges=1', 'frozen_stages'),
        ('custom_hooks.7.momentum=1', 'custom_hooks'),
        ('log_level.deep=1', 'log_level'),
        ('optim_wrapper.optimizer.type=SGDD', "did you mean 'SGD'"),
        ("custom_hooks=['EMAHook']", "custom_hooks.0: got 'EMAHook'; expected a dict"),
        ('default_hooks.logger.priority=XX', "logger.priority: got 'XX'; expected 0 to 100 or"),
        ("custom_hooks=[dict(type='EMAHok')]", "0.type: unknown hook 'EMAHok'; did you mean 'EMAHook'"),
        ("custom_hooks=[dict(type='NoHook')]", "0.type: unknown hook 'NoHook'; import"),
        # The names of the metrics are known after a validation.
        ('default_hooks.checkpoint.save_best=foo', "got 'foo'; expected a metric of the validation"),
        ('train_dataloader.batch_size=many', 'train_dataloader.batch_size'),
        ('optim_wrapper.optimizer.lr=-1', 'optim_wrapper'),
        ('model.backbone.arch=s9', 'model.backbone'),
        ('model.backbone.frozen_stages=9', 'model.backbone'),
        ('model.head.num_classes=many', 'model.head.num_classes'),
        ('val_evaluator.topk=(1,1001)', 'val_evaluator.topk: got (1, 1001)'),
        ('optim_wrapper.type=AmpOptimWrapper', 'optim_wrapper'),  # on a machine without a GPU
    ],
)  # fmt: skip
def test_option_that_cannot_be(option, said, tiny_config, refused):
    trains = 'save_best' in option
    assert said in refused(*train(tiny_config('cls'), option), got_somewhere=trains)


@pytest.mark.parametrize(
    ('setting', 'value'),
    [
        ('train_dataloader.batch_size', 0),
        ('train_dataloader.batch_size', 2.5),
        ('train_dataloader.num_workers', -1),
        ('optim_wrapper.optimizer.lr', 'fast'),
        ('train_cfg.max_epochs', 'soon'),
        ('train_cfg.max_epochs', 0),
        ('train_cfg.val_interval', 0),
        ('default_hooks.checkpoint.interval', 'often'),
        ('default_hooks.logger.interval', 0),
        ('randomness.seed', 'luck'),
    ],
)
def test_number_that_cannot_be(setting, value):
    cfg = Config({})
    cfg.merge_from_dict({setting: value})
    with pytest.raises(InputError, match=rf'^{setting}: got {value!r}; expected an? '):
        check_values(cfg)


@pytest.mark.parametrize('option', ['novalue', 'a=(1,', '=3'])
def test_option_that_is_none(option, tiny_config, tool, capsys):
    assert tool(*train(tiny_config('cls'), option)) == 2
    assert 'error: ' in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize('task', ['cls', 'det', 'seg'])
def test_another_size_without_its_channels(task, tiny_config, refused):
    """Hosts build it, and end in torch's message about the shape of a weight."""
    line = refused(*train(tiny_config(task), 'model.backbone.arch=s1'))
    part = {'cls': 'model.head', 'det': 'model.neck', 'seg': 'model.decode_head'}[task]
    assert f'{part}.in_channels: got ' in line
    assert "the backbone of size 's1' gives " in line


# -- output ----------------------------------------------------------------------------------------


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


def fill_disk(monkeypatch, after):
    """Refuse files of more than ``after`` bytes, as a full disk does."""
    sync = os.fsync

    def fsync(handle):
        if os.fstat(handle).st_size > after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(handle)

    monkeypatch.setattr(os, 'fsync', fsync)


def test_full_disk(tiny_config, tool, refused, tmp_path, monkeypatch):
    """The checkpoint that does not fit is not there, its predecessor is, and can be resumed."""
    run = tmp_path / 'run'
    command = ('train', tiny_config('cls'), '--work-dir', run, '--no-validate', '--resume')
    command += ('--cfg-options', 'default_hooks.checkpoint.max_keep_ckpts=1')
    assert tool(*command) == 0
    with monkeypatch.context() as full:
        fill_disk(full, after=100_000)
        line = refused(*command, 'train_cfg.max_epochs=2', got_somewhere=True)
    assert 'the disk is full' in line
    assert 'epoch_2.pth' in line
    assert [file.name for file in run.glob('*.pth')] == ['epoch_1.pth']
    assert tool(*command, 'train_cfg.max_epochs=2') == 0
    assert [file.name for file in run.glob('*.pth')] == ['epoch_2.pth']


# -- machine ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('environment', 'flags', 'said'),
    [
        (
            dict(TORCHELASTIC_RUN_ID='none', WORLD_SIZE='2', LOCAL_RANK='0'), (),
            'torchrun started 2 processes, and each would do the whole run; add --launcher pytorch',
        ),
        (
            {}, ('--launcher', 'pytorch'),
            'RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT not set',
        ),
        (
            dict(RANK='0', WORLD_SIZE='0', LOCAL_RANK='0', MASTER_ADDR='0', MASTER_PORT='http'),
            ('--launcher', 'pytorch'), "MASTER_PORT is 'http'",
        ),
        ({}, ('--launcher', 'slurm'), 'SLURM_PROCID'),
    ],
)  # fmt: skip
def test_launcher(environment, flags, said, tiny_config, refused, monkeypatch):
    for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT'):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert said in refused('train', tiny_config('cls'), *flags)


@pytest.mark.parametrize(
    ('flags', 'said'),
    [
        (('--device', 'cuda'), '--device cuda'),
        (('--device', 'cuda:1'), '--device cuda:1'),
        (('--device', 'gpu'), "got 'gpu'"),
        (('--amp',), '--amp'),
        (('--auto-scale-lr',), '--auto-scale-lr'),
    ],
)
def test_device_and_flags(flags, said, tiny_config, refused):
    """Without a GPU, and a config without a base batch size."""
    config = tiny_config('cls', 'auto_scale_lr = dict(_delete_=True, enable=False)\n')
    assert said in refused('train', config, *flags)


def test_device_without_numbers(tiny_config, checkpoint, refused, tmp_path):
    out = ('switch_to_deploy', tiny_config('cls'), checkpoint, tmp_path / 'o.pth')
    assert "device: got 'meta'" in refused(*out, '--device', 'meta')


def test_bug_keeps_its_traceback(tiny_config, tool, monkeypatch):
    """Only an error that the user can fix becomes one line."""
    monkeypatch.setattr('mobileone_mm.MobileOne.forward', lambda self, x: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        tool('train', tiny_config('cls'), '--no-validate')
