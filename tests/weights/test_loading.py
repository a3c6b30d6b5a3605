"""Weights that do not belong to a model are refused with the likely cause."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mobileone_mm import MobileOne, reparameterize_model
from mobileone_mm.errors import InputError
from mobileone_mm.reparam.compare import randomize_
from mobileone_mm.weights.fit import checkpoint_for, load_weights
from mobileone_mm.weights.forms import fuse_state
from mobileone_mm.weights.names import SCHEMES, parse, render, to_scheme
from mobileone_mm.weights.unwrap import read_weights

SMALL = dict(num_blocks=[1, 2, 1, 1], width_factor=[0.25] * 4, num_conv_branches=[2, 1, 1, 1])
WIDE = {**SMALL, 'width_factor': [0.5] * 4}
DEEP = {**SMALL, 'num_blocks': [1, 3, 1, 1]}
MORE_BRANCHES = {**SMALL, 'num_conv_branches': [4, 1, 1, 1]}
WITH_SE = {**SMALL, 'num_se_blocks': [0, 1, 0, 0]}


class Classifier(nn.Module):
    def __init__(self, arch=SMALL, classes=5, **kwargs) -> None:
        super().__init__()
        self.backbone = MobileOne(arch, **kwargs)
        self.head = nn.Module()
        self.head.fc = nn.Linear(self.backbone.out_channels[-1], classes)


class Detector(nn.Module):
    def __init__(self, arch=SMALL, classes=5, **kwargs) -> None:
        super().__init__()
        self.backbone = MobileOne(arch, **kwargs)
        self.neck = nn.Conv2d(self.backbone.out_channels[-1], 8, 1)
        self.bbox_head = nn.Conv2d(8, classes, 1)


@pytest.fixture
def trained() -> Classifier:
    return randomize_(Classifier(), seed=1).eval()


def same(first: nn.Module, second: nn.Module) -> bool:
    a, b = first.state_dict(), second.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize('scheme', SCHEMES)
@pytest.mark.parametrize('form', ['train', 'deploy'])
def test_every_scheme_into_a_classifier_and_a_backbone(tmp_path, trained, scheme, form):
    source = trained if form == 'train' else reparameterize_model(trained)
    state = {
        render(parse(key.removeprefix('backbone.'), 'mmpretrain'), scheme): value
        for key, value in source.state_dict().items()
    }
    path = tmp_path / 'weights.pth'
    torch.save({'model': {f'module.{key}': value for key, value in state.items()}}, path)
    model = Classifier(deploy=form == 'deploy')
    report = load_weights(model, path)
    assert same(model, source)
    assert (report.scheme, report.form) == (scheme, form)
    assert (report.missing, report.unexpected) == ((), ())
    assert len(report.loaded) == len(state)

    backbone = MobileOne(SMALL, deploy=form == 'deploy')
    report = load_weights(backbone, path)
    assert same(backbone, source.backbone)
    assert {key.partition('.')[0] for key in report.unexpected} == {'head'}


def test_prefix_takes_a_part(trained):
    backbone = MobileOne(SMALL)
    state = {f'teacher.{key}': value for key, value in trained.state_dict().items()}
    load_weights(backbone, state, prefix='teacher.backbone')
    assert same(backbone, trained.backbone)
    with pytest.raises(InputError, match="no key below 'student.'"):
        load_weights(backbone, state, prefix='student')
    with pytest.raises(InputError, match=r"no key in common .* prefix='teacher\.backbone\.'"):
        load_weights(backbone, state)


def test_the_encoder_of_a_foreign_segmentor(trained):
    """segmentation_models.pytorch: its decoder is no part of the backbone, and no prefix is needed."""
    state = to_scheme(trained.state_dict(), 'apple')
    state = {f'encoder.{key}': value for key, value in state.items() if 'linear' not in key}
    state['decoder.blocks.0.weight'] = torch.ones(1)
    backbone = MobileOne(SMALL)
    report = load_weights(backbone, state)
    assert same(backbone, trained.backbone)
    assert report.unexpected == ('decoder.blocks.0.weight',)
    detector = Detector()
    checkpoint_for(detector, state, 'backbone').load(detector)
    assert same(detector.backbone, trained.backbone)
    with pytest.raises(InputError, match='lacks 4 keys'):
        load_weights(detector, state)


@pytest.mark.parametrize('part', ['running_mean', 'branch_scale'])
def test_incomplete_averages_are_not_used(trained, part, monkeypatch):
    """Some programs average the parameters only; such a set is no network."""
    said: list[str] = []
    monkeypatch.setattr('mobileone_mm.weights.unwrap.print_log', lambda text, *_: said.append(text))
    state = trained.state_dict()
    averages = {k: v * 2 for k, v in state.items() if v.is_floating_point() and part not in k}
    model = Classifier()
    report = load_weights(model, {'state_dict': state, 'state_dict_ema': averages})
    assert same(model, trained)
    assert (report.averaged, report.dropped) == (False, ('state_dict_ema',))
    assert 'lack' in said[0]
    whole = {k: v * 2 if v.is_floating_point() else v for k, v in state.items()}
    report = load_weights(model, {'state_dict': state, 'state_dict_ema': whole, 'lr': 1})
    assert (report.averaged, report.dropped) == (True, ('lr', 'state_dict'))
    assert 'the averaged ones are used' in said[1]


@pytest.mark.parametrize(
    ('raw', 'average'),
    [
        (lambda s: {k.replace('backbone.', 'backbone._orig_mod.'): s[k] for k in s}, dict),
        (dict, lambda s: {k.replace('backbone.', 'backbone.module.'): s[k] for k in s}),
        (dict, fuse_state),
        (fuse_state, dict),
        (lambda s: to_scheme(s, 'apple'), dict),
        (dict, lambda s: {k.replace('backbone.', 'encoder.'): s[k] for k in s}),
    ],
    ids=['wrapped raw', 'wrapped average', 'fused average', 'fused raw', 'naming', 'place'],
)
def test_averages_with_other_keys_than_the_raw_weights(trained, raw, average):
    """Two sets of one file may differ in prefixes, naming and form; the averaged one counts."""
    other = randomize_(Classifier()).eval().state_dict()
    model = Classifier().eval()
    file = {'state_dict': raw(other), 'state_dict_ema': average(trained.state_dict())}
    assert load_weights(model, file).averaged
    image = torch.rand(1, 3, 64, 64)
    assert torch.allclose(model.backbone(image)[-1], trained.backbone(image)[-1], atol=1e-4)


@pytest.mark.parametrize(
    'names',
    [
        ('model_state', 'ema_state'),
        ('model_state_dict', 'model_state_dict_ema'),
        ('model_state_dict', 'ema_model_state_dict'),
        ('net', 'net_ema'),
        ('model', 'swa_model'),
        ('model', 'ema', 'shadow'),
        ('model', 'averaged_model', 'state_dict'),
    ],
    ids='-'.join,
)
def test_names_of_averages(trained, names):
    average: dict = trained.state_dict()
    for name in reversed(names[1:]):
        average = {name: average, 'decay': 0.99}
    model = Classifier()
    assert load_weights(model, {names[0]: Classifier().state_dict(), **average}).averaged
    assert same(model, trained)


def test_a_wrapped_model(trained):
    model = Classifier()
    load_weights(nn.DataParallel(model), trained.state_dict())
    assert same(model, trained)
    checkpoint_for(nn.DataParallel(model), trained.state_dict())


def test_old_files_without_the_counter_of_bn(trained):
    state = {k: v for k, v in trained.state_dict().items() if 'num_batches' not in k}
    load_weights(Classifier(), state)
    checkpoint_for(Classifier(), state)


def test_half_precision_files(trained):
    state = {k: v.half() if v.is_floating_point() else v for k, v in trained.state_dict().items()}
    model = Classifier()
    load_weights(model, state)
    weight = model.backbone.stage0.branch_scale.conv.weight
    assert weight.dtype == torch.float32
    assert torch.equal(weight, trained.backbone.stage0.branch_scale.conv.weight.half().float())


@pytest.mark.parametrize('deploy', [False, True])
def test_the_other_form_is_the_same_function(trained, deploy):
    """Unfused weights are fused for a deploy model, fused ones written into branches."""
    state = (trained if deploy else reparameterize_model(trained)).state_dict()
    model = Classifier(deploy=deploy).eval()
    report = load_weights(model, state)
    assert report.form == ('train' if deploy else 'deploy')
    assert not report.missing
    assert not report.unexpected
    x = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(model.backbone(x), trained.backbone(x), rtol=1e-5, atol=1e-5)
    checkpoint_for(model, state)


def edited(model: nn.Module, part: str, value: float) -> dict:
    state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    key = next(key for key in state if part in key)
    state[key].view(-1)[0] = value
    return state


MISMATCHES = {
    'size: widths': (
        lambda model: model.state_dict(),
        lambda: Classifier(WIDE),
        'another size: its stages are 16/16/32/64/128 .* 32/32/64/128/256',
    ),
    'size: depth': (lambda m: m.state_dict(), lambda: Classifier(DEEP), 'another size: units'),
    'size: branches': (
        lambda model: model.state_dict(),
        lambda: Classifier(MORE_BRANCHES),
        'another size: units or branches',
    ),
    'size: se': (
        lambda model: model.state_dict(),
        lambda: Classifier(WITH_SE),
        'is without squeeze-and-excitation, the model with',
    ),
    'size: input': (
        lambda model: model.state_dict(),
        lambda: Classifier(in_channels=1),
        'another arch or in_channels',
    ),
    'classes': (lambda m: m.state_dict(), lambda: Classifier(classes=7), 'number of classes'),
    'task': (lambda m: m.state_dict(), Detector, 'lacks 4 keys .neck.* another task'),
    'no MobileOne': (
        lambda model: nn.Sequential(nn.Conv2d(3, 3, 1)).state_dict(),
        Classifier,
        r'holds no MobileOne \(its keys: 0.weight, 0.bias\)',
    ),
    'nothing': (lambda model: {'epoch': 3}, Classifier, 'holds no weights'),
    'NaN': (lambda m: edited(m, 'stage2', float('nan')), Classifier, 'stage2.*NaN or Inf'),
    'Inf in the head': (lambda m: edited(m, 'fc.bias', float('inf')), Classifier, 'fc.bias.*NaN'),
    'variance': (lambda m: edited(m, 'running_var', -1.0), Classifier, 'negative variance'),
    'integers': (
        lambda model: {**model.state_dict(), 'head.fc.bias': torch.zeros(5, dtype=torch.long)},
        Classifier,
        'torch.int64 where floating point',
    ),
}


@pytest.mark.parametrize('case', MISMATCHES)
def test_mismatches_are_one_line_and_change_nothing(trained, case):
    make_state, make_model, match = MISMATCHES[case]
    state, model = make_state(trained), make_model()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for call in (
        lambda: load_weights(model, state),
        lambda: checkpoint_for(model, read_weights(state, 'net.pth')),
    ):
        with pytest.raises(InputError, match=match) as caught:
            call()
        assert '\n' not in str(caught.value)
        assert len(str(caught.value)) < 400
    assert "checkpoint 'net.pth'" in str(caught.value)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_check_passes_what_belongs_together(trained):
    checkpoint_for(Classifier(), {'state_dict': trained.state_dict(), 'meta': {}})
    checkpoint_for(MobileOne(SMALL), trained.backbone.state_dict())


def test_a_detector_may_start_from_a_classifier_when_asked(trained):
    state = trained.state_dict()
    with pytest.raises(InputError, match='lacks 4 keys'):
        checkpoint_for(Detector(), state)
    with pytest.raises(InputError, match='another size'):
        checkpoint_for(Detector(WIDE), state, 'backbone')
    fitted = checkpoint_for(Detector(), state, 'backbone')
    assert {key.partition('.')[0] for key in fitted.missing} == {'neck', 'bbox_head'}
    detector = Detector()
    report = load_weights(detector, state, strict=False)
    assert len(report.missing) == 4
    assert same(detector.backbone, trained.backbone)


def test_not_strict_still_needs_something_in_common():
    with pytest.raises(InputError, match='no key in common'):
        load_weights(Classifier(), {'conv1.weight': torch.ones(1)}, strict=False)
    with pytest.raises(InputError, match='number of classes'):
        load_weights(Classifier(), Classifier(classes=7).state_dict(), strict=False)
