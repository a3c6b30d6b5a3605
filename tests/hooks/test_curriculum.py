"""Runs with a curriculum: it switches, resumes in the middle of a phase, and says what is wrong."""

import re
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS, OPTIM_WRAPPERS

from mobileone_mm.errors import InputError
from mobileone_mm.hooks.curriculum import CurriculumHook, _replaces_pipelines
from mobileone_mm.weights.reading import read_checkpoint

PIPELINE = """
train_dataloader.update(batch_size=2, dataset=dict(pipeline=[
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=48),
    dict(type='RandomFlip', prob=0.5),
    dict(type='mobileone_mm.AutoAugment', policies='imagenet', hparams=dict(pad_val=114)),
    dict(type='PackInputs'),
]))
train_cfg = dict(max_epochs=4)
default_hooks = dict(checkpoint=dict(save_best=None))
"""
PHASES = """[
    dict(begin=0, resolution=32, strength=0.3),
    dict(begin=1, resolution=48, strength=0.7),
    dict(begin=3, resolution=64, strength=1.0),
]"""
SIDES = [32, 48, 48, 64]
STRENGTH = '[dict(begin=0, strength=0.5), dict(begin=1, strength=1.0)]'
SIZES = '[dict(begin=0, resolution=32), dict(begin=1, resolution=48)]'
WHOLE = 'train_dataloader.update(batch_size=4)\n'  # two iterations in an epoch
WORKERS = 'train_dataloader.update(num_workers=2, persistent_workers=True, prefetch_factor=4)\n'


def curriculum(phases=PHASES, more='', **settings):
    given = ''.join(f', {key}={value!r}' for key, value in settings.items())
    hook = f"dict(type='mobileone_mm.CurriculumHook', phases={phases}{given})"
    return f'{PIPELINE}custom_hooks = [{hook}, {more}]\n'


@HOOKS.register_module(force=True)
class BatchProbe(Hook):
    """Keeps what each epoch has seen."""

    seen: list = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.seen.append((runner.epoch, data_batch['inputs'].clone()))


@pytest.fixture
def probe():
    BatchProbe.seen.clear()
    return "dict(type='mmengine.BatchProbe')"


def lines_of(text):
    return [line.partition(' - INFO - ')[2] for line in text.splitlines() if 'Curriculum: ' in line]


def states(*files):
    return [read_checkpoint(file)['state_dict'] for file in files]


def assert_same(first, second):
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert torch.equal(value, second[key]), key


@pytest.mark.parametrize(
    'loader',
    [
        WORKERS,
        *(
            pytest.param(lines, marks=pytest.mark.slow)
            for lines in (
                '',
                'train_dataloader.update(num_workers=2, persistent_workers=False)\n',
                f"{WORKERS}train_dataloader.update(multiprocessing_context='spawn')\n",
            )
        ),
    ],
    ids=['persistent', 'none', 'new', 'spawned'],
)
def test_it_switches(loader, tiny_config, tool, probe, tmp_path, capfd):
    config = tiny_config('cls', curriculum(more=probe) + loader)
    assert tool('train', config, '--work-dir', tmp_path / 'run', '--no-validate') == 0
    assert [epoch for epoch, _ in BatchProbe.seen] == [e for e in range(4) for _ in range(4)]
    for epoch, batch in BatchProbe.seen:
        assert batch.shape[-2:] == (SIDES[epoch], SIDES[epoch])
    out = capfd.readouterr()
    assert lines_of(out.out + out.err) == [
        'Curriculum: phase 1 of 3 from epoch 1: 32 px, strength 0.3',
        'Curriculum: phase 2 of 3 from epoch 2: 48 px, strength 0.7',
        'Curriculum: phase 3 of 3 from epoch 4: 64 px, strength 1.0',
    ]


