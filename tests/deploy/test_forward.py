"""The raw outputs of small models that have the methods of the hosts'."""

import torch
from torch import nn

from mobileone_mm.deploy.forward import RawForward


class OneStage(nn.Module):
    def forward(self, inputs, samples, mode):
        assert mode == 'tensor'
        self.samples = samples
        return [inputs, (inputs > 0, {'a': inputs + 1})]


def test_each_sample_has_the_size_of_the_inputs():
    model, x = OneStage(), torch.rand(2, 3, 4, 5)
    first, second = RawForward(model)(model, x)
    assert torch.equal(first, x)
    assert torch.equal(second, x + 1)
    names = ('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape')
    expected = {**dict.fromkeys(names, (4, 5)), 'scale_factor': (1.0, 1.0)}
    assert [sample.metainfo for sample in model.samples] == [expected] * 2


def test_models_without_that_mode_give_their_features():
    class Features(nn.Module):
        def forward(self, *args, **kwargs):
            raise NotImplementedError

        def extract_feat(self, inputs):
            return (inputs * 2,)

    x = torch.rand(1, 3, 4, 5)
    assert torch.equal(RawForward(Features())(Features(), x)[0], x * 2)
