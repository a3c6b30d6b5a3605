"""Weights into models: what fits is taken, what does not is refused with the likely cause."""

import pytest
import torch
from torch import nn

import mobileone_mm.weights.mmengine_loader  # noqa: F401 -- it changes mmengine
from helpers import SMALL, Classifier, randomize_, same
from mobileone_mm import MobileOne, reparameterize_model
from mobileone_mm.errors import InputError
from mobileone_mm.weights.fit import checkpoint_for, load_weights
from mobileone_mm.weights.names import SCHEMES, to_scheme
from mobileone_mm.weights.unwrap import read_weights

WIDE = {**SMALL, 'width_factor': [0.5] * 4}
DEEP = {**SMALL, 'num_blocks': [1, 3, 1, 1]}


class Detector(nn.Module):
    def __init__(self, arch=SMALL) -> None:
        super().__init__()
        self.backbone = MobileOne(arch)
        self.neck = nn.Conv2d(self.backbone.out_channels[-1], 8, 1)
        self.bbox_head = nn.Conv2d(8, 5, 1)


@pytest.fixture
def trained() -> Classifier:
    return randomize_(Classifier(), seed=1).eval()


@pytest.mark.parametrize('scheme', SCHEMES)
@pytest.mark.parametrize('form', ['train', 'deploy'])
def test_every_scheme_into_a_classifier_and_a_backbone(tmp_path, trained, scheme, form):
    source = trained if form == 'train' else reparameterize_model(trained)
    state = to_scheme(source.state_dict(), scheme)
    wrapped = {f'module.{key.removeprefix("backbone.")}': value for key, value in state.items()}
    path = tmp_path / 'weights.pth'
    torch.save({'model': wrapped}, path)
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
    for scheme in ('apple', 'timm', 'corenet'):
        state = {f'net.{key}': v for key, v in to_scheme(trained.state_dict(), scheme).items()}
        other = Classifier()
        load_weights(other, state, prefix='net')
        assert same(other, trained)


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


def test_old_files_without_the_counter_of_bn_into_a_wrapped_model(trained):
    model = Classifier()
    state = {k: v for k, v in trained.state_dict().items() if 'num_batches' not in k}
    load_weights(nn.DataParallel(model), state)
    assert same(model, trained)


def test_half_precision_files(trained):
    state = {k: v.half() if v.is_floating_point() else v for k, v in trained.state_dict().items()}
    model = Classifier()
    load_weights(model, state)
    weight = model.backbone.stage0.branch_scale.conv.weight
    assert weight.dtype == torch.float32
    assert torch.equal(weight, trained.backbone.stage0.branch_scale.conv.weight.half().float())


@pytest.mark.parametrize('deploy', [False, True])
def test_the_other_form_is_the_same_function(deploy, said):
    """Unfused weights are fused for a deploy model, fused ones lifted, with the eps of the model."""
    norm = dict(type='BN', eps=0.1)
    source = randomize_(Classifier(norm_cfg=norm)).eval()
    state = (source if deploy else reparameterize_model(source)).state_dict()
    model = Classifier(deploy=deploy, norm_cfg=norm).eval()
    report = load_weights(model, state)
    assert report.form == ('train' if deploy else 'deploy')
    assert f'is in {"training" if deploy else "deploy"} form' in said[0]
    assert not report.missing
    assert not report.unexpected
    x = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(model.backbone(x), source.backbone(x), rtol=1e-5, atol=1e-5)


def edited(part, change):
    """Change the first tensor of that name."""

    def edit(model: nn.Module) -> dict:
        state = model.state_dict()
        key = next(key for key in state if part in key)
        return {**state, key: change(state[key])}

    return edit


def plain(model: nn.Module) -> dict:
    return model.state_dict()


MISMATCHES = {
    'size: widths': (
        plain, lambda: Classifier(WIDE),
        'another size: its stages are 16/16/32/64/128 .* 32/32/64/128/256',
    ),
    'size: depth': (plain, lambda: Classifier(DEEP), 'another size: units'),
    'size, other form': (plain, lambda: Classifier(WIDE, deploy=True), 'another size: its stages'),
    'size, lifted': (
        lambda m: plain(reparameterize_model(m)), lambda: Classifier(DEEP), 'another size: units',
    ),
    'size: input': (plain, lambda: Classifier(in_channels=1), 'another arch or in_channels'),
    'classes': (plain, lambda: Classifier(classes=7), 'number of classes'),
    'task': (plain, Detector, 'lacks 4 keys .neck.* another task'),
    'more': (
        lambda m: {**plain(m), 'neck.weight': torch.ones(1)}, Classifier,
        r'that the model lacks \(neck.weight\)',
    ),
    'nothing': (lambda model: {'epoch': 3}, Classifier, 'holds no weights'),
    'NaN': (edited('stage2', lambda t: t * torch.nan), Classifier, 'stage2.*NaN or Inf'),
    # The other form is computed from the file before anything can be compared with the model.
    'fused: flat': (
        edited('conv.weight', torch.flatten), lambda: Classifier(deploy=True), 'fits the rest',
    ),
    'lifted: flat': (
        lambda m: edited('reparam.weight', torch.flatten)(reparameterize_model(m)), Classifier,
        'fits the rest',
    ),
}  # fmt: skip


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
    assert same(model, before)