def test_in_proportion_and_with_accumulation(tiny_config, tool, probe, tmp_path):
    """The run trains 4 of 40 epochs; the optimizer steps once in two epochs."""
    phases = [dict(begin=b, resolution=r) for b, r in ((0, 32), (10, 48), (30, 64))]
    config = tiny_config(
        'cls',
        curriculum(phases, probe, total=40)
        + 'optim_wrapper.update(accumulative_counts=4)\n'
        + WHOLE,
    )
    assert tool('train', config, '--work-dir', tmp_path / 'run', '--no-validate') == 0
    assert [batch.shape[-1] for _, batch in BatchProbe.seen[::2]] == SIDES


@pytest.mark.slow
def test_one_phase_is_the_plain_pipeline(tiny_config, tool, tmp_path):
    """Bit by bit: the hook draws no random number and changes nothing else."""
    phase = '[dict(begin=0, resolution=48, strength=1.0)]'
    for name, extra in (('plain', PIPELINE), ('phase', curriculum(phase))):
        config = tiny_config('cls', f'{extra}{WORKERS}train_cfg.update(max_epochs=2)\n', name)
        arguments = ('--work-dir', tmp_path / name, '--no-validate')
        assert tool('train', config, *arguments, '--cfg-options', 'custom_hooks=[]'
                    if name == 'plain' else 'log_level=INFO') == 0  # fmt: skip
    assert_same(*states(*(tmp_path / name / 'epoch_2.pth' for name in ('plain', 'phase'))))


@HOOKS.register_module(force=True)
class StopInPhase(Hook):
    """Ends a run in the middle of an epoch, as Ctrl-C does; tests/tools/test_resume.py kills one."""

    after: int | None = None

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == self.after:
            raise KeyboardInterrupt


def test_resume_in_the_middle_of_a_phase(tiny_config, tool, tmp_path, monkeypatch, capfd):
    """A run that is stopped in the second phase and resumed ends like the uninterrupted run."""
    more = "dict(type='mmengine.EMAHook', momentum=0.1), dict(type='mmengine.StopInPhase')"
    config = tiny_config('cls', curriculum(more=more) + WORKERS + WHOLE)
    whole, broken = tmp_path / 'whole', tmp_path / 'broken'
    assert tool('train', config, '--work-dir', whole, '--no-validate') == 0
    monkeypatch.setattr(StopInPhase, 'after', 4)
    assert tool('train', config, '--work-dir', broken, '--no-validate') == 130
    monkeypatch.setattr(StopInPhase, 'after', None)
    assert (broken / 'epoch_2.pth').exists()
    assert not (broken / 'epoch_3.pth').exists()
    capfd.readouterr()
    assert tool('train', config, '--work-dir', broken, '--no-validate', '--resume') == 0
    out = capfd.readouterr()
    assert lines_of(out.out + out.err)[0] == (
        'Curriculum: phase 2 of 3 from epoch 2: 48 px, strength 0.7'
    )
    assert_same(*states(whole / 'epoch_4.pth', broken / 'epoch_4.pth'))


@OPTIM_WRAPPERS.register_module(force=True)
class CpuAmp(OptimWrapper):
    """bfloat16 on the CPU, for which mmengine's wrapper asks for a GPU."""

    def optim_context(self, model):
        return torch.autocast('cpu', torch.bfloat16)


def test_bfloat16(tiny_config, tool, tmp_path, monkeypatch):
    from mobileone_mm.models import mobileone

    kinds = set()
    forward = mobileone.MobileOne.forward

    def spy(self, x):
        outputs = forward(self, x)
        kinds.add((self.training, outputs[0].dtype))
        return outputs

    monkeypatch.setattr(mobileone.MobileOne, 'forward', spy)
    lines = "optim_wrapper.update(type='mmengine.CpuAmp')\ntrain_cfg.update(max_epochs=2)\n"
    config = tiny_config('cls', curriculum(SIZES) + lines)
    assert tool('train', config, '--work-dir', tmp_path / 'run', '--no-validate') == 0
    assert kinds == {(True, torch.bfloat16)}
    content = read_checkpoint(tmp_path / 'run' / 'epoch_2.pth')
    assert all(torch.isfinite(v).all() and v.dtype != torch.bfloat16
               for v in content['state_dict'].values())  # fmt: skip
    losses = content['message_hub']['log_scalars']['train/loss'].data[0]
    assert losses[-2:].mean() < losses[:2].mean()


