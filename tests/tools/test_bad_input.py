"""What a user can get wrong: one line on stderr that says what, exit code 2, nothing half-written."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from mobileone_mm import MobileOne

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'


def train(config, *options):
    return ('train', config, *(('--cfg-options', *options) if options else ()))


# -- checkpoints -----------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(tiny_config, tool, tmp_path):
    """A checkpoint of the tiny classifier."""
    assert tool('train', tiny_config('cls'), '--work-dir', tmp_path / 'run', '--no-validate') == 0
    return tmp_path / 'run' / 'epoch_1.pth'


def test_checkpoint_of_another_size(tiny_config, checkpoint, refused):
    wider = 'model.backbone.arch.width_factor="(0.25,0.125,0.0625,0.125)"'.replace('"', '')
    options = ('--cfg-options', wider, 'model.head.in_channels=64')
    line = refused('test', tiny_config('cls'), checkpoint, *options)
    assert 'is of another size' in line
    assert str(checkpoint) in line


def test_resume_in_another_form(tiny_config, checkpoint, refused):
    options = ('--resume', checkpoint, '--cfg-options', 'model.backbone.deploy=True')
    line = refused('train', tiny_config('cls'), *options)
    assert 'is in training form, the model in deploy form' in line


def test_checkpoint_of_another_task(tiny_config, checkpoint, refused):
    line = refused('test', tiny_config('det'), checkpoint)
    assert str(checkpoint) in line


def test_checkpoint_that_is_none(tiny_config, refused, tmp_path):
    config = tiny_config('cls')
    assert 'no such file' in refused('test', config, tmp_path / 'gone.pth')
    assert 'is a folder' in refused('test', config, tmp_path)
    (tmp_path / 'text.pth').write_text('no weights')
    assert 'is no checkpoint' in refused('test', config, tmp_path / 'text.pth')
    assert not (tmp_path / 'work_dirs').exists()


def test_resume_from_weights_alone(tiny_config, refused, tmp_path):
    torch.save({'backbone.stage0.x': torch.zeros(1)}, tmp_path / 'weights.pth')
    line = refused('train', tiny_config('cls'), '--resume', tmp_path / 'weights.pth')
    assert 'no state of a run' in line


def test_fused_file_of_another_size(tiny_config, refused, tmp_path):
    """It is told by its widths before its units are written into branches."""
    file = tmp_path / 'fused.pth'
    torch.save(MobileOne('mu0', deploy=True).state_dict(), file)
    line = refused(*train(tiny_config('cls'), f'load_from={file}'))
    assert 'is of another size: its stages are 40/40/80/128/384 channels wide' in line
    assert 'is of another size' in refused('test', tiny_config('cls'), file)


def test_prefix_that_no_key_has(tiny_config, checkpoint, refused):
    start = 'model.backbone.init_cfg.type=Pretrained'
    options = (
        f'model.backbone.init_cfg.checkpoint={checkpoint}',
        'model.backbone.init_cfg.prefix=x',
    )
    assert "has no key below 'x.'" in refused(*train(tiny_config('cls'), start, *options))


@pytest.mark.parametrize(
    ('option', 'said'),
    [
        ('custom_hooks="[\'EMAHook\']"', "custom_hooks.0: got 'EMAHook'; expected a dict"),
        (
            'default_hooks.logger.priority=XX',
            "default_hooks.logger.priority: got 'XX'; expected 0 to 100 or",
        ),
        (
            "custom_hooks=[dict(type='EMAHok')]",
            "0.type: unknown hook 'EMAHok'; did you mean 'EMAHook'",
        ),
        ("custom_hooks=[dict(type='NoHook')]", "0.type: unknown hook 'NoHook'; import"),
        (
            'default_hooks.checkpoint.save_best=foo',
            "save_best: got 'foo'; expected a metric of the validation",
        ),
    ],
)
def test_hooks_that_cannot_be(option, said, tiny_config, refused):
    trains = 'save_best' in option  # what the metrics are called is known after a validation
    assert said in refused(
        *train(tiny_config('cls'), option.replace('"', '')), got_somewhere=trains
    )


def test_device_without_numbers(tiny_config, checkpoint, refused, tmp_path):
    line = refused(
        'switch_to_deploy', tiny_config('cls'), checkpoint, tmp_path / 'o.pth', '--device', 'meta'
    )
    assert "device: got 'meta'" in line


def test_load_from_another_size(tiny_config, checkpoint, refused):
    """Fine-tuning takes the backbone, and only of the same size."""
    wider = 'model.backbone.arch.width_factor=(0.25,0.125,0.0625,0.125)'
    options = (wider, 'model.head.in_channels=64', f'load_from={checkpoint}')
    assert 'is of another size' in refused(*train(tiny_config('cls'), *options))


def test_refused_in_the_folder_of_another_run(tiny_config, checkpoint, refused, tmp_path):
    """The copy of the config that the run has left is the one that it had."""
    copy = tmp_path / 'run' / 'cls.py'
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
    ],
)
def test_config_that_is_none(name, content, said, refused, tmp_path):
    if content is not None:
        (tmp_path / name).write_text(content)
    line = refused('train', tmp_path / name)
    assert said in line
    assert name in line


def test_config_folder(refused, tmp_path):
    assert 'is a folder' in refused('train', tmp_path)


def test_host_that_is_not_installed(tiny_config, refused):
    config = tiny_config('cls', "default_scope = 'mmpose'\n")
    assert 'mmpose' in refused('train', config)


@pytest.mark.parametrize(
    ('extra', 'path', 'meant'),
    [
        ("model['backbone'].update(norm_evl=True)", 'model.backbone', 'norm_eval'),
        ("model['backbone'].update(type='mobileone_mm.MobileOn')", 'model.backbone.type', 'MobileOne'),
        ("custom_hooks = [dict(type='EMAHook', momentun=0.1)]", 'custom_hooks.0', 'momentum'),
        ("train_cgf = dict(max_epochs=3)", 'train_cgf', 'train_cfg'),
    ],
)  # fmt: skip
def test_mistyped_key(extra, path, meant, tiny_config, refused):
    line = refused('train', tiny_config('det', extra + '\n'))
    assert path in line
    assert meant in line


RECIPE = """
recipe = dict(action_epoch=2, batch_augmnts=None)
custom_hooks = [dict(type='SwitchRecipeHook', schedule=[recipe])]
"""


def test_mistyped_key_of_a_recipe(tiny_config, refused):
    line = refused('train', tiny_config('cls', RECIPE))
    assert 'custom_hooks.0.schedule.0' in line
    assert 'batch_augments' in line


@pytest.mark.parametrize(
    ('option', 'said'),
    [
        ('model.bakbone.arch=s1', "did you mean 'backbone'"),
        ('train_cfg.max_epoch=3', "did you mean 'max_epochs'"),
        ('optim_wraper.optimizer.lr=1', "did you mean 'optim_wrapper'"),
        ('no_such_section.key=1', "has no 'no_such_section'"),
        ('model.backbone.frozen_stges=1', 'frozen_stages'),
        ('custom_hooks.7.momentum=1', 'custom_hooks'),
        ('log_level.deep=1', 'log_level'),
        ('optim_wrapper.optimizer.type=SGDD', "did you mean 'SGD'"),
    ],
)
def test_mistyped_option(option, said, tiny_config, refused):
    assert said in refused(*train(tiny_config('det'), option))


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


def test_variable_that_names_no_base(refused, monkeypatch):
    monkeypatch.setenv('VOC_TRAIN', 'everything')
    line = refused('train', CONFIGS / 'deeplabv3_mobileone_s0_voc.py')
    assert 'voc2012_everything.py' in line
    assert "it uses these environment variables: VOC_TRAIN='everything'" in line


@pytest.mark.parametrize(
    ('option', 'said'),
    [
        ('train_dataloader.batch_size=many', 'train_dataloader.batch_size'),
        ('train_dataloader.batch_size=0', 'train_dataloader.batch_size'),
        ('train_dataloader.batch_size=2.5', 'train_dataloader.batch_size'),
        ('train_dataloader.num_workers=-1', 'train_dataloader.num_workers'),
        ('optim_wrapper.optimizer.lr=fast', 'optim_wrapper.optimizer.lr'),
        ('optim_wrapper.optimizer.lr=-1', 'optim_wrapper'),
        ('train_cfg.max_epochs=soon', 'train_cfg.max_epochs'),
        ('train_cfg.max_epochs=0', 'train_cfg.max_epochs'),
        ('train_cfg.val_interval=0', 'train_cfg.val_interval'),
        ('default_hooks.checkpoint.interval=often', 'default_hooks.checkpoint.interval'),
        ('default_hooks.logger.interval=0', 'default_hooks.logger.interval'),
        ('randomness.seed=luck', 'randomness.seed'),
        ('model.backbone.arch=s9', 'model.backbone'),
        ('model.backbone.frozen_stages=9', 'model.backbone'),
        ('model.head.num_classes=many', 'model.head.num_classes'),
        ('load_from=/no/such.pth', '/no/such.pth'),
        ('val_evaluator.topk=(1,1001)', 'val_evaluator.topk: got (1, 1001)'),
    ],
)
def test_value_that_cannot_be(option, said, tiny_config, refused):
    assert said in refused(*train(tiny_config('cls'), option))


# -- output ----------------------------------------------------------------------------------------


def test_unwritable_work_dir(tiny_config, refused, tmp_path):
    (tmp_path / 'file').write_text('in the way')
    line = refused('train', tiny_config('cls'), '--work-dir', tmp_path / 'file' / 'run')
    assert 'cannot be written' in line
    assert str(tmp_path / 'file' / 'run') in line


def test_read_only_work_dir(tiny_config, refused, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr('mobileone_mm.training.folders.tempfile.NamedTemporaryFile', refuse)
    assert 'Read-only file system' in refused('train', tiny_config('cls'))


def test_unwritable_output_of_test(tiny_config, checkpoint, refused, tmp_path):
    (tmp_path / 'file').write_text('in the way')
    config = tiny_config('cls')
    assert '--out' in refused('test', config, checkpoint, '--out', tmp_path / 'file' / 'a.csv')
    assert '--out' in refused('test', config, checkpoint, '--out', tmp_path / 'a.txt')
    assert '--show-dir' in refused(
        'test', config, checkpoint, '--show-dir', tmp_path / 'file' / 'x'
    )


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
    config = tiny_config('cls')
    run = ('train', config, '--work-dir', tmp_path / 'run', '--no-validate', '--resume')
    keep_one = ('--cfg-options', 'default_hooks.checkpoint.max_keep_ckpts=1')
    assert tool(*run, *keep_one) == 0
    with monkeypatch.context() as full:
        fill_disk(full, after=100_000)
        line = refused(*run, *keep_one, 'train_cfg.max_epochs=2', got_somewhere=True)
    assert 'the disk is full' in line
    assert 'epoch_2.pth' in line
    assert [file.name for file in (tmp_path / 'run').glob('*.pth')] == ['epoch_1.pth']
    assert tool(*run, *keep_one, 'train_cfg.max_epochs=2') == 0
    assert [file.name for file in (tmp_path / 'run').glob('*.pth')] == ['epoch_2.pth']


# -- machine ---------------------------------------------------------------------------------------


def test_processes_that_would_train_alone(refused, tiny_config, monkeypatch):
    monkeypatch.setenv('TORCHELASTIC_RUN_ID', 'none')
    monkeypatch.setenv('WORLD_SIZE', '2')
    monkeypatch.setenv('LOCAL_RANK', '0')
    line = refused('train', tiny_config('cls'))
    assert 'torchrun started 2 processes' in line
    assert '--launcher pytorch' in line


def test_launcher_without_environment(tiny_config, refused, monkeypatch):
    for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT'):
        monkeypatch.delenv(name, raising=False)
    line = refused('train', tiny_config('cls'), '--launcher', 'pytorch')
    assert 'RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT not set' in line
    assert 'torchrun' in line


def test_launcher_with_a_broken_environment(tiny_config, refused, monkeypatch):
    for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR'):
        monkeypatch.setenv(name, '0')
    monkeypatch.setenv('MASTER_PORT', 'http')
    assert "MASTER_PORT is 'http'" in refused('train', tiny_config('cls'), '--launcher', 'pytorch')


@pytest.mark.skipif(torch.cuda.is_available(), reason='this machine has a GPU')
@pytest.mark.parametrize(
    ('flags', 'said'),
    [
        (('--device', 'cuda'), '--device cuda'),
        (('--device', 'cuda:1'), '--device cuda:1'),
        (('--amp',), '--amp'),
        (('--launcher', 'slurm'), 'SLURM_PROCID'),
        (('--cfg-options', 'optim_wrapper.type=AmpOptimWrapper'), 'optim_wrapper'),
    ],
)
def test_no_gpu(flags, said, tiny_config, refused):
    assert said in refused('train', tiny_config('cls'), *flags)


def test_device_that_is_none(tiny_config, refused):
    assert "got 'gpu'" in refused('train', tiny_config('cls'), '--device', 'gpu')


def test_auto_scale_lr_without_a_batch_size(tiny_config, refused):
    config = tiny_config('cls', 'auto_scale_lr = dict(_delete_=True, enable=False)\n')
    assert '--auto-scale-lr' in refused('train', config, '--auto-scale-lr')


def test_bug_keeps_its_traceback(tiny_config, tool, monkeypatch):
    """Only an error that the user can fix becomes one line."""
    config = tiny_config('cls')
    monkeypatch.setattr('mobileone_mm.MobileOne.forward', lambda self, x: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        tool('train', config, '--no-validate')


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
