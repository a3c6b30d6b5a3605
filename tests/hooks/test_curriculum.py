"""Runs with a curriculum: it switches, resumes in the middle of a phase, and says what is wrong."""

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmcv.transforms import CenterCrop, Compose
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS, OPTIM_WRAPPERS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from mmpretrain.datasets.transforms import AutoAugment, RandomResizedCrop

from mobileone_mm.errors import InputError
from mobileone_mm.hooks.curriculum import CurriculumHook
from mobileone_mm.weights.reading import read_checkpoint

from ..training.conftest import assert_same, losses_of

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
STRENGTH = [dict(begin=0, strength=0.5), dict(begin=10, strength=1.0)]
SIZES = [dict(begin=0, resolution=32), dict(begin=10, resolution=48)]
WORKERS = 'train_dataloader.update(num_workers=2, persistent_workers=True, prefetch_factor=4)\n'


def curriculum(phases=PHASES, more=''):
    hook = f"dict(type='mobileone_mm.CurriculumHook', phases={phases})"
    return f'{PIPELINE}custom_hooks = [{hook}, {more}]\n'


@HOOKS.register_module(force=True)
class SizeProbe(Hook):
    """Keeps epoch and image sizes of each batch, and checks boxes; ends a run as Ctrl-C does."""

    seen: list = []
    stop: int | None = None

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.stop:
            raise KeyboardInterrupt
        images, samples = data_batch['inputs'], data_batch['data_samples']
        self.seen.append((runner.epoch, {tuple(image.shape[-2:]) for image in images}))
        for sample, image in zip(samples, images, strict=True):
            if 'gt_instances' in sample:
                assert sample.gt_instances.bboxes.tensor.max() <= image.shape[-1]


@pytest.fixture
def probe():
    SizeProbe.seen.clear()
    return "dict(type='mmengine.SizeProbe')"


def lines_of(output):
    lines = ''.join(output).splitlines()
    return [line.partition(' - INFO - ')[2] for line in lines if 'Curriculum: ' in line]


def weights(work_dir, epoch=4):
    return read_checkpoint(work_dir / f'epoch_{epoch}.pth')['state_dict']


@pytest.mark.parametrize('context', [None, pytest.param('spawn', marks=pytest.mark.slow)])
def test_it_switches(context, train, probe, capfd):
    lines = f'{WORKERS}train_dataloader.update(multiprocessing_context={context!r})\n'
    train('cls', curriculum(more=probe) + lines)
    assert SizeProbe.seen == [
        (epoch, {(SIDES[epoch],) * 2}) for epoch in range(4) for _ in range(4)
    ]
    assert lines_of(capfd.readouterr()) == [
        'Curriculum: phase 1 of 3 from epoch 1: 32 px, strength 0.3',
        'Curriculum: phase 2 of 3 from epoch 2: 48 px, strength 0.7',
        'Curriculum: phase 3 of 3 from epoch 4: 64 px, strength 1.0',
    ]


@pytest.mark.slow
def test_one_phase_is_the_plain_pipeline(train):
    """Bit by bit: the hook draws no random number and changes nothing else."""
    phase = '[dict(begin=0, resolution=48, strength=1.0)]'
    more = f'{WORKERS}train_cfg.update(max_epochs=2)\n'
    plain = train('cls', f'{PIPELINE}{more}custom_hooks = []\n', name='plain')
    assert_same(weights(train('cls', curriculum(phase) + more), 2), weights(plain, 2))


def test_resume_in_the_middle_of_a_phase(train, probe, monkeypatch, capfd):
    """The run is stopped in the second phase, and ends like the uninterrupted run."""
    more = f"dict(type='mmengine.EMAHook', momentum=0.1), {probe}"
    lines = f'{curriculum(more=more)}{WORKERS}train_dataloader.update(batch_size=4)\n'
    whole = train('cls', lines, name='whole')
    monkeypatch.setattr(SizeProbe, 'stop', 5)
    broken = train('cls', lines, code=130)
    monkeypatch.setattr(SizeProbe, 'stop', None)
    assert (broken / 'epoch_2.pth').exists()
    assert not (broken / 'epoch_3.pth').exists()
    capfd.readouterr()
    train('cls', lines, '--resume')
    second = 'Curriculum: phase 2 of 3 from epoch 2: 48 px, strength 0.7'
    assert lines_of(capfd.readouterr())[0] == second
    assert_same(weights(broken), weights(whole))


@OPTIM_WRAPPERS.register_module(force=True)
class CpuAmp(OptimWrapper):
    """bfloat16 on the CPU, for which mmengine's wrapper asks for a GPU."""

    def optim_context(self, model):
        return torch.autocast('cpu', torch.bfloat16)


def test_bfloat16(train, monkeypatch):
    from mobileone_mm.models import mobileone

    kinds = set()
    forward = mobileone.MobileOne.forward

    def spy(self, x):
        outputs = forward(self, x)
        kinds.add((self.training, outputs[0].dtype))
        return outputs

    monkeypatch.setattr(mobileone.MobileOne, 'forward', spy)
    lines = "optim_wrapper.update(type='mmengine.CpuAmp')\ntrain_cfg.update(max_epochs=2)\n"
    phases = [dict(begin=0, resolution=32), dict(begin=1, resolution=48)]
    content = read_checkpoint(train('cls', curriculum(phases) + lines) / 'epoch_2.pth')
    assert kinds == {(True, torch.bfloat16)}
    assert all(torch.isfinite(v).all() and v.dtype != torch.bfloat16
               for v in content['state_dict'].values())  # fmt: skip
    losses = losses_of(content)
    assert losses[-2:].mean() < losses[:2].mean()


