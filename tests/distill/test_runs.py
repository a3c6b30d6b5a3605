"""Whole runs by the tools: training, storing, resuming, testing, converting, and what is refused."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS, init_default_scope

from helpers import cfg_options, save_teacher, scalars
from mobileone_mm.apis.store_teacher_outputs import store_teacher_outputs
from mobileone_mm.config.read import load_config
from mobileone_mm.distill.teachers import Teachers
from mobileone_mm.distill.views import use_stored_outputs
from mobileone_mm.errors import InputError
from mobileone_mm.weights.reading import read_checkpoint

VIEWS = ['view_0000.npy', 'view_0001.npy']


@pytest.fixture(scope='module')
def stored_once(tmp_path_factory):
    return tmp_path_factory.mktemp('stored') / 'outputs'


@pytest.fixture
def outputs(config, stored_once, tmp_path):
    """Two views as the tool stores them, which a test may change."""
    if not stored_once.is_dir():
        store_teacher_outputs(config(), stored_once, views=2)
    return shutil.copytree(stored_once, tmp_path / 'outputs')


@pytest.fixture
def run(tool, capsys):
    """Run a tool; return its exit code and output."""

    def call(*arguments):
        capsys.readouterr()
        code = tool(*arguments)
        said = capsys.readouterr()
        return code, said.out + said.err

    return call


@pytest.fixture
def train(run, tmp_path):
    """Train with these options; return the folder, or the line of a refusal."""

    def call(config, *options):
        folder = tmp_path / f'run{len(list(tmp_path.glob("run*")))}'
        code, said = run('train', config, '--work-dir', folder, '--no-validate', '--cfg-options',
                         *options)  # fmt: skip
        assert folder.exists() == (code == 0)
        if code == 0:
            return folder
        assert code == 2
        assert 'Traceback' not in said
        return said.strip().splitlines()[-1]

    return call


def begin(config, *options):
    """Make a model ready to train; return the line of a refusal."""
    init_default_scope('mmpretrain')
    try:
        MODELS.build(load_config(config, cfg_options(*options)).model).init_weights()
    except InputError as error:
        return str(error)
    return None


def logged(folder, name):
    return [row[name] for row in scalars(folder) if name in row]


def check_pair(config, weights):
    """An unmodified mmpretrain builds the plain student from a pair, without a teacher."""
    from mmpretrain import get_model
    from mmpretrain.models import ImageClassifier

    assert not re.search('istill|teacher|StoredView', config.read_text())
    model = get_model(str(config), pretrained=str(weights))
    assert type(model) is ImageClassifier
    assert model.backbone.deploy


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


def test_stored_outputs_replace_the_teacher(config, train, tool, tmp_path, teacher, outputs):
    path = config("randomness = dict(seed=3)\nmodel['backbone'].update(init_cfg=None)\n")
    states = []
    for workers in (1, 0):
        run = train(path, f'model.outputs={outputs}', f'train_dataloader.num_workers={workers}')
        assert len(logged(run, 'loss_soft')) == 2
        text = next(run.rglob('*.log')).read_text()
        assert ('model.teachers.0: there is no local checkpoint' in text) == bool(states)
        states.append(read_checkpoint(run / 'epoch_1.pth')['state_dict'])
        Path(teacher['checkpoint']).unlink(missing_ok=True)
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    # The config of such a run has stored views in it; its deploy pair has not.
    written = run / 'distill.py'
    assert 'StoredView' in written.read_text()
    converted = tmp_path / 'out.pth'
    assert tool('switch_to_deploy', written, run / 'epoch_1.pth', converted) == 0
    check_pair(tmp_path / 'out.py', converted)


def test_stored_outputs_give_the_losses_of_the_teacher(config, tmp_path):
    """The same views, all classes: the batch's loss is that of running the teacher on it."""
    path, outputs = config(), tmp_path / 'outputs'
    store_teacher_outputs(path, outputs, topk=0)
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


