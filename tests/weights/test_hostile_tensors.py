"""Names that are no names, tensors that no model takes; what runs save besides is still read."""

from __future__ import annotations

import pytest
import torch
import torch.utils.collect_env

from mobileone_mm.errors import InputError
from mobileone_mm.weights.reading import read_checkpoint
from mobileone_mm.weights.unwrap import read_weights

STATE = {'stage0.branch_reparam.weight': torch.arange(4.0), 'head.fc.bias': torch.ones(2)}

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize('key', [3, None, b'w', 'a\nb', '\x1b[31mred', 'x' * 5000, '\u202egnp'])
def test_names_that_are_no_names(key):
    for state in ({key: torch.ones(1)}, {'state_dict': {'w': torch.ones(1), key: torch.ones(1)}}):
        with pytest.raises(InputError, match='no name of a layer') as caught:
            read_weights(state).state
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    'make',
    [
        lambda: torch.ones(2).to_sparse(),
        lambda: torch.ones(2, device='meta'),
        lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.quint8),
        lambda: torch.ones(2).to(torch.float8_e4m3fn),
        lambda: torch.ones(2, dtype=torch.uint16),
    ],
)
def test_tensors_that_no_model_takes(make):
    with pytest.raises(InputError, match='no model here can take'):
        read_weights({'head.fc.bias': make()}).state


def test_attributes_of_tensors_are_left_behind():
    value = torch.nn.Parameter(torch.ones(2))
    value.isfinite = value.clone = None
    weights = read_weights({'w': value}).state
    assert weights['w'].clone().tolist() == [1, 1]
    assert not weights['w'].requires_grad


def test_weights_only_of_an_optimizer_or_a_scheduler(tmp_path):
    """What runs save beside the weights is still read: counters, sets, complex numbers, sizes."""
    from collections import Counter, OrderedDict

    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5])
    content = {
        'state_dict': OrderedDict(model.state_dict()),
        'optimizer': optimizer.state_dict(),
        'schedule': schedule.state_dict(),
        'things': [Counter([1, 1]), {1, 'x'}, 1j, torch.Size([2]), torch.float16, b'ab', 2**70],
        'parameter': torch.nn.Parameter(torch.ones(1)),
        'half': torch.ones(2, dtype=torch.bfloat16),
        'shared': [model.weight.detach(), model.weight.detach()[:1]],
    }  # fmt: skip
    for legacy in (True, False):
        path = tmp_path / 'a.pth'
        if not legacy:  # torch's older format does not know it
            content['new type'] = torch.ones(2, dtype=torch.uint16)
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
        read = read_checkpoint(path)
        assert read['things'] == content['things']
        assert read['schedule']['milestones'] == Counter([3, 5])
        assert torch.equal(read['shared'][1], content['shared'][1])
        assert read['optimizer']['param_groups'] == content['optimizer']['param_groups']
        assert read_weights(read).state.keys() == {'weight', 'bias'}
