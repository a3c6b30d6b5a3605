"""Whole runs by the tools: training, storing, resuming, testing, converting."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS

from mobileone_mm.weights.reading import read_checkpoint

ROOT = Path(__file__).resolve().parents[2]


def logged(folder, name):
    text = next(Path(folder).rglob('*.log')).read_text()
    return [float(value) for value in re.findall(rf'{name}: ([\d.]+)', text)]


def test_run_resume_test_predict_convert(config, tool, tmp_path, teacher, roots):
    """On the fly, with EMA, validation in deploy form and the deploy pair of the best checkpoint."""
    path = config("""
custom_hooks = [
    dict(type='EMAHook', momentum=0.3, update_buffers=True, priority='ABOVE_NORMAL'),
    dict(type='mobileone_mm.DeployEvalHook'),
    dict(type='mobileone_mm.BestDeployHook'),
]
train_cfg = dict(max_epochs=2)
""")
    run = tmp_path / 'run'
    assert tool('train', path, '--work-dir', run) == 0
    assert 'Deploy form proved' in next(run.rglob('*.log')).read_text()
    assert logged(run, 'teacher_agreement')
    state = read_checkpoint(run / 'epoch_2.pth')
    for key in (*state['state_dict'], *state['ema_state_dict']):
        assert key == 'steps' or key.removeprefix('module.').startswith(('backbone.', 'head.'))

    # Interrupted after the first epoch, the run ends at the same weights.
    again = tmp_path / 'again'
    assert tool('train', path, '--work-dir', again, '--resume', run / 'epoch_1.pth') == 0
    other = read_checkpoint(again / 'epoch_2.pth')['state_dict']
    assert all(torch.equal(value, other[key]) for key, value in state['state_dict'].items())

    # From here on the teacher is not there.
    Path(teacher['checkpoint']).unlink()
    checkpoint = run / 'epoch_2.pth'
    assert tool('test', path, checkpoint, '--work-dir', tmp_path / 't') == 0
    images = next(roots['IMAGENET_ROOT'].rglob('*.JPEG')).parent
    assert tool('predict', path, checkpoint, images, '--out-dir', tmp_path / 'p') == 0
    assert tool('switch_to_deploy', path, checkpoint, tmp_path / 'out.pth', '--data') == 0
    best = next(run.glob('best_*_deploy.py'))
    for pair in (tmp_path / 'out.py', best):
        check_pair(pair, pair.with_suffix('.pth'))


def check_pair(config, weights):
    """An unmodified mmpretrain builds the plain student from a pair, without a teacher."""
    from mmpretrain import get_model
    from mmpretrain.models import ImageClassifier

    text = config.read_text()
    assert not re.search('istill|teacher|StoredView', text)
    model = get_model(str(config), pretrained=str(weights))
    assert type(model) is ImageClassifier
    assert model.backbone.deploy


def test_stored_outputs(config, tool, tmp_path, teacher, capsys):
    """Stored once, read instead of running the teacher, which is no longer there."""
    path = config('train_cfg = dict(max_epochs=2)\n')
    outputs = tmp_path / 'outputs'
    assert tool('store_teacher_outputs', path, outputs, '--views', 2, '--topk', 0) == 0
    assert '8 images in each view' in capsys.readouterr().out
    Path(teacher['checkpoint']).unlink()
    run = tmp_path / 'run'
    options = ('--cfg-options', f'model.outputs={outputs}', 'train_dataloader.num_workers=1')
    assert tool('train', path, '--work-dir', run, *options) == 0
    assert len(logged(run, 'loss_soft')) == 4
    # The config of such a run has stored views in it; its deploy pair has not.
    written = run / 'distill.py'
    assert 'StoredView' in written.read_text()
    converted = tmp_path / 'out.pth'
    assert tool('switch_to_deploy', written, run / 'epoch_2.pth', converted) == 0
    check_pair(tmp_path / 'out.py', converted)


def test_stored_outputs_give_the_losses_of_the_teacher(config, tmp_path, tool):
    """The same views, all classes: the batch's loss is that of running the teacher on it."""
    from mmengine.dataset import pseudo_collate
    from mmengine.registry import DATASETS, init_default_scope

    from mobileone_mm.distill.views import use_stored_outputs

    path = config()
    outputs = tmp_path / 'outputs'
    assert tool('store_teacher_outputs', path, outputs, '--topk', 0) == 0
    cfg = Config.fromfile(path)
    cfg.model.outputs = str(outputs)
    use_stored_outputs(cfg)
    init_default_scope('mmpretrain')
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    batch = pseudo_collate([dataset[index] for index in range(4)])
    reading = MODELS.build(cfg.model).eval()
    cfg.model.outputs = None
    running = MODELS.build(cfg.model).eval()
    running.load_state_dict(reading.state_dict())
    losses = []
    for model in (reading, running):
        data = model.data_preprocessor(batch, training=True)
        losses.append(float(model(**data, mode='loss')['loss_soft'].detach()))
    assert losses[0] > 1e-4
    assert losses[0] == pytest.approx(losses[1], rel=2e-3)