def test_storing_refuses(config, tiny_config, run, tmp_path, teacher, outputs):
    def refused(*arguments, path=None, out=outputs):
        code, said = run('store_teacher_outputs', path or config(), out, *arguments)
        assert code == 2
        return said.strip().splitlines()[-1]

    assert 'have other topk (10; now: 3)' in refused('--topk', 3)
    assert 'have other seed (0; now: 3)' in refused('--seed', 3)
    assert '--views: got 0' in refused('--views', 0)
    assert '--topk: got 1001' in refused('--topk', 1001)
    # Another teacher under the same name; a second teacher.
    save_teacher(teacher['checkpoint'], seed=2)
    assert 'have other fingerprints' in refused()
    both = config("model['teachers'].append(model['teachers'][0])\n", 'both')
    assert 'have other teachers' in refused(path=both)
    new = tmp_path / 'new'
    assert 'has no teachers' in refused(path=tiny_config('cls'), out=new)
    assert not new.exists()


def test_refused_before_the_first_iteration(config, train, outputs):
    path, stored = config(), f'model.outputs={outputs}'
    assert 'has no view_NNNN' in train(path, 'model.outputs=/nowhere')
    alpha, mixup = 'model.distill_loss.alpha=0.5', 'model.train_cfg.augments.type=Mixup'
    mixup = (mixup, 'model.train_cfg.augments.alpha=0.5')
    assert begin(path, stored, alpha) is None
    assert begin(path, stored, *mixup) is None
    assert 'alpha must be 1' in begin(path, stored, alpha, *mixup)
    temperature = 'model.distill_loss.temperature=3.0'
    assert 'have other temperature (2.0; now: 3.0)' in begin(path, stored, temperature)
    assert "has no 'ckpt'" in train(config(name='typo', ckpt='a'), 'train_cfg.max_epochs=1')
    assert "model.distill_loss: got 'x'; expected a dict" in begin(path, 'model.distill_loss=x')
    assert 'model.outputs: got 5; expected a folder' in begin(path, 'model.outputs=5')


def test_another_teacher_of_the_same_name(config, tmp_path, teacher, outputs, monkeypatch):
    """Its file decides where it is there; without it the name does."""
    stored = f'model.outputs={outputs}'
    other = tmp_path / 'other' / Path(teacher['checkpoint']).name
    other.parent.mkdir()
    moved = config(name='moved', checkpoint=str(other))
    save_teacher(other, seed=2)
    refusal = 'were made with other weights, normalisation or size of model.teachers.0'
    assert refusal in begin(moved, stored)
    # The same weights, saved again under the same name.
    torch.save({'state_dict': torch.load(teacher['checkpoint']), 'meta': {}}, other)
    assert begin(moved, stored) is None
    # The teacher's normalisation is the student's, and that is another one.
    assert refusal in begin(moved, stored, 'model.data_preprocessor.to_rgb=False')
    other.unlink()
    assert begin(moved, stored) is None
    assert 'have other teachers' in begin(config(name='b', input_size=64), stored)

    # Stored outputs are there so that the library of the teacher need not be.
    def missing(*_, **__):
        raise InputError('teacher: cannot be built') from ImportError('No module named timm')

    monkeypatch.setattr('mobileone_mm.distill.teachers._build', missing)
    assert begin(config(), stored) is None


def test_two_teachers(config, tmp_path):
    """The second one counts as the first does: in the outputs, and when they are checked."""
    second, out = tmp_path / 'second.pth', tmp_path / 'out'
    save_teacher(second, seed=2)
    first = "model['teachers'][0]"
    both = config(f"model['teachers'].append(dict({first}, checkpoint='{second}'))\n", 'both')
    store_teacher_outputs(both, out)
    assert begin(both, f'model.outputs={out}') is None
    assert 'have other teachers' in begin(config(), f'model.outputs={out}')
    save_teacher(second, seed=3)
    assert 'size of model.teachers.1, which' in begin(both, f'model.outputs={out}')


