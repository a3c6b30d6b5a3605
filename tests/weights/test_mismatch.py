"""Differences of a file and a model, by hand: which line says what differs."""

import re

import pytest
import torch

from mobileone_mm.weights.mismatch import Differences, mismatch, number_problem, value_problem


def dims(**shapes) -> dict[str, torch.Tensor]:
    return {key: torch.zeros(shape) for key, shape in shapes.items()}


STEM = {'stage0.branch_conv_list.0.conv.weight': (7, 3, 3, 3)}
# The last unit counts, whatever the order of the keys, and only its kernels of a branch.
UNITS = {
    **STEM,
    'stage1.1.branch_reparam.weight': (4, 9, 1, 1),
    'stage1.0.branch_reparam.weight': (9, 1, 3, 3),
    'stage1.1.se.conv2.conv.weight': (8, 2, 1, 1),
    'stage2.1.branch_conv_list.0.conv.weight': (5, 4, 1, 1),
    'stage2.3.branch_conv_list.0.conv.weight': (5,),
}
BN = 'stage1.0.branch_norm.weight'
SIZE = r'of another size: units or branches differ \(stage1'
A, B, C = {'a': 1}, {'b.w': 1}, {'c.w': 1}


@pytest.mark.parametrize(
    ('target', 'state', 'said'),
    [
        ({**A, 'n.num_batches_tracked': ()}, A, None),
        (A, {**A, **B}, r'fit the model: it has 1 keys that the model lacks \(b.w\); another task'),
        ({**A, **B, **C}, A, r'it lacks 2 keys \(b.w, c.w\); another'),
        ({**B, 'b.x': 1, **C}, B, r'^is incomplete: it lacks b.x$'),
        ({**A, **B}, {**A, **C}, r'lacks 1 keys \(b.w\) and has 1 keys that the model lacks \(c.w\)'),
        (A, B, r'no key in common .*its keys: b.w; the model.s: a\); another model or task\?'),
        (A, {f'{p}.{key}': v for p in 'zx' for key, v in STEM.items()}, "with prefix='x.'"),
        (A, dict(a=2), r"other shapes: 'a' is \[2\], the model's \[1\]; another number"),
        (dict(a=1, b=1, c=1), dict(a=2, b=2, c=3), r'model.s \[1\] \(and 2 more\); another number'),
        ({**A, **UNITS}, {**A, **STEM}, SIZE),
        (STEM, dict(a=1), r'no MobileOne \(its keys: a\)'),
        (UNITS, {**UNITS, BN: 1, 'b': 1}, r'is with the branches of use_identity, the model without'),
        ({**UNITS, BN: 1}, UNITS, 'is without the branches of use_identity, .*model with; see that'),
        ({**UNITS, BN.replace('norm', 'scale.norm'): 1}, UNITS, 'without the branches of use_scale'),
        (UNITS, {**UNITS, 'stage1.0.se.x': 1}, r'with squeeze-and-excitation, .*out; see the arg'),
        (UNITS, {**UNITS, 'stage1.0.se.x': 1, BN: 1}, SIZE),
        ({**UNITS, BN: 1}, {**UNITS, BN: 2}, f"backbone: '{BN}' is .*in_channels"),
        (UNITS, {**UNITS, 'stage1.1.branch_reparam.weight': (6, 9, 1, 1)},
         "its stages are 7/6/5 channels wide, the model's 7/4/5; set the arch"),
        ({BN: 1}, {BN: 2, **STEM}, "are 7 channels wide, the model's unknown"),
    ],
)  # fmt: skip
def test_the_reason(target, state, said):
    line = mismatch(Differences(dims(**target), dims(**state)), allow_other=False)
    assert line == said or re.search(said, line)


def test_other_keys_may_be_allowed_but_no_units():
    for key, fits in (('b', True), ('stage1.0.x', False)):
        found = Differences(dims(**STEM), dims(**STEM, **{key: 1}))
        assert (mismatch(found, allow_other=True) is None) == fits
    assert 'lacks 1 keys' in mismatch(Differences(dims(**A, **B), dims(**A)), allow_other=True)


@pytest.mark.parametrize(
    ('key', 'value', 'dtype', 'said'),
    [
        ('a', torch.tensor([1.0]), torch.float32, None),
        ('a', torch.tensor([1]), torch.int64, None),
        ('a', torch.tensor([1e30]), torch.int64, None),
        ('a', torch.tensor([1]), torch.float32, "'a' holds torch.int64 where floating"),
        ('a', torch.tensor([1j]), torch.int64, 'holds torch.complex64'),
        ('a', torch.tensor([1, torch.nan]), torch.int64, 'NaN or Inf'),
        ('a', torch.tensor([1, -torch.inf]), torch.float32, 'NaN or Inf'),
        ('a', torch.tensor([1, 1e6]), torch.float16, 'beyond the range of torch.float16'),
        ('a.running_var', torch.tensor([0.0, 1]), torch.float32, None),
        ('a.running_var', torch.tensor([1, -1e-9]), torch.float32, 'negative variance'),
        ('a.running_mean', torch.tensor([-1.0]), torch.float32, None),
    ],
)
def test_numbers(key, value, dtype, said):
    line = number_problem(key, value, dtype)
    assert line == said or said in line
    target = {'first': torch.ones(1), key: torch.ones(1, dtype=dtype)}
    assert value_problem(target, {'first': torch.ones(1), key: value, 'x': value * 1j}) == line
    assert value_problem(target, {'first': torch.ones(1)}) is None