def test_storing_refuses_other_settings(config, tool, tmp_path, capsys, teacher, tiny):
    path, out = config(), tmp_path / 'out'
    other = tiny.randomized(MODELS.build(teacher['model']), 2).state_dict()

    def refused(*arguments):
        capsys.readouterr()
        assert tool('store_teacher_outputs', *arguments) == 2
        return capsys.readouterr().err.strip().splitlines()[-1]

    assert tool('store_teacher_outputs', path, out) == 0
    assert 'has other topk' in refused(path, out, '--topk', 3)
    assert 'has other seed' in refused(path, out, '--seed', 3)
    torch.save(other, teacher['checkpoint'])
    assert 'has other fingerprints' in refused(path, out)
    assert '--views: got 0' in refused(path, out, '--views', 0)
    assert '--topk: got 1001' in refused(path, out, '--topk', 1001)


def test_storing_needs_teachers(tiny_config, tool, tmp_path, capsys):
    assert tool('store_teacher_outputs', tiny_config('cls'), tmp_path / 'out') == 2
    assert 'which has no teachers' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_refused_before_the_first_iteration(
    config, tool, tmp_path, capsys, tiny_imagenet, monkeypatch
):
    path, out = config(), tmp_path / 'out'
    assert tool('store_teacher_outputs', path, out) == 0
    stored = f'model.outputs={out}'

    def refused(*options, config=path):
        capsys.readouterr()
        assert tool('train', config, '--work-dir', tmp_path / 'run', '--cfg-options', *options) == 2
        assert not (tmp_path / 'run').exists()
        (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
        return line

    assert 'no such file' in refused('model.teachers.0.checkpoint=/no.pth')
    assert "has no 'ckpt'" in refused(
        'train_cfg.max_epochs=1', config=config(name='typo', ckpt='a')
    )
    assert 'has no view_NNNN' in refused('model.outputs=/nowhere')
    crop = 'train_dataloader.dataset.pipeline.1.scale=32'
    assert 'the views were made by the transforms' in refused(stored, crop)
    assert 'alpha must be 1' in refused(
        stored, 'model.distill_loss.alpha=0.5', 'model.train_cfg.augments.type=Mixup',
        'model.train_cfg.augments.alpha=0.5',
    )  # fmt: skip
    # One image more than the outputs know.
    import shutil

    larger = shutil.copytree(tiny_imagenet, tmp_path / 'larger')
    image = next((larger / 'train').rglob('*.JPEG'))
    shutil.copy(image, image.with_name('new.JPEG'))
    names = larger / 'meta' / 'train.txt'
    if names.is_file():
        label = image.relative_to(larger / 'train').with_name('new.JPEG').as_posix()
        names.write_text(names.read_text().rstrip('\n') + f'\n{label} 1\n')
    monkeypatch.setenv('IMAGENET_ROOT', str(larger))
    assert 'new.JPEG' in refused(stored)


@pytest.mark.slow
def test_two_processes(config, tool, tmp_path):
    """Below DDP, with the teacher and with its stored outputs."""
    path, out = config(), tmp_path / 'out'
    assert tool('store_teacher_outputs', path, out) == 0
    for name, options in (('a', ()), ('b', ('--cfg-options', f'model.outputs={out}'))):
        with socket.socket() as probe:
            probe.bind(('127.0.0.1', 0))
            port = probe.getsockname()[1]
        command = [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node=2',
                   '--master_addr=127.0.0.1', f'--master_port={port}', ROOT / 'tools' / 'train.py',
                   path, '--work-dir', tmp_path / name, '--launcher', 'pytorch', *options]  # fmt: skip
        environment = {k: v for k, v in os.environ.items() if k != 'LOCAL_RANK'}
        result = subprocess.run(
            list(map(str, command)),
            env={**environment, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)},
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
        assert result.returncode == 0, result.stderr[-3000:]
        assert logged(tmp_path / name, 'loss_soft')
        state = read_checkpoint(tmp_path / name / 'epoch_1.pth')['state_dict']
        assert {key.split('.')[0] for key in state} == {'backbone', 'head'}


@pytest.mark.slow
def test_hosts_mixing_of_stored_outputs(config, tool, tmp_path):
    """Mixup mixes the stored soft labels as it mixes the images; hard labels stay apart."""
    path, out = config(), tmp_path / 'out'
    assert tool('store_teacher_outputs', path, out) == 0
    mixed = ('model.train_cfg.augments.type=Mixup', 'model.train_cfg.augments.alpha=0.5')
    for name, options in (('a', mixed), ('b', ('model.distill_loss.alpha=0.5',))):
        run = tmp_path / name
        assert tool('train', path, '--work-dir', run, '--no-validate', '--cfg-options',
                    f'model.outputs={out}', *options) == 0  # fmt: skip
        assert bool(logged(run, 'loss_hard')) == (name == 'b')


def test_pipelines_that_do_not_read_the_outputs(config, tool, tmp_path):
    """A host's own script does not wrap the pipeline: an error, not hard labels in disguise."""
    from mmengine.dataset import pseudo_collate
    from mmengine.registry import DATASETS, init_default_scope

    from mobileone_mm.errors import InputError

    path, out = config(), tmp_path / 'out'
    assert tool('store_teacher_outputs', path, out) == 0
    cfg = Config.fromfile(path)
    cfg.model.update(outputs=str(out), train_cfg=dict(augments=dict(type='Mixup', alpha=0.5)))
    init_default_scope('mmpretrain')
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    model = MODELS.build(cfg.model)
    data = model.data_preprocessor(pseudo_collate([dataset[0], dataset[1]]), training=True)
    with pytest.raises(InputError, match='the training pipeline does not read them'):
        model(**data, mode='loss')
