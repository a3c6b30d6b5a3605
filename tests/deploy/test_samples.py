"""Inputs for the proof: sizes from test pipelines, structured noise, images."""

import pytest
import torch
from mmengine.config import Config
from PIL import Image
from torch import nn

from mobileone_mm.deploy.samples import (
    image_inputs,
    pipeline_size,
    proof_inputs,
    second_sizes,
    structured_input,
)
from mobileone_mm.errors import InputError
from mobileone_mm.models import MobileOneBlock

SQUARE = dict(type='Resize', scale=(416, 416), keep_ratio=True)


def config(*steps: dict) -> Config:
    loader = dict(dataset=dict(pipeline=list(steps)))
    return Config(dict(default_scope='mmpretrain', test_dataloader=loader))


@pytest.mark.parametrize(
    ('steps', 'size'),
    [
        ([dict(type='Resize', scale=(320, 256), keep_ratio=False)], (256, 320)),
        ([dict(type='mmdet.Resize', scale=(320, 320))], (320, 320)),
        ([dict(type='ResizeEdge', scale=256), dict(type='CenterCrop', crop_size=224)], (224, 224)),
        ([dict(type='ResizeEdge', scale=240)], (240, 320)),
        ([dict(type='Resize', scale=(1333, 800), keep_ratio=True)], (800, 1067)),
        ([dict(type='Resize', scale=(2048, 512), keep_ratio=True)], (512, 683)),
        ([SQUARE, dict(type='Pad', pad_to_square=1)], (416, 416)),
        ([SQUARE, dict(type='Pad', size_divisor=32)], (320, 416)),
        ([dict(SQUARE, scale=(320, 320)), dict(type='Pad', size=(352, 320))], (320, 352)),
        ([dict(type='LoadImageFromFile')], (224, 224)),
        ([], (224, 224)),
    ],
)
def test_size_of_pipelines(steps, size):
    assert pipeline_size(config(*steps)) == size


def test_size_of_wrapped_datasets_and_missing_parts():
    inner = dict(pipeline=[dict(type='CenterCrop', crop_size=64), dict(type='NoSuchTransform')])
    for dataset in (dict(dataset=inner), dict(datasets=[inner, {}])):
        cfg = dict(default_scope='mmpretrain', val_dataloader=dict(dataset=dataset))
        assert pipeline_size(Config(cfg)) == (64, 64)
    assert pipeline_size(Config(dict(test_dataloader=dict(dataset=dict(type='X'))))) == (224, 224)
    assert pipeline_size(Config({})) == (224, 224)


@pytest.mark.parametrize(
    ('size', 'others'),
    [
        ((224, 224), [(192, 128), (224, 288)]),
        ((32, 32), [(32, 64), (32, 64)]),
        ((64, 96), [(64, 128), (64, 128)]),
        ((512, 683), [(384, 352), (512, 864)]),
    ],
)
def test_second_sizes_are_others_and_not_square(size, others):
    assert list(second_sizes(size)) == others


def test_structured_input_is_normalised_and_repeats():
    first = structured_input((64, 96), channels=4)
    assert first.shape == (1, 4, 64, 96)
    assert abs(float(first.mean())) < 1e-5
    assert float(first.std()) == pytest.approx(1, abs=1e-3)
    assert torch.equal(first, structured_input((64, 96), channels=4))
    # Neighbours are alike, unlike in white noise.
    assert float((first[..., 1:] - first[..., :-1]).std()) < 0.9


class Model(nn.Module):
    def data_preprocessor(self, data, training):
        assert not training
        return dict(inputs=torch.stack([x.float() for x in data['inputs']]))


def test_images_come_as_bgr_at_the_test_size(tmp_path):
    Image.new('RGB', (50, 30), (255, 0, 10)).save(tmp_path / 'red.png')
    ((name, tensor),) = image_inputs(Model(), [tmp_path / 'red.png'], (32, 64))
    assert name == 'red.png'
    assert tensor.shape == (1, 3, 32, 64)
    assert tensor[0, :, 0, 0].tolist() == [10.0, 0.0, 255.0]


def test_broken_images(tmp_path):
    (tmp_path / 'a.png').write_bytes(b'\x89PNG\r\n\x1a\nbroken')
    with pytest.raises(InputError, match=r"^images: .*a\.png' is not an image"):
        list(image_inputs(Model(), [tmp_path / 'a.png'], (8, 8)))
    with pytest.raises(InputError, match=r"^images: .*b\.png' cannot be read: No such"):
        list(image_inputs(Model(), [tmp_path / 'b.png'], (8, 8)))


@pytest.mark.parametrize(
    ('divisor', 'sizes'), [(None, [(33, 45), (32, 64)]), (32, [(64, 64), (64, 32)])]
)
def test_sizes_are_what_the_preprocessor_makes(divisor, sizes):
    model = nn.Sequential(MobileOneBlock(3, 8, 3)).eval()
    if divisor:
        model.data_preprocessor = nn.Module()
        model.data_preprocessor.pad_size_divisor = divisor
    resize = config(dict(type='Resize', scale=(45, 33), keep_ratio=False))
    found = proof_inputs(resize, lambda model, x: model[0](x), model, [], torch.device('cpu'))
    assert [tuple(tensor.shape[2:]) for _, tensor in found] == sizes
    assert [name for name, _ in found] == [f'random input of {h} x {w}' for h, w in sizes]


def test_images_with_other_channels_are_refused(tmp_path):
    Image.new('RGB', (8, 8)).save(tmp_path / 'a.png')
    model = nn.Sequential(MobileOneBlock(1, 8, 3)).eval()
    vars(model)['data_preprocessor'] = Model().data_preprocessor
    given = config(), lambda model, x: model[0](x), model, [tmp_path / 'a.png'], torch.device('cpu')
    with pytest.raises(InputError, match=r"'a\.png' has 3 channels .*, but the model takes 1;"):
        proof_inputs(*given)


@pytest.mark.parametrize(('smallest', 'second'), [(0, (192, 128)), (224, (224, 288)), (230, None)])
def test_a_size_that_the_model_does_not_take(smallest, second):
    """The test size must run; the second is the first of the others that does, if one does."""

    def forward(model, x):
        if x.shape[-1] < smallest:
            raise RuntimeError('too\nsmall')

    model = nn.Sequential(MobileOneBlock(3, 8, 3))
    given = config(), forward, model, [], torch.device('cpu')
    if second:
        assert [tuple(x.shape[2:]) for _, x in proof_inputs(*given)] == [(224, 224), second]
    else:
        with pytest.raises(InputError, match=r'random input of 224 x 224, .*RuntimeError: too'):
            proof_inputs(*given)
