"""Test the tools that the proofs of equality use."""

import copy
from contextlib import suppress
from math import inf, nan

import pytest
import torch
from torch import nn

from helpers import randomize_, same
from mobileone_mm.reparam.compare import (
    exact_arithmetic,
    fingerprint,
    greatest,
    max_difference,
    scale_floor,
    unit_difference,
    unit_differences,
    value_difference,
)


@pytest.mark.parametrize(
    ('first', 'second', 'floor', 'expected'),
    [
        ([1.0, -4.0], [1.0, -3.0], 0.0, (1.0, 0.25)),
        ([1.0, -4.0], [1.0, -3.0], 10.0, (1.0, 0.1)),
        ([1e-9], [3e-9], 1.0, (2e-9, 2e-9)),
        ([0.0], [0.0], 0.0, (0.0, 0.0)),
        ([nan], [nan], 0.0, (inf, inf)),
        ([1.0], [nan], 0.0, (inf, inf)),
        ([inf], [1.0], 0.0, (inf, inf)),
        ([inf], [inf], 0.0, (inf, inf)),
    ],
)
def test_max_difference(first, second, floor, expected):
    found = max_difference(torch.tensor(first), torch.tensor(second), floor)
    assert found == pytest.approx(expected)


def test_the_worst_pair_of_nested_outputs_counts():
    first = {'a': (torch.ones(2), [torch.full((3,), 100.0)]), 'b': torch.tensor([1])}
    second = {'a': (torch.ones(2) + 0.5, [torch.full((3,), 101.0)]), 'b': torch.tensor([9])}
    assert max_difference(first, second) == (1.0, 0.5)
    assert max_difference(torch.tensor([0.5]), torch.zeros(1)) == (0.5, 1.0)


@pytest.mark.parametrize(
    ('first', 'second'),
    [
        (torch.ones(2, 1), torch.ones(2, 3)),  # would broadcast
        (torch.ones(3), torch.ones(1, 3)),
        ([torch.ones(2)], [torch.ones(2), torch.ones(2)]),
        ([], []),
        ('a', 'a'),
        (torch.ones(2, dtype=torch.int64), torch.ones(2, dtype=torch.int64)),
        (torch.ones(0, 4), torch.ones(0, 4)),
    ],
)
def test_what_cannot_be_compared(first, second):
    with pytest.raises(ValueError, match='outputs: '):
        max_difference(first, second)


def test_an_empty_output_beside_others_is_equal():
    pair = [torch.ones(0, 4), torch.ones(2)]
    assert max_difference(pair, pair) == (0.0, 0.0)


def test_greatest_and_floor():
    assert greatest(torch.tensor([1.0, -5.0]), [torch.tensor([2.0])]) == 5
    assert greatest(torch.ones(0), ()) == 0
    assert greatest(torch.tensor([nan, 1.0]), torch.tensor([7.0])) == inf
    assert greatest(torch.tensor([7.0]), torch.tensor([nan])) == inf
    assert scale_floor((torch.tensor([2000.0]),)) == 2


def test_value_difference():
    assert value_difference(1.0, 0.5) == 0.5
    assert value_difference(nan, nan) == 0
    assert value_difference(nan, 1.0) == value_difference(1.0, nan) == inf


def test_randomize_changes_weights_and_statistics():
    model = nn.Sequential(nn.Conv2d(8, 16, 3), nn.SyncBatchNorm(16), nn.Linear(4, 4))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert randomize_(model, seed=1) is model
    changed = {
        key
        for key, value in model.state_dict().items()
        if not torch.isclose(value.double(), before[key].double()).any()
    }
    assert changed == set(before) - {'1.num_batches_tracked'}
    norm = model[1]
    assert norm.running_var.min() > 0.4
    assert norm.running_var.std() > 0.1
    assert norm.running_mean.std() > 0.1
    assert same(randomize_(copy.deepcopy(model), seed=1), model)
    assert not same(randomize_(copy.deepcopy(model), seed=2), model)


def test_runs_without_a_finite_output_are_left_out():
    net = nn.Sequential(nn.Identity())
    with unit_differences(net, {'0': nn.Hardtanh(-9, 9)}) as found:
        net(torch.tensor([inf, 0.0]))
        assert found == {}
        net(torch.tensor([12.0, 0.0]))
        net(torch.tensor([10.0, 0.0]))
    assert found == {'0': (3.0, 0.25)}


def test_units_take_keyword_arguments():
    class Unit(nn.Module):
        def forward(self, x, *, plus):
            return x.add_(plus)  # changes its input

    net = Unit()
    with unit_differences(nn.ModuleDict({'unit': net}), {'unit': Unit()}) as found:
        assert net(torch.zeros(2), plus=3).tolist() == [3, 3]
    assert found == {'unit': (0.0, 0.0)}


def test_outputs_that_cannot_be_compared_prove_nothing():
    x = torch.ones(2)
    assert unit_difference(x, x, torch.ones(2, 1)) == (inf, inf)
    assert unit_difference(x, 'text', 'text') == (inf, inf)
    assert unit_difference(1e6 * x, x, x + 1) == (1.0, 1e-3)  # the floor is a part of the input


def test_a_fingerprint_covers_names_types_shapes_and_values():
    def net(rows=3, columns=2, value=0.0):
        layer = nn.Linear(columns, rows, bias=False)
        nn.init.constant_(layer.weight, value)
        return layer

    nets = [net(), net(2, 3), nn.Sequential(net()), net().half(), net().bfloat16(), net(value=1.0)]
    assert len({fingerprint(each) for each in nets}) == len(nets)
    assert fingerprint(copy.deepcopy(nets[0])) == fingerprint(nets[0])


@pytest.mark.filterwarnings('ignore')  # newer torch has other names for the same switches
def test_exact_arithmetic_restores_the_switches():
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32
    try:
        for given in (True, False):
            cudnn.allow_tf32 = matmul.allow_tf32 = given
            with suppress(KeyError), exact_arithmetic():
                assert (cudnn.allow_tf32, matmul.allow_tf32) == (False, False)
                raise KeyError
            assert (cudnn.allow_tf32, matmul.allow_tf32) == (given, given)
    finally:
        cudnn.allow_tf32, matmul.allow_tf32 = before
