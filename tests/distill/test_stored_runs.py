"""Stored outputs in whole runs: which are refused, what may be missing, and how storing goes on."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from mobileone_mm.distill.teachers import Teachers
from mobileone_mm.errors import InputError
from mobileone_mm.reparam.compare import randomize_

NAME = 'view_000{}.safetensors'


@pytest.fixture
def run(tool, tmp_path, capsys):
    """Run a tool; return its exit code and output."""

    def call(*arguments):
        capsys.readouterr()
        code = tool(*arguments)
        said = capsys.readouterr()
        return code, said.out + said.err

    return call


@pytest.fixture
def train(run, tmp_path):
    """Train on stored outputs; return exit code, output and log."""

    def call(config, outputs, *options):
        folder = tmp_path / f'run{len(list(tmp_path.glob("run*")))}'
        code, said = run('train', config, '--work-dir', folder, '--no-validate', '--cfg-options',
                         f'model.outputs={outputs}', *options)  # fmt: skip
        assert folder.exists() == (code == 0)
        return code, said

    return call


@pytest.fixture
def data(tiny_imagenet, tmp_path, monkeypatch):
    """Training images that may be changed."""
    root = shutil.copytree(tiny_imagenet, tmp_path / 'data')
    monkeypatch.setenv('IMAGENET_ROOT', str(root))
    return sorted((root / 'train').rglob('*.JPEG'))


def randomized(teacher, seed):
    """Other weights of a teacher."""
    net = MODELS.build({**teacher['model'], '_scope_': 'mmpretrain'})
    return randomize_(net, seed=seed)


def cut(path):
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return whole


def zero_rows(*files):
    """Number of images without outputs in all of the files."""
    from safetensors.numpy import load

    rows = [~load(file.read_bytes())['scores'].any(1) for file in files]
    return int(np.logical_and.reduce(rows).sum())


def begin(config, outputs, **settings):
    """What a run does before its first iteration."""
    cfg = Config.fromfile(config)
    cfg.model.merge(dict(outputs=str(outputs), **settings))
    init_default_scope('mmpretrain')
    MODELS.build(cfg.model).init_weights()


def test_another_teacher_of_the_same_name(config, run, train, tmp_path, teacher):
    """Its file decides where it is there; without it the name does."""
    out = tmp_path / 'out'
    assert run('store_teacher_outputs', config(), out)[0] == 0
    other = tmp_path / 'other' / Path(teacher['checkpoint']).name
    other.parent.mkdir()
    moved = config(name='moved', checkpoint=str(other))
    torch.save(randomized(teacher, 2).state_dict(), other)
    code, said = train(moved, out)
    assert code == 2
    assert 'were made with other weights, normalisation or size of model.teachers.0' in said
    # The same weights, saved again under the same name.
    torch.save({'state_dict': torch.load(teacher['checkpoint']), 'meta': {}}, other)
    begin(moved, out)
    # The teacher's normalisation is the student's, and that is another one.
    with pytest.raises(InputError, match='other weights, normalisation or size'):
        begin(moved, out, data_preprocessor=dict(to_rgb=False))
    other.unlink()
    begin(moved, out)


def test_a_teacher_whose_library_is_missing(config, run, tmp_path, monkeypatch):
    """Stored outputs are there so that the teacher need not be."""
    out = tmp_path / 'out'
    assert run('store_teacher_outputs', config(), out)[0] == 0

    def missing(*_, **__):
        raise InputError('teacher: cannot be built') from ImportError('No module named timm')

    monkeypatch.setattr('mobileone_mm.distill.teachers.Teacher', missing)
    begin(config(), out)


def test_looking_at_the_teacher_changes_nothing(config, run, train, tmp_path, teacher):
    """Runs with and without its file end at the same weights."""
    out = tmp_path / 'out'
    path = config("randomness = dict(seed=3)\nmodel['backbone'].update(init_cfg=None)\n")
    assert run('store_teacher_outputs', path, out)[0] == 0
    states = []
    for _ in range(2):
        code, said = train(path, out)
        assert code == 0
        assert ('there is no local checkpoint' in said) == bool(states)
        file = max(tmp_path.glob('run*/epoch_1.pth'), key=lambda found: found.stat().st_mtime_ns)
        states.append(torch.load(file, weights_only=False)['state_dict'])
        Path(teacher['checkpoint']).unlink(missing_ok=True)
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


def test_an_image_that_cannot_be_read(config, run, train, tmp_path, data):
    path, out = config(), tmp_path / 'out'
    whole = cut(data[1])
    code, said = run('store_teacher_outputs', path, out)
    assert code == 0
    assert '7 images in each view' in said
    assert '1 images could not be read and have no outputs' in said
    code, said = train(path, out)
    assert code == 0
    assert '1 images could not be read when the outputs' in said
    assert data[1].name in said
    # Repaired since, it stays out of the views that were made without it.
    data[1].write_bytes(whole)
    code, said = train(path, out, 'train_cfg.max_epochs=2')
    assert code == 0
    assert f"{data[1].name}' has no stored outputs" in said
    # A view that is added has it; one that breaks later is left out of that view.
    cut(data[2])
    code, said = run('store_teacher_outputs', path, out, '--views', 2)
    assert code == 0
    assert 'exist already: 0' in said
    assert '7 images in each view' in said
    assert [zero_rows(out / NAME.format(view)) for view in (0, 1)] == [1, 1]
    assert zero_rows(out / NAME.format(0), out / NAME.format(1)) == 0
    # One that the store does not know is refused, before hours of work as well.
    shutil.copy(data[3], data[3].with_name('new.JPEG'))
    names = data[3].parents[2] / 'meta' / 'train.txt'
    if names.is_file():
        name = data[3].relative_to(data[3].parents[1]).with_name('new.JPEG').as_posix()
        names.write_text(names.read_text().rstrip('\n') + f'\n{name} 1\n')
    code, said = train(path, out)
    assert code == 2
    assert 'new.JPEG' in said
    code, said = run('store_teacher_outputs', path, out, '--views', 3)
    assert code == 2
    assert 'has other images' in said


def test_a_damaged_view_is_written_again(config, run, train, tmp_path):
    path, out = config(), tmp_path / 'out'
    assert run('store_teacher_outputs', path, out, '--views', 2)[0] == 0
    view = out / NAME.format(0)
    whole = view.read_bytes()
    view.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    code, said = train(path, out)
    assert code == 2
    assert "view_0000.safetensors': is damaged" in said
    assert 'repeat the call of tools/misc/store_teacher_outputs.py' in said
    code, said = run('store_teacher_outputs', path, out, '--first-view', 1)
    assert code == 0
    assert 'view 0 is damaged; write it again with --first-view 0 --views 1' in said
    code, said = run('store_teacher_outputs', path, out, '--views', 2)
    assert code == 0
    assert 'exist already: 1' in said
    assert 'damaged and are written again: 0' in said
    assert view.read_bytes() == whole
    begin(path, out)


def test_interrupted_and_continued(config, run, tmp_path, monkeypatch):
    path, out = config(), tmp_path / 'out'
    calls = []

    def interrupt(self, *args, scores=Teachers.scores):
        calls.append(1)
        if len(calls) == 4:  # in the middle of the second view
            raise KeyboardInterrupt
        return scores(self, *args)

    monkeypatch.setattr(Teachers, 'scores', interrupt)
    code, said = run('store_teacher_outputs', path, out, '--views', 2)
    assert code == 130
    assert 'Traceback' not in said
    assert [file.name for file in out.iterdir()] == [NAME.format(0)]
    code, said = run('store_teacher_outputs', path, out, '--views', 2)
    assert 'exist already: 0' in said
    whole = tmp_path / 'whole'
    assert run('store_teacher_outputs', path, whole, '--views', 2)[0] == 0
    views = [(whole / NAME.format(view)).read_bytes() for view in range(2)]
    assert [(out / NAME.format(view)).read_bytes() for view in range(2)] == views
    assert views[0] != views[1]


def test_two_teachers(config, run, train, tmp_path, teacher):
    """The second one counts as the first does: in the outputs, and when they are checked."""
    second = tmp_path / 'second.pth'
    torch.save(randomized(teacher, 2).state_dict(), second)
    both = f"model['teachers'].append(dict(model['teachers'][0], checkpoint='{second}'))\n"
    path, out = config(both), tmp_path / 'out'
    assert run('store_teacher_outputs', path, out)[0] == 0
    assert train(path, out)[0] == 0
    code, said = train(config(name='one'), out)
    assert code == 2
    assert 'model.teachers' in said
    code, said = run('store_teacher_outputs', config(name='one'), out, '--views', 2)
    assert code == 2
    assert 'has other teachers' in said
    code, said = train(path, out, 'model.distill_loss.temperature=3.0')
    assert code == 2
    assert 'model.distill_loss.temperature=2.0, the config has 3.0' in said
    torch.save(randomized(teacher, 3).state_dict(), second)
    code, said = train(path, out)
    assert code == 2
    assert 'model.teachers.1' in said
    code, said = run('store_teacher_outputs', path, out, '--views', 2)
    assert code == 2
    assert 'has other fingerprints' in said


def test_what_the_command_line_may_say(config, run, tmp_path):
    path = config()
    teacher, loss = 'model.teachers.0.data_preprocessor', 'model.distill_loss'
    for option, message in (
        ("model.teachers=[dict(timm='resnet50', pretrain=True)]", "0: has no 'pretrain'"),
        ('model.teachers=[resnet50]', "0: got 'resnet50'; expected a dict with one of"),
        (f'{teacher}.mean=1', f'{teacher}.mean: got 1'),
        (f'{loss}.alpha=x', f"{loss}.alpha: got 'x'; expected a number above 0"),
        (f'{loss}=x', f"{loss}: got 'x'; expected a dict"),
        ('model.outputs=5', 'model.outputs: got 5; expected a folder'),
    ):
        code, said = run('train', path, '--work-dir', tmp_path / 'run', '--cfg-options', option)
        assert code == 2, option
        assert message in said.strip().splitlines()[-1]
        assert 'Traceback' not in said
        assert not (tmp_path / 'run').exists()