def test_a_detector_may_start_from_a_classifier_when_asked(trained):
    state = trained.state_dict()
    with pytest.raises(InputError, match='another size'):
        checkpoint_for(Detector(WIDE), state, 'backbone')
    fitted = checkpoint_for(Detector(), state, 'backbone')
    assert {key.partition('.')[0] for key in fitted.missing} == {'neck', 'bbox_head'}
    detector = Detector()
    report = load_weights(detector, state, strict=False)
    assert len(report.missing) == 4
    assert same(detector.backbone, trained.backbone)
    with pytest.raises(InputError, match='number of classes'):
        load_weights(Classifier(classes=7), state, strict=False)


def test_a_model_below_the_name_of_a_wrapper(trained, said):
    """As a TTA model has it."""
    for inner, source in ((Classifier(), trained), (nn.Linear(2, 2), nn.Linear(2, 2))):
        model, own = nn.ModuleDict({'model': inner}), source.state_dict()
        for state in (own, {f'model.{key}': value for key, value in own.items()}):
            checkpoint_for(model, state).load(model)
            assert same(inner, source)
            randomize_(inner)
    assert not said


def test_several_networks_in_one_file(trained):
    """That of the backbone is meant; without one, the place is unclear."""
    other = {f'teacher.{key}': value * 2 for key, value in trained.backbone.state_dict().items()}
    backbone = MobileOne(SMALL)
    report = load_weights(backbone, {**other, **trained.state_dict()})
    assert same(backbone, trained.backbone)
    assert set(report.unexpected) == {*other, 'head.fc.weight', 'head.fc.bias'}
    with pytest.raises(InputError, match='no key in common'):
        load_weights(backbone, {**other, **{f'a{key}': value for key, value in other.items()}})


def test_what_a_required_backbone_needs(trained):
    """Other heads and further keys are allowed; NaN anywhere and another backbone are not."""
    state, model = trained.state_dict(), Classifier(classes=7)
    fitted = checkpoint_for(model, {**state, 'backbone.more': torch.ones(1)}, 'backbone')
    assert fitted.loaded == tuple(k for k in state if 'head' not in k)
    assert (fitted.missing, fitted.unexpected) == ((), ('backbone.more',))
    fitted.load(model)
    assert same(model.backbone, trained.backbone)
    with pytest.raises(InputError, match='units or branches differ'):
        checkpoint_for(model, {**state, 'backbone.stage1.0.more': torch.ones(1)}, 'backbone')
    state['head.fc.bias'] = torch.full((5,), torch.nan)
    for require in ('backbone', 'nothing'):
        with pytest.raises(InputError, match='NaN'):
            checkpoint_for(Classifier(), state, require)
    with pytest.raises(InputError, match=r'holds no MobileOne \(its keys: w\)'):
        checkpoint_for(model, {'w': torch.ones(1)}, 'backbone')
    with pytest.raises(InputError, match='no key in common'):
        checkpoint_for(nn.Linear(1, 1), {'w': torch.ones(1)}, 'nothing')


def test_only_corenets_range_of_pixels_is_another(trained, said):
    for scheme in SCHEMES:
        load_weights(Classifier(), to_scheme(trained.state_dict(), scheme))
        assert bool(said) == (scheme == 'corenet'), scheme
        said.clear()


def test_prefix_of_a_file_without_a_mobileone():
    state = {'a.weight': torch.ones(2, 2), 'a.bias': torch.ones(2), 'b': torch.ones(1)}
    model = nn.Linear(2, 2)
    report = load_weights(model, state, prefix='a')
    assert (report.loaded, report.unexpected, report.scheme) == (('weight', 'bias'), (), None)
    with pytest.raises(InputError, match=r"no key below 'c\.' \(its keys: a.weight, a.bias, b\)"):
        load_weights(model, state, prefix='c.')


S4_LIKE = dict(num_blocks=(1, 1, 2, 1), width_factor=(0.25,) * 4, num_se_blocks=(0, 0, 1, 1))


@pytest.mark.parametrize('way', ['load_weights', 'init_cfg', 'load_from'])
def test_a_backbone_without_se_takes_the_rest_of_a_file_with_it(way, tmp_path, said):
    source = randomize_(Classifier(S4_LIKE), seed=1)
    expected = {k: v for k, v in source.backbone.state_dict().items() if '.se.' not in k}
    assert len(source.backbone.state_dict()) - len(expected) == 16
    whole = Classifier(S4_LIKE, classes=7, use_se=False)
    model = whole.backbone
    if way == 'load_weights':
        report = load_weights(model, source.state_dict())
        assert not any('.se.' in key for key in report.unexpected)
    elif way == 'load_from':
        with pytest.raises(InputError, match='with squeeze-and-excitation, the model without'):
            checkpoint_for(Classifier(S4_LIKE, use_se=False), source.state_dict())  # as for a test
        backbone_only = {k: v for k, v in source.state_dict().items() if 'head' not in k}
        checkpoint_for(whole, backbone_only, 'backbone').load(whole)
    else:
        torch.save(source.state_dict(), tmp_path / 's4.pth')
        path = str(tmp_path / 's4.pth')
        model.init_cfg = dict(type='Pretrained', checkpoint=path, prefix='backbone')
        model.init_weights()
    assert same(model, expected)
    (line,) = (line for line in said if 'squeeze-and-excitation' in line)
    assert '16 tensors' in line
    assert 'use_se=False' in line
    said.clear()
    load_weights(model, model.state_dict())  # nothing to leave out
    assert not said