@pytest.mark.slow
@pytest.mark.parametrize(('dynamic', 'graphs'), [('None', 2), ('False', 3)])
def test_compiled(dynamic, graphs, tiny_config, tool, tmp_path):
    """One compilation more at the first switch, or one for each resolution; the same weights."""
    import torch._dynamo as dynamo
    from torch._dynamo.utils import counters

    compiled = f"compile = dict(backend='eager', dynamic={dynamic})\n"
    # OneDL's Runner asks the loader for no last batch of another size; here all are of one size.
    for name, extra in (('plain', ''), ('compiled', compiled)):
        dynamo.reset()
        counters.clear()
        config = tiny_config('cls', curriculum() + extra, name)
        assert tool('train', config, '--work-dir', tmp_path / name, '--no-validate') == 0
        assert counters['stats']['unique_graphs'] == (graphs if extra else 0)
        assert not counters['graph_break']
    assert_same(*states(*(tmp_path / name / 'epoch_4.pth' for name in ('plain', 'compiled'))))


def refusal(tool, capsys, config, *options):
    """The one line of a refused run, which leaves nothing behind."""
    work_dir = config.parent / 'refused'
    more = ['--cfg-options', *options] if options else []
    assert tool('train', config, '--work-dir', work_dir, '--no-validate', *more) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert not work_dir.exists()
    return lines[0]


@pytest.mark.parametrize(
    ('hook', 'extra', 'line'),
    [
        (
            curriculum(),
            'train_cfg.update(max_epochs=3)',
            r'phases.2: would begin at epoch 4 of a run',
        ),
        (
            curriculum(STRENGTH),
            "train_dataloader['dataset']['pipeline'].pop(3)",
            r"strength: the training pipeline has no transform that .* \(mmpretrain's AutoAugment",
        ),
        (
            curriculum(SIZES),
            "train_dataloader['dataset']['pipeline'][1].update(scale=(48, 32))",
            r'resolution: the training pipeline has no transform that .* \(RandomResizedCrop',
        ),
        (
            curriculum(SIZES),
            "train_dataloader['dataset']['pipeline'].insert(3, dict(type='CenterCrop', crop_size=32))",
            r'resolution: images of phases.1 are 32 x 32, not 48 px; a later transform',
        ),
        (
            curriculum(STRENGTH),
            "policies = [[dict(type='Cutout', shape=3)]]\n"
            "train_dataloader['dataset']['pipeline'][3].update(policies=policies)",
            r'strength: AutoAugment: Cutout has no known magnitude',
        ),
        (
            curriculum(),
            "train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=8)",
            r'its phases are counted in epochs, and train_cfg.type is IterBasedTrainLoop',
        ),
        (
            curriculum(
                more="dict(type='SwitchRecipeHook', schedule=[dict(action_epoch=2, train_pipeline=[])])"
            ),
            '',
            r'CurriculumHook and SwitchRecipeHook both change the training pipeline',
        ),
        (curriculum(phase=1), '', r"nothing reads 'custom_hooks.0.phase'; did you mean 'phases'"),
        (
            curriculum('[dict(begin=0, resolution=32), dict(begin=0, resolution=48)]'),
            '',
            r'custom_hooks.0: CurriculumHook: phases.1.begin: got 0; expected more than',
        ),
        (
            curriculum('[dict(begin=0, pipeline=[])]'),
            '',
            r'custom_hooks.0: CurriculumHook: phases.0: got .*; expected a dict with begin, and',
        ),
    ],
)
def test_what_cannot_take_effect(hook, extra, line, tiny_config, tool, capsys):
    found = refusal(tool, capsys, tiny_config('cls', f'{hook}{extra}\n'))
    assert re.search(line, found), found


