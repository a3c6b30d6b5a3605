"""The distilling classifier: a plain student to everything but its loss."""

import copy

import numpy as np
import pytest
import torch
from mmengine.model import ExponentialMovingAverage
from mmengine.optim import build_optim_wrapper
from torch.nn.functional import cross_entropy, log_softmax

from mobileone_mm.errors import InputError


def losses_of(model, batch):
    data = model.data_preprocessor(copy.deepcopy(batch), training=True)
    return model(**data, mode='loss')


@pytest.mark.parametrize(('temperature', 'alpha'), [(1.0, 1.0), (4.0, 0.9)])
def test_losses(make_student, resnet_teacher, timm_teacher, batch, temperature, alpha):
    loss = dict(temperature=temperature, alpha=alpha)
    model = make_student(resnet_teacher, timm_teacher, distill_loss=loss).eval()
    data = model.data_preprocessor(copy.deepcopy(batch))
    p = model.load_teachers().scores(data['inputs'], temperature)
    model.head.fc.bias.data[p[0].argmax()] += 9  # so that both agree on an image
    losses, logits = losses_of(model, batch), model(data['inputs'])
    divergence = (p * (p.log() - log_softmax(logits / temperature, 1))).sum(1).mean()
    expected = {'loss_soft': alpha * temperature**2 * divergence}
    if alpha < 1:
        labels = torch.cat([sample.gt_label for sample in data['data_samples']])
        expected['loss_hard'] = (1 - alpha) * cross_entropy(logits, labels)
    total, _ = model.parse_losses(losses)
    torch.testing.assert_close(total, sum(expected.values()))
    expected['teacher_agreement'] = (logits.argmax(1) == p.argmax(1)).float().mean()
    torch.testing.assert_close(losses, expected)


def test_teachers_see_the_mixed_images(make_student, resnet_teacher, batch):
    """Mixup and CutMix of the host's preprocessor: the same batch for both."""
    mixup, loss = dict(augments=[dict(type='Mixup', alpha=1.0)]), dict(alpha=0.5, temperature=2.0)
    model = make_student(resnet_teacher, train_cfg=mixup, distill_loss=loss)
    seen = []
    model.load_teachers()
    model.teachers.members[0].model.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    np.random.seed(0)
    torch.manual_seed(0)
    data = model.data_preprocessor(copy.deepcopy(batch), training=True)
    plain = model.data_preprocessor(copy.deepcopy(batch), training=False)
    losses = model(**data, mode='loss')
    assert torch.equal(seen[0], data['inputs'])
    assert not torch.allclose(seen[0], plain['inputs'])
    assert torch.isfinite(losses['loss_hard'])


def test_state_and_parameters_are_the_students(make_student, resnet_teacher, batch):
    model = make_student(resnet_teacher)
    model.init_weights()
    assert model.teachers is not None
    keys = set(model.state_dict())
    assert {key.split('.')[0] for key in keys} == {'backbone', 'head'}
    owned = {id(p) for p in model.parameters()}
    wrapper = build_optim_wrapper(model, dict(optimizer=dict(type='SGD', lr=0.1)))
    optimized = {id(p) for group in wrapper.param_groups for p in group['params']}
    assert optimized == owned
    average = ExponentialMovingAverage(model, momentum=0.1)
    assert set(average.module.state_dict()) == keys
    assert average.module.teachers is model.teachers
    model.train()
    total, _ = model.parse_losses(losses_of(model, batch))
    total.backward()
    teacher = model.teachers.members[0].model
    assert not any(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
    assert float(model.head.fc.weight.grad.abs().sum()) > 0


def test_teachers_are_not_needed_to_predict(make_student, batch):
    model = make_student(dict(timm='no_such_net', checkpoint='/nowhere.pth')).eval()
    with torch.no_grad():
        samples = model.val_step(batch)
    assert len(samples) == 6
    with pytest.raises(InputError, match='no_such_net'):
        model.init_weights()


def test_precisions(make_student, resnet_teacher, batch):
    model = make_student(resnet_teacher).eval()
    plain = losses_of(model, batch)['loss_soft']
    with torch.autocast('cpu', torch.bfloat16):
        half = losses_of(model, batch)['loss_soft']
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(plain.item(), rel=0.1)
    data = model.double().data_preprocessor(copy.deepcopy(batch))
    double = model(data['inputs'].double(), data['data_samples'], mode='loss')['loss_soft']
    assert double.item() == pytest.approx(plain.item(), rel=1e-4)


def test_pipelines_and_heads_that_are_refused(make_student, resnet_teacher, batch):
    """A host's own script does not wrap the pipeline: an error, not hard labels in disguise."""
    mixup = dict(augments=dict(type='Mixup', alpha=0.5))
    model = make_student(resnet_teacher, outputs='out', train_cfg=mixup)
    with pytest.raises(InputError, match='the training pipeline does not read them'):
        losses_of(model, batch)
    with pytest.raises(InputError, match='num_classes'):
        make_student(resnet_teacher, head=None).init_weights()
    model = make_student(resnet_teacher)
    model.head.fc = torch.nn.Linear(64, 7)
    with pytest.raises(InputError, match=r'shape \(6, 5\), the student \(6, 7\)'):
        losses_of(model, batch)
