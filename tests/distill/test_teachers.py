"""Teachers: loaded from public forms of files, frozen, in their own normalisation and size."""

import re

import pytest
import timm
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from torch.nn.functional import interpolate, softmax

from helpers import RESNET, ROOT, cfg_options, randomize_, same
from mobileone_mm.distill.losses import DistillLoss
from mobileone_mm.distill.normalization import Normalization
from mobileone_mm.distill.stored import describe
from mobileone_mm.distill.teachers import Teacher, Teachers, check_specs
from mobileone_mm.errors import InputError
from mobileone_mm.weights.fit import load_weights
from mobileone_mm.weights.published import NAMED, PREFIX

from .conftest import ARCH, CLASSES, PREPROCESSOR, TIMM

STUDENT = Normalization((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), to_rgb=True)


def normalized(images, mean, std, **_):
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (mean, std))
    return (images - mean) / std


@pytest.fixture
def inputs(batch):
    """The batch in the student's normalisation."""
    return normalized(batch['inputs'].flip(1), **PREPROCESSOR)


def test_mmpretrain_weights_are_used_at_any_size(resnet_teacher, inputs):
    expected = randomize_(MODELS.build(RESNET), 1).eval()
    found = Teacher(resnet_teacher, STUDENT, CLASSES)
    torch.testing.assert_close(found.logits(inputs), expected(inputs), rtol=0, atol=0)
    assert found.logits(inputs).std(0).max() > 1e-3  # they say something about the image
    larger = Teacher({**resnet_teacher, 'input_size': 48}, STUDENT, CLASSES)
    resized = interpolate(inputs, (48, 48), mode='bilinear', antialias=True)
    torch.testing.assert_close(larger.logits(inputs), expected(resized), rtol=0, atol=0)


def test_timm_weights_are_used(timm_teacher, inputs, batch):
    """timm's table has another normalisation than the student."""
    model = randomize_(timm.create_model(TIMM, num_classes=CLASSES), 2).eval()
    found = Teacher(timm_teacher, STUDENT, CLASSES).logits(inputs)
    expected = model(normalized(batch['inputs'].flip(1) / 255, **model.pretrained_cfg))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_config_file_and_any_form_of_weights(tmp_path, inputs, capsys):
    """A fused file stays fused: nothing of a teacher is trained. A deploy config fuses any file."""
    from mobileone_mm import reparameterize_model

    own = dict(mean=[0.0] * 3, std=[255.0] * 3, to_rgb=False)
    bgr = STUDENT.renormalized(inputs, Normalization.of(own))
    for deploy in (True, False):
        backbone = dict(type='mobileone_mm.MobileOne', arch=ARCH, out_indices=(3,))
        trained = randomize_(MODELS.build(dict(RESNET, backbone=backbone)), 4).eval()
        settings = dict(RESNET, backbone=dict(backbone, deploy=deploy))
        Config(dict(model=settings, data_preprocessor=own)).dump(tmp_path / 'teacher.py')
        fused = reparameterize_model(trained)
        torch.save((trained if deploy else fused).state_dict(), tmp_path / 'file.pth')
        spec = dict(config=str(tmp_path / 'teacher.py'), checkpoint=str(tmp_path / 'file.pth'))
        found = Teacher(spec, STUDENT, CLASSES)
        limit = 1e-4 if deploy else 0
        torch.testing.assert_close(found.logits(inputs), fused(bgr), rtol=limit, atol=limit)
        assert found.model.state_dict().keys() == fused.state_dict().keys()
    said = capsys.readouterr()
    assert 'branches' not in said.out + said.err


def test_timm_mobileone_takes_timms_names():
    """timm's own MobileOne is a net of timm's; its file is not renamed for ours."""
    model = MODELS.build(dict(type='TimmClassifier', model_name='mobileone_s0'))
    other = randomize_(timm.create_model('mobileone_s0'), 7)
    load_weights(model, other.state_dict())
    assert same(model.model, other)


def test_renormalising(batch):
    raw = batch['inputs'].double()
    one = Normalization((1.0, 2.0, 3.0), (4.0, 5.0, 6.0), to_rgb=True)
    other = Normalization((9.0, 8.0, 7.0), (2.0, 3.0, 1.0), to_rgb=False)
    rgb, bgr = normalized(raw.flip(1), one.mean, one.std), normalized(raw, other.mean, other.std)
    torch.testing.assert_close(one.renormalized(rgb, other), bgr, rtol=0, atol=1e-12)
    plain = MODELS.build(dict(type='ClsDataPreprocessor', **PREPROCESSOR))
    assert Normalization.of(plain).to_rgb
    assert Normalization.of(plain).mean == pytest.approx(PREPROCESSOR['mean'])
    assert Normalization.of(MODELS.build(dict(type='ClsDataPreprocessor'))) == Normalization()