def test_padding_of_a_segmentor(tiny_config, tool, capsys):
    text = """
train_dataloader['dataset']['pipeline'][2:4] = [dict(type='Resize', scale=(64, 64))]
custom_hooks = [dict(type='mobileone_mm.CurriculumHook', phases=[dict(begin=0, resolution=32)])]
"""
    line = refusal(tool, capsys, tiny_config('seg', text))
    assert 'resolution: model.data_preprocessor.size pads to (64, 64)' in line


def check_sizes(sample, model=None):
    """The check of a hook with two resolutions on a dataset of one sample."""
    hook = CurriculumHook([dict(begin=0, resolution=32), dict(begin=1, resolution=48)])
    hook._check_sizes(model, [sample])


@pytest.mark.parametrize(
    'sample', [dict(img=1), dict(inputs=[torch.rand(3, 8, 8)]), (torch.rand(3, 8, 8), 0), None]
)
def test_samples_without_an_image_tensor_are_not_checked(sample):
    check_sizes(sample)
    with pytest.raises(InputError, match=r'images of phases.1 are 32 x 32, not 48 px'):
        check_sizes(dict(inputs=torch.rand(3, 32, 32)))
    with pytest.raises(InputError, match=r'images of phases.0 are 40 x 32, not 32 px'):
        check_sizes(dict(inputs=torch.rand(3, 32, 40)))
    padding = SimpleNamespace(data_preprocessor=SimpleNamespace(size=(64, 64)))
    with pytest.raises(InputError, match=r'data_preprocessor.size pads to \(64, 64\)'):
        check_sizes(sample, padding)


def test_hooks_that_replace_pipelines():
    def replaces(name, **attributes):
        hook = type(name, (Hook,), attributes)()
        return _replaces_pipelines(hook)

    assert replaces('PipelineSwitchHook')
    assert replaces('SwitchRecipeHook', schedule={1: {}, 2: dict(train_pipeline=[])})
    assert not replaces('SwitchRecipeHook', schedule={1: dict(loss={})})
    assert not replaces('EMAHook', schedule={1: dict(train_pipeline=[])})


def test_the_phase_follows_from_the_epoch():
    hook = CurriculumHook([dict(begin=b, strength=s) for b, s in ((0, 0.1), (2, 0.5), (3, 1.0))])
    hook._begins = hook.begins(5)
    lines = []
    logger = SimpleNamespace(info=lines.append)
    for epoch, phase in ((0, 0), (1, 0), (2, 1), (3, 2), (4, 2), (1, 0)):
        hook.before_train_epoch(SimpleNamespace(epoch=epoch, logger=logger))
        assert int(hook._index) == phase
    assert [line.split(' of ')[0][-1] for line in lines] == ['1', '2', '3', '1']


@pytest.mark.slow
def test_a_detector(tiny_config, tool, probe, tmp_path):
    """Boxes follow the images: mmdet's Resize scales them."""
    text = f"""
custom_hooks = [dict(type='mobileone_mm.CurriculumHook', phases=[
    dict(begin=0, resolution=256), dict(begin=1, resolution=320)]), {probe}]
train_cfg = dict(max_epochs=2)
"""
    BatchProbe.seen.clear()
    config = tiny_config('det', text.replace(probe, "dict(type='mmengine.SizeProbe')"))
    assert tool('train', config, '--work-dir', tmp_path / 'run', '--no-validate') == 0
    assert {side for epoch, side in BatchProbe.seen if epoch == 0} == {256}
    assert {side for epoch, side in BatchProbe.seen if epoch == 1} == {320}


@HOOKS.register_module(force=True)
class SizeProbe(Hook):
    """The sides of a detector's images."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        BatchProbe.seen += [(runner.epoch, x.shape[-1]) for x in data_batch['inputs']]
        for sample, x in zip(data_batch['data_samples'], data_batch['inputs'], strict=True):
            assert sample.gt_instances.bboxes.tensor.max() <= x.shape[-1]
