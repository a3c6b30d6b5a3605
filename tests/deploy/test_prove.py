"""The proof by small models: what it compares, what it refuses, and what it names."""

import copy
import math
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from helpers import randomize_
from mobileone_mm import reparameterize_model
from mobileone_mm.deploy import prove
from mobileone_mm.deploy.prove import _run_alone, compare_models, deploy_state, failing_folds
from mobileone_mm.errors import InputError, ProofError
from mobileone_mm.models import MobileOneBlock
from mobileone_mm.reparam.conv_norm import ConvNorm

PAIRS = [ConvNorm('neck', 'neck.0', 'neck.1')]


def small(*more: nn.Module) -> nn.Module:
    """A unit, and a neck whose BN folds."""
    model = nn.Sequential(MobileOneBlock(3, 4, 3, with_se=True))
    model.add_module('neck', nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), *more))
    return randomize_(model).double().eval()


def forms(dtype: torch.dtype = torch.float64) -> tuple[nn.Module, nn.Module]:
    """A small model and its deploy form."""
    model = small()
    deployed = reparameterize_model(model)
    deployed.neck = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Identity()).double()
    deployed.load_state_dict(deploy_state(model, PAIRS))
    return model.to(dtype), deployed.to(dtype)


def forward(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    return [model(x), x[:0]]  # the second has no numbers


@pytest.mark.parametrize(('dtype', 'limit'), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_units_that_are_not_run_are_compared_by_themselves(dtype, limit):
    """A unit of MobileOne, and a part whose BN folds."""
    model, deployed = (nn.ModuleDict(dict(a=m)) for m in forms(dtype))
    pairs = [ConvNorm('a.neck', 'a.neck.0', 'a.neck.1')]
    unused = randomize_(MobileOneBlock(4, 4, 3, with_se=True)).to(dtype).eval()
    model.unused, deployed.unused = unused, reparameterize_model(unused)
    run = lambda model, x: forward(model.a[0], x)  # noqa: E731
    compare_models(run, model, deployed, inputs(), limit, pairs)
    right = copy.deepcopy(deployed.state_dict())
    for name in ('unused.branch_reparam', 'a.neck.0'):
        with torch.no_grad():
            deployed.get_submodule(name).weight.mul_(1.01)
        with pytest.raises(ProofError, match=f'of {name.rpartition(".")[0]} on x'):
            compare_models(run, model, deployed, inputs(), 1e-4, pairs)
        deployed.load_state_dict(right)


def test_a_nearly_dead_unit_is_compared_by_the_scale_of_its_input():
    """Its output is rounding noise around the bias 0, which no fused kernel repeats."""
    model = small()
    for branch in model[0].reparam_branches():
        branch.norm.weight.data.fill_(1e-12)
        branch.norm.running_mean.zero_()
        branch.norm.bias.data.zero_()
    deployed = reparameterize_model(model)
    deployed[0].branch_reparam.bias.data += 1e-10  # invisible beside inputs of about 1
    compare_models(forward, model, deployed, inputs(), 1e-4, [])
    deployed[0].branch_reparam.bias.data += 1e-3
    with pytest.raises(ProofError):
        compare_models(forward, model, deployed, inputs(), 1e-4, [])


def inputs(*names: str) -> list[tuple[str, torch.Tensor]]:
    return [(name, torch.rand(2, 3, 6, 5)) for name in names or 'x']


def test_each_input_gives_its_outputs_and_its_worst_unit():
    model, deployed = forms()
    with torch.no_grad():
        deployed[0].branch_reparam.weight.mul_(1.1)
        deployed.neck[0].weight.mul_(1.01)
    found = compare_models(forward, model, deployed, inputs('a', 'b'), 1, PAIRS)
    assert [(d.input, d.dtype, d.output) for d in found] == [
        (name, 'float64', output) for name in 'ab' for output in ('output 0', '0')
    ]
    with pytest.raises(
        ProofError, match=r'of the scale of (output )?0 on a in float64 \(allowed: 0\.01\)'
    ):
        compare_models(forward, model, deployed, inputs('a'), 0.01, PAIRS)


def test_a_difference_as_large_as_the_tolerance_passes():
    model, deployed = forms(torch.float32)
    given = inputs()
    worst = max(d.relative for d in compare_models(forward, model, deployed, given, 1, PAIRS))
    assert 0 < worst < 1e-5
    compare_models(forward, model, deployed, given, worst, PAIRS)
    with pytest.raises(ProofError):
        compare_models(forward, model, deployed, given, worst * 0.99, PAIRS)
    with torch.no_grad():
        deployed[0].branch_reparam.bias[0] = math.nan
    with pytest.raises(ProofError):
        compare_models(forward, model, deployed, given, 1, PAIRS)


@pytest.mark.parametrize(
    ('expected', 'got', 'error', 'message'),
    [
        ([], [], ProofError, 'outputs of different shapes on x'),
        ([torch.ones(2)], [torch.ones(1)], ProofError, 'outputs of different shapes on x'),
        ([torch.ones(2)], [], ProofError, 'outputs of different shapes on x'),
        ([torch.ones(1), torch.tensor([1, math.inf])], [], InputError, 'not finite on x in .*float32'),
    ],
)  # fmt: skip
def test_outputs_that_cannot_be_compared(expected, got, error, message):
    with pytest.raises(error, match=message):
        list(prove._outputs('x', expected, got))


def test_outputs_without_numbers_are_counted_but_not_compared():
    first = [torch.ones(2), torch.ones(0), torch.full((2,), 1e-9)]
    second = [torch.ones(2), torch.ones(0), torch.full((2,), 2e-9)]
    outputs = list(prove._outputs('x', first, second))
    assert [output[0] for output in outputs] == ['output 0', 'output 2']
    # A small output is compared by the scale of all.
    assert outputs[1][2] == pytest.approx(1e-6, rel=1e-3)


def test_state_of_the_deploy_form_leaves_the_model_as_it_is():
    model = small(nn.Identity(), nn.BatchNorm2d(4))
    model.neck.add_module('10', nn.BatchNorm2d(4).double().eval())  # not the folded 'neck.1'
    before = copy.deepcopy(model.state_dict())
    state = deploy_state(model, PAIRS)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    norms = {key.rpartition('.')[0] for key in state if 'running_mean' in key}
    assert norms == {'neck.3', 'neck.10'}
    assert '0.branch_reparam.weight' in state


class Wrong(nn.Sequential):
    """Uses a part of the output before the BN."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self[1](self[0](x)) + 1e-6 * self[0](x)


class Broken(nn.Sequential):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError('two\nlines')


class Keyed(nn.Sequential):
    """Cannot run by itself."""

    def forward(self, x: torch.Tensor, key: str) -> torch.Tensor:
        return super().forward(x)


@pytest.mark.parametrize(
    ('kind', 'reached', 'reason'),
    [
        (Keyed, True, None),
        (nn.Sequential, True, None),
        (nn.Sequential, False, None),
        (Wrong, True, 'does not act directly on the output of its layer'),
        (Wrong, False, 'does not act directly on the output of its layer'),
        (Broken, False, r'is not run by the proof, nor by itself (RuntimeError: two lines)'),
    ],
)
def test_folds_that_fail_on_data(kind, reached, reason):
    model = nn.ModuleDict(dict(neck=kind(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)), good=small().neck))
    model = randomize_(model).double().eval()
    pairs = [*PAIRS, ConvNorm('good', 'good.0', 'good.1')]

    def run(model, x):
        arguments = (x, 'key') if kind is Keyed else (x,)
        return model.good(model.neck(*arguments) if reached else x)

    x = torch.rand(2, 4, 6, 5).double()
    found = failing_folds(run, model, pairs, x)
    assert found.keys() == ({'neck.1'} if reason else set())
    assert found.get('neck.1', '').split() == (reason or '').split()


def test_no_folds_need_no_run_and_the_limit_is_allowed(monkeypatch):
    assert failing_folds(pytest.fail, small(), [], torch.rand(1)) == {}
    limit = nullcontext({'neck': (1.0, prove.FLOAT64_TOLERANCE)})
    monkeypatch.setattr(prove, 'unit_differences', lambda *_: limit)
    assert failing_folds(forward, small(), PAIRS, torch.rand(1, 3, 4, 4).double()) == {}


class Seen(nn.Module):
    """Takes what its last layer takes, and keeps it."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.inputs: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.inputs.append(x)
        return self.layers[-1](x)


@pytest.mark.parametrize(
    ('layers', 'shape'),
    [
        ([nn.Conv2d(6, 4, (3, 5), dilation=2)], (2, 6, 8, 12)),
        ([nn.Conv1d(6, 4, 1)], (2, 6, 4)),
        ([nn.Linear(5, 3)], (2, 5)),
        ([nn.Conv2d(2, 4, 1), nn.Linear(7, 3)], (2, 7)),
    ],
)
def test_input_of_a_unit_by_itself(layers, shape):
    unit = Seen(*layers).double()
    other = copy.deepcopy(unit)
    assert _run_alone(unit, other) == _run_alone(unit, other) == (0, 0)
    x = unit.inputs[-1]
    assert (tuple(x.shape), x.dtype) == (shape, torch.float64)
    assert torch.equal(x, unit.inputs[-1 - len(layers)])
    with torch.no_grad():
        other.layers[-1].weight.mul_(1.01)
    assert 1e-3 < _run_alone(unit, other)[1] < 0.1


def test_a_unit_that_cannot_run_by_itself():
    with pytest.raises(ValueError, match='it has no layer'):
        _run_alone(nn.ReLU(), nn.ReLU())
    with pytest.raises(RuntimeError, match='two'):
        _run_alone(Broken(nn.Linear(3, 3)), nn.Identity())