def test_a_net_of_one_size_gets_it(tmp_path, inputs):
    net = timm.create_model('test_vit', num_classes=CLASSES)
    torch.save(net.state_dict(), tmp_path / 'vit.pth')
    found = Teacher(dict(timm='test_vit', checkpoint=str(tmp_path / 'vit.pth')), STUDENT, CLASSES)
    assert found.input_size == net.pretrained_cfg['input_size'][-1] != inputs.shape[-1]
    assert found.logits(inputs).shape == (6, CLASSES)


def test_ensemble_is_the_mean_of_the_probabilities(resnet_teacher, timm_teacher, inputs):
    specs = [resnet_teacher, timm_teacher]
    both = Teachers(specs, STUDENT, CLASSES).scores(inputs, 3.0)
    each = [softmax(Teacher(s, STUDENT, CLASSES).logits(inputs) / 3, 1) for s in specs]
    torch.testing.assert_close(both, (each[0] + each[1]) / 2)
    assert not both.requires_grad
    assert not torch.allclose(each[0], each[1], atol=1e-2)


def test_a_teacher_that_overflows(resnet_teacher, timm_teacher, inputs):
    teachers = Teachers([resnet_teacher, timm_teacher], STUDENT, CLASSES)
    next(teachers.members[1].model.parameters()).mul_(1e38)
    with pytest.raises(
        InputError, match=f"^teacher '{timm_teacher['timm']}' .*predicts NaN or Inf"
    ):
        teachers.scores(inputs)


def test_fingerprint(resnet_teacher, timm_teacher):
    specs = (resnet_teacher, resnet_teacher, timm_teacher)
    one, again, other = (Teacher(spec, STUDENT, CLASSES) for spec in specs)
    assert one.fingerprint() == again.fingerprint() != other.fingerprint()
    next(again.model.parameters()).view(-1)[0].add_(1)
    assert one.fingerprint() != again.fingerprint()
    for change in (dict(input_size=48), dict(data_preprocessor=dict(to_rgb=False))):
        seen = Teacher({**resnet_teacher, **change}, STUDENT, CLASSES)
        assert one.fingerprint() != seen.fingerprint()


def test_description_has_no_folders(resnet_teacher):
    assert describe(resnet_teacher)['checkpoint'] == 'resnet.pth'
    a, b = (describe(dict(timm='a', checkpoint=f'{folder}/b.pth')) for folder in ('x', '/y'))
    assert a == b
    address = 'https://a.org/b.pth'
    assert describe(dict(timm='a', checkpoint=address))['checkpoint'] == address


@pytest.mark.parametrize(
    ('specs', 'message'),
    [
        ([], 'a list of at least one dict'),
        ([dict(timm='a', pretrained=True, ckpt='b')], "has no 'ckpt'"),
        ([dict(checkpoint='b')], 'exactly one'),
        ([dict(timm='a', config='b', checkpoint='c')], 'exactly one'),
        ([dict(model=dict(type='ImageClassifier'))], 'a random teacher teaches noise'),
        ([dict(timm='a', pretrained=True, checkpoint='b')], 'two sources'),
        ([dict(timm='a', pretrained=True, input_size=(3, 4))], 'input_size'),
        ([dict(model='resnet50', checkpoint='b')], 'config of a classifier'),
        (['resnet50'], 'dict with one of .*on the command line'),
        ([dict(timm='a', checkpoint=5)], 'checkpoint: got 5'),
        ('resnet50', 'on the command line'),
    ],
)
def test_descriptions_that_are_refused(specs, message):
    with pytest.raises(InputError, match=message) as caught:
        check_specs(specs)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        ('dict(maen=1)', 'got .dict.maen=1.*; expected a dict with mean, std, to_rgb'),
        (dict(maen=[1, 2, 3]), "data_preprocessor: has no 'maen'"),
        (dict(mean=[1, 2, 3]), 'has mean without std'),
        (dict(std=[1, 2, 3]), 'has std without mean'),
        (dict(mean=1), r'data_preprocessor.mean: got 1; expected a list of 3 numbers'),
        (dict(mean=[1, 2], std=[1, 2, 3]), 'mean: got'),
        (dict(mean=[1, 2, '3'], std=[1, 2, 3]), 'mean: got'),
        (dict(mean=[1, 2, 3], std=[1, 0, 3]), 'std: got .*above 0'),
        (dict(to_rgb='yes'), "to_rgb: got 'yes'; expected True or False"),
    ],
)
def test_normalisations_that_are_refused(given, message):
    with pytest.raises(InputError, match=message) as caught:
        check_specs([dict(timm='a', pretrained=True, data_preprocessor=given)])
    assert str(caught.value).startswith('model.teachers.0.data_preprocessor')