@pytest.mark.slow
@pytest.mark.parametrize(('dynamic', 'graphs'), [('None', 2), ('False', 3)])
def test_compiled(dynamic, graphs, train):
    """One compilation more at the first switch, or one for each resolution; the same weights."""
    import torch._dynamo as dynamo
    from torch._dynamo.utils import counters

    dynamo.reset()
    counters.clear()
    # OneDL's Runner asks the loader for no last batch of another size; here all are of one size.
    plain = train('cls', curriculum(), name='plain')
    compiled = train('cls', f"{curriculum()}compile = dict(backend='eager', dynamic={dynamic})\n")
    assert counters['stats']['unique_graphs'] == graphs
    assert not counters['graph_break']
    assert_same(weights(compiled), weights(plain))


def test_padding_of_a_segmentor(tiny_config, refused):
    text = """
train_dataloader['dataset']['pipeline'][2:4] = [dict(type='Resize', scale=(64, 64))]
custom_hooks = [dict(type='mobileone_mm.CurriculumHook', phases=[dict(begin=0, resolution=32)])]
"""
    line = refused('train', tiny_config('seg', text), '--no-validate')
    assert 'resolution: model.data_preprocessor.size pads to (64, 64)' in line


def test_samples_without_an_image_tensor_are_not_checked():
    check = CurriculumHook(SIZES)._check_sizes
    padding = SimpleNamespace(data_preprocessor=SimpleNamespace(size=(64, 64)))
    for sample in (dict(img=1), dict(inputs=[torch.rand(3, 8, 8)]), (torch.rand(3, 8, 8), 0), None):
        check(None, [sample])
        with pytest.raises(InputError, match=r'data_preprocessor.size pads to \(64, 64\)'):
            check(padding, [sample])
    with pytest.raises(InputError, match=r'images of phases.0 are 40 x 32, not 32 px'):
        check(None, [dict(inputs=torch.rand(3, 32, 40))])


class Dataset:
    """One image behind some transforms."""

    def __init__(self, *transforms):
        self.pipeline = Compose(transforms)

    def __getitem__(self, index):
        image = self.pipeline(dict(img=np.zeros((64, 64, 3), np.uint8)))['img']
        return dict(inputs=torch.from_numpy(image).permute(2, 0, 1) + torch.rand(1))


def start(phases, *transforms, loop=EpochBasedTrainLoop, others=()):
    """The phase and the log of a run of 3 epochs, for phases of 30, that goes on behind the second."""
    hook, lines = CurriculumHook(phases, total=30), []
    loader = SimpleNamespace(dataset=Dataset(*transforms))
    runner = SimpleNamespace(
        train_loop=loop.__new__(loop), max_epochs=3, epoch=2, hooks=[hook, *others],
        model=torch.nn.Module(), train_dataloader=loader, logger=SimpleNamespace(info=lines.append),
    )  # fmt: skip
    hook.before_train(runner)
    return int(hook._index), lines


@pytest.mark.parametrize(
    ('phases', 'transform', 'text'),
    [
        (SIZES, RandomResizedCrop(16), '48 px'),
        (STRENGTH, AutoAugment('imagenet'), 'strength 1.0'),
    ],
)
def test_the_start_of_a_run(phases, transform, text):
    """Phases need only what they change; a resumed run starts in its phase and draws no number."""
    state = torch.get_rng_state()
    assert start(phases, transform) == (1, [f'Curriculum: phase 2 of 2 from epoch 2: {text}'])
    assert torch.equal(torch.get_rng_state(), state)


NONE = 'the training pipeline has no transform that it would change'
CUTOUT = AutoAugment([[dict(type='Cutout', shape=3)]])


@pytest.mark.parametrize(
    ('phases', 'transforms', 'line'),
    [
        (STRENGTH, [RandomResizedCrop(16)], rf"strength: {NONE} \(mmpretrain's AutoAugment"),
        (SIZES, [RandomResizedCrop((16, 24))], rf'resolution: {NONE} \(RandomResizedCrop'),
        (
            SIZES,
            [RandomResizedCrop(16), CenterCrop(32)],
            'resolution: images of phases.1 are 32 x 32, not 48 px; a later transform',
        ),
        (STRENGTH, [CUTOUT], 'strength: AutoAugment: Cutout has no known magnitude'),
    ],
)
def test_what_cannot_take_effect(phases, transforms, line):
    with pytest.raises(InputError, match=f'^custom_hooks: CurriculumHook: {line}'):
        start(phases, *transforms)


def test_what_a_curriculum_does_not_go_with():
    with pytest.raises(InputError, match='in epochs, and train_cfg.type is IterBasedTrainLoop'):
        start(SIZES, loop=IterBasedTrainLoop)
    new = dict(train_pipeline=[])
    for name, recipes, refused in (
        ('PipelineSwitchHook', {}, True),
        ('SwitchRecipeHook', {1: {}, 2: new}, True),
        ('SwitchRecipeHook', {1: dict(loss={})}, False),
        ('EMAHook', {1: new}, False),
    ):
        other = type(name, (Hook,), dict(schedule=recipes))()
        line = f'CurriculumHook and {name} both change the training pipeline; remove one'
        with pytest.raises(InputError, match=line) if refused else nullcontext():
            start(SIZES, RandomResizedCrop(16), others=[other])


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
def test_a_detector(train, probe):
    """Boxes follow the images: mmdet's Resize scales them."""
    train('det', f"""
custom_hooks = [dict(type='mobileone_mm.CurriculumHook', phases=[
    dict(begin=0, resolution=256), dict(begin=1, resolution=320)]), {probe}]
train_cfg = dict(max_epochs=2)
""")  # fmt: skip
    assert SizeProbe.seen == [
        (i, {(side, side)}) for i, side in enumerate((256, 320)) for _ in range(3)
    ]