def test_an_image_that_cannot_be_read(config, run, train, tiny_imagenet, tmp_path, monkeypatch):
    path, out = config(), tmp_path / 'out'
    root = shutil.copytree(tiny_imagenet, tmp_path / 'data')
    monkeypatch.setenv('IMAGENET_ROOT', str(root))
    images = sorted((root / 'train').rglob('*.JPEG'))
    whole = images[1].read_bytes()
    images[1].write_bytes(whole[: len(whole) // 2])
    code, said = run('store_teacher_outputs', path, out)
    assert code == 0
    assert '7 images; ' in said
    assert '1 images could not be read and have no outputs' in said
    text = next(train(path, f'model.outputs={out}').rglob('*.log')).read_text()
    assert f"are left out, such as '{images[1]}'" in text
    # A view that is added after a repair has it; one that breaks later is left out of that view.
    images[1].write_bytes(whole)
    images[2].write_bytes(whole[: len(whole) // 2])
    code, said = run('store_teacher_outputs', path, out, '--views', 2)
    assert code == 0
    assert f'{VIEWS[0]}: exists already' in said
    empty = [~np.load(out / view)['scores'].any(1) for view in VIEWS]
    assert [rows.sum() for rows in empty] == [1, 1]
    assert not (empty[0] & empty[1]).any()
    # One that the store does not know is refused, before hours of work as well.
    shutil.copy(images[3], images[3].with_name('new.JPEG'))
    names = root / 'meta' / 'train.txt'
    name = images[3].relative_to(root / 'train').with_name('new.JPEG').as_posix()
    names.write_text(names.read_text().rstrip('\n') + f'\n{name} 1\n')
    assert 'new.JPEG' in train(path, f'model.outputs={out}')
    code, said = run('store_teacher_outputs', path, out, '--views', 3)
    assert code == 2
    assert 'have other images' in said


def test_a_damaged_view_is_written_again(config, run, outputs):
    path, view = config(), outputs / VIEWS[0]
    before = view.read_bytes()
    view.write_bytes(before[:-9] + bytes([before[-9] ^ 1]) + before[-8:])
    refusal = begin(path, f'model.outputs={outputs}')
    assert re.search(r"view_0000.npy': is damaged .*; repeat the call of tools/misc/", refusal)
    code, said = run('store_teacher_outputs', path, outputs, '--first-view', 1)
    assert code == 0
    assert f'{VIEWS[0]}: is damaged; write it with --first-view 0 again' in said
    assert f'{VIEWS[1]}: exists already' in said
    code, said = run('store_teacher_outputs', path, outputs)
    assert code == 0
    assert f'{VIEWS[0]}: is damaged; is written again' in said
    assert view.read_bytes() == before


def test_interrupted_and_continued(config, run, tmp_path, monkeypatch, outputs):
    path, out, calls = config(), tmp_path / 'out', []

    def interrupt(self, *args, scores=Teachers.scores):
        calls.append(1)
        if len(calls) == 4:  # in the middle of the second view
            raise KeyboardInterrupt
        return scores(self, *args)

    monkeypatch.setattr(Teachers, 'scores', interrupt)
    code, said = run('store_teacher_outputs', path, out, '--views', 2)
    assert code == 130
    assert 'Traceback' not in said
    part = 'view_0001.part'
    assert sorted(file.name for file in out.iterdir()) == ['view_0000.json', VIEWS[0], part]
    code, said = run('store_teacher_outputs', path, out, '--views', 2, '--topk', 5)
    assert 'have other topk' in said
    code, said = run('store_teacher_outputs', path, out, '--views', 2)
    assert f'{VIEWS[0]}: exists already' in said
    assert f'{VIEWS[1]}: continues with 4 of 8 images' in said
    assert len(calls) == 4 + 1
    assert not (out / part).exists()
    for file in outputs.iterdir():
        assert (out / file.name).read_bytes() == file.read_bytes()
    assert (out / VIEWS[0]).read_bytes() != (out / VIEWS[1]).read_bytes()


@pytest.mark.slow
def test_two_processes(config, tmp_path, outputs, torchrun):
    for name, options in (('a', ()), ('b', ('--cfg-options', f'model.outputs={outputs}'))):
        torchrun('train', config(), '--work-dir', tmp_path / name, *options)
        assert logged(tmp_path / name, 'loss_soft')
        state = read_checkpoint(tmp_path / name / 'epoch_1.pth')['state_dict']
        assert {key.split('.')[0] for key in state} == {'backbone', 'head'}


@pytest.mark.slow
def test_hosts_mixing_of_stored_outputs(config, train, outputs):
    """Mixup mixes the stored soft labels as it mixes the images; hard labels stay apart."""
    mixed = ('model.train_cfg.augments.type=Mixup', 'model.train_cfg.augments.alpha=0.5')
    for hard, options in ((False, mixed), (True, ('model.distill_loss.alpha=0.5',))):
        run = train(config(), f'model.outputs={outputs}', *options)
        assert bool(logged(run, 'loss_hard')) == hard