def test_what_a_normalisation_leaves_out_is_the_default(resnet_teacher, timm_teacher):
    """The teacher's own config, timm's table, and the student's, in this order."""
    own = dict(type='ClsDataPreprocessor', mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0], to_rgb=False)
    model = {**resnet_teacher['model'], 'data_preprocessor': own}
    flip, numbers = dict(to_rgb=True), dict(mean=[7, 8, 9], std=[1, 1, 2])

    def found(spec, **given):
        return Teacher({**spec, 'data_preprocessor': given}, STUDENT, CLASSES).normalization

    configured = {**resnet_teacher, 'model': model}
    assert found(configured, **flip) == Normalization((1, 2, 3), (4, 5, 6), True)
    assert found(configured, **numbers) == Normalization((7, 8, 9), (1, 1, 2), False)
    assert found(configured) == Normalization((1, 2, 3), (4, 5, 6), False)
    assert found(resnet_teacher, to_rgb=False) == Normalization(STUDENT.mean, STUDENT.std, False)
    assert found(resnet_teacher, **numbers) == Normalization((7, 8, 9), (1, 1, 2), True)
    table = found(timm_teacher)
    assert found(timm_teacher, to_rgb=False) == Normalization(table.mean, table.std, False)
    wrong = {**resnet_teacher, 'model': {**model, 'data_preprocessor': dict(mean=1, std=2)}}
    with pytest.raises(InputError, match='data_preprocessor.mean: got 1'):
        Teacher(wrong, STUDENT, CLASSES)


def test_what_cannot_be_loaded(resnet_teacher, timm_teacher):
    def refused(spec, classes=CLASSES, **changes):
        with pytest.raises(InputError) as caught:
            Teacher({**spec, **changes}, STUDENT, classes)
        assert '\n' not in str(caught.value)
        return str(caught.value)

    assert 'has 5 classes, the student' in refused(resnet_teacher, 7)
    assert 'another number of classes' in refused(timm_teacher, 7)
    assert 'no such file' in refused(resnet_teacher, checkpoint='/no.pth')
    assert 'has other shapes' in refused(resnet_teacher, checkpoint=timm_teacher['checkpoint'])
    assert "teacher 'no_net' of timm: cannot be built" in refused(timm_teacher, timm='no_net')
    said = "teacher of 'no.py': config 'no.py': no such file"
    assert said in refused(dict(config='no.py', checkpoint='x'))


def test_timms_own_weights_and_other_classes(monkeypatch):
    """timm replaces the classifier by a random one if the number of classes is not its own."""
    make = timm.create_model
    monkeypatch.setattr(timm.models, 'create_model', lambda *a, pretrained, **k: make(*a, **k))
    model = dict(type='TimmClassifier', model_name=TIMM, pretrained=True, num_classes=5)
    with pytest.raises(InputError, match='its classifier would be random'):
        Teacher(dict(model=model), STUDENT, CLASSES)
    spec = dict(timm=TIMM, pretrained=True)
    with pytest.raises(InputError, match='has 1000 classes'):
        Teacher(spec, STUDENT, CLASSES)
    logits = Teacher(spec, STUDENT, 1000).logits(torch.rand(1, 3, 64, 64))
    assert logits.shape == (1, 1000)


def test_what_the_docs_show():
    text = (ROOT / 'docs' / 'distillation.md').read_text()
    (block,) = re.findall(r'```python\n(.*?)```', text, re.DOTALL)
    model = Config.fromstring(block, '.py').model
    assert len(check_specs(model.teachers)) == 4
    assert (ROOT / model.teachers[2].config).is_file()
    assert model.teachers[2].checkpoint.removeprefix(PREFIX) in NAMED
    (line,) = re.findall(r'^    --cfg-options (model.distill_loss.*)$', text, re.MULTILINE)
    cfg = Config(dict(model=dict(distill_loss=dict(temperature=1.0, alpha=1.0))))
    cfg.merge_from_dict(cfg_options(*line.split()))
    loss = DistillLoss(**cfg.model.distill_loss)
    assert (loss.temperature, loss.alpha) == (4.0, 0.9)
