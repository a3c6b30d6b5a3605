"""Ways from a JPEG's bytes to the training crop: which keep the result, and what each costs.

    OMP_NUM_THREADS=1 pytest -s -m slow tests/data/test_image_pipelines.py

prints the tables of docs/data.md. It needs real images; decoders that are not installed are left
out.
"""

import copy
import io
from functools import partial
from importlib.util import find_spec
from statistics import median

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import Compose
from mmengine.registry import TRANSFORMS
from PIL import Image
from torch.nn import functional as F

from mobileone_mm.benchmark.timer import interleaved
from mobileone_mm.data.augmentations import RandomResizedCrop, faster
from mobileone_mm.data.loading import LoadImage

pytestmark = pytest.mark.slow
SIZE = (224, 224)
ROUNDS = 9


@pytest.fixture(scope='module', autouse=True)
def one_thread():
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield
    cv2.setNumThreads(before)


@pytest.fixture(scope='module', params=[1, 2], ids=['as they are', 'twice as large'])
def jpegs(request, real_data):
    """160 images, short side 256 or less; or enlarged (bicubic) and written again, quality 90."""
    found = []
    for path in sorted((real_data / 'imagenet' / 'val').glob('*/*.JPEG'))[::4]:
        content = path.read_bytes()
        if request.param != 1:
            image = Image.open(io.BytesIO(content)).convert('RGB')
            size = [side * request.param for side in image.size]
            stream = io.BytesIO()
            image.resize(size, Image.Resampling.BICUBIC).save(stream, 'JPEG', quality=90)
            content = stream.getvalue()
        found.append(content)
    return found


def decoders():
    """Return decoders to height x width x BGR."""

    def pillow(content):
        return np.asarray(Image.open(io.BytesIO(content)).convert('RGB'))[..., ::-1]

    found = {'this project (cv2)': partial(LoadImage().decode, path='a.jpg'), 'Pillow': pillow}
    if find_spec('simplejpeg'):
        from simplejpeg import decode_jpeg

        for name, fast in (('simplejpeg', False), ('simplejpeg, fast', True)):
            found[name] = partial(decode_jpeg, colorspace='BGR', fastdct=fast, fastupsample=fast)
    if find_spec('kornia_rs'):
        from kornia_rs.io import decode_image_jpegturbo as turbo

        found['kornia-rs, turbo'] = lambda content: turbo(content, 'rgb')[..., ::-1]
    if find_spec('imagecodecs'):
        from imagecodecs import jpeg8_decode

        found['imagecodecs'] = lambda content: jpeg8_decode(content)[..., ::-1]
    return found


def compare(ways, inputs, reference):
    """Equal images, greatest difference, and time against the reference, by way."""
    expected = [ways[reference](item).astype(int) for item in inputs]
    runs = {name: lambda way=way: [way(item) for item in inputs] for name, way in ways.items()}
    times = interleaved(runs, ROUNDS)
    rows = {}
    print(f'\n| way | equal of {len(inputs)} | greatest difference | time |')
    for name, way in ways.items():
        off = [np.abs(way(item) - want).max() for item, want in zip(inputs, expected, strict=True)]
        ratio = median(a / b for a, b in zip(times[name], times[reference], strict=True))
        rows[name] = off.count(0), max(off), ratio
        print(f'| {name} | {off.count(0)} | {max(off)} | {ratio:.2f} |')
    return rows


def test_decoding(jpegs):
    rows = compare(decoders(), jpegs, 'this project (cv2)')
    for name, (equal, *_, ratio) in rows.items():
        assert (equal == len(jpegs)) == ('fast' not in name), name
        # Were this to fail, that decoder would be worth a dependency.
        assert 'fast' in name or ratio > 0.75, name


def crops(jpegs):
    np.random.seed(0)
    draw = RandomResizedCrop(scale=224, backend='pillow')
    images = [LoadImage().decode(content, 'a.jpg') for content in jpegs]
    return [(image, draw.rand_crop_params(image)) for image in images]


def cut(item):
    image, (top, left, height, width) = item
    return image[top : top + height, left : left + width]


def with_box(item):
    image, (top, left, height, width) = item
    box = (left, top, left + width, top + height)
    return np.asarray(Image.fromarray(image).resize(SIZE, Image.Resampling.BILINEAR, box=box))


def with_torch(item, convert=lambda tensor: tensor):
    tensor = convert(torch.from_numpy(cut(item)).permute(2, 0, 1)[None])
    small = F.interpolate(tensor, SIZE, mode='bilinear', antialias=True, align_corners=False)
    small = small if small.dtype == torch.uint8 else small.round().clamp(0, 255).byte()
    return small[0].permute(1, 2, 0).numpy()


def pillow(view, **options):
    return np.asarray(Image.fromarray(view).resize(SIZE, Image.Resampling.BILINEAR, **options))


RESIZES = {
    'mmpretrain (Pillow, crop as a view)': lambda item: pillow(cut(item)),
    'this project (Pillow, crop copied first)': lambda item: pillow(cut(item).copy()),
    'Pillow, reducing_gap=2': lambda item: pillow(cut(item).copy(), reducing_gap=2.0),
    'Pillow, box= of the whole image': with_box,
    'torch, antialias, 8 bits': with_torch,
    'torch, antialias, float': lambda item: with_torch(item, torch.Tensor.float),
    'OpenCV, INTER_LINEAR': lambda item: cv2.resize(cut(item), SIZE),
    'OpenCV, INTER_AREA': lambda item: cv2.resize(cut(item), SIZE, interpolation=cv2.INTER_AREA),
}
KEEP = ('mmpretrain', 'this project', 'Pillow, reducing_gap')


def test_crop_and_resize(jpegs):
    """Ours has the host's pixels; what is faster still has others."""
    inputs = crops(jpegs)
    rows = compare(RESIZES, inputs, 'mmpretrain (Pillow, crop as a view)')
    for name, (equal, *_) in rows.items():
        assert (equal == len(inputs)) == name.startswith(KEEP), name
    assert rows['this project (Pillow, crop copied first)'][-1] < 0.8
    assert rows['torch, antialias, 8 bits'][1] <= 2


AUGMENTATIONS = {
    'AutoAugment': dict(policies='imagenet', hparams=dict(pad_val=128)),
    'RandAugment': dict(policies='timm_increasing', num_policies=2, magnitude_level=9),
    'Equalize': dict(prob=1.0),
    'AutoContrast': dict(prob=1.0),
    'Contrast': dict(prob=1.0, magnitude=0.8),
    'Brightness': dict(prob=1.0, magnitude=0.8),
    'Solarize': dict(prob=1.0, thr=256 / 9 * 4),
    'SolarizeAdd': dict(prob=1.0, magnitude=60),
}


@pytest.mark.parametrize('kind', AUGMENTATIONS)
def test_augmentations(kind, jpegs):
    theirs = TRANSFORMS.build(dict(type=f'mmpretrain.{kind}', **AUGMENTATIONS[kind]))
    ours = faster(copy.deepcopy(theirs))

    def run(transform, item):
        np.random.seed(item[0])
        return transform(dict(img=item[1]))['img']

    inputs = list(enumerate(map(RESIZES['this project (Pillow, crop copied first)'], crops(jpegs))))
    ways = {'mmpretrain': partial(run, theirs), 'this project': partial(run, ours)}
    print(f'\n{kind}')
    equal, _, ratio = compare(ways, inputs, 'mmpretrain')['this project']
    assert equal == len(inputs)
    assert ratio < 0.7


def test_training_pipeline(jpegs, tmp_path):
    ways = {}
    for scope in ('mmpretrain', 'mobileone_mm'):
        pipeline = Compose([
            dict(type='mobileone_mm.LoadImage'),
            dict(type=f'{scope}.RandomResizedCrop', scale=224, backend='pillow'),
            dict(type='mmpretrain.RandomFlip', prob=0.5),
            dict(type='mmpretrain.PackInputs'),
        ])  # fmt: skip

        def run(path, pipeline=pipeline):
            np.random.seed(int(path.stem))
            return pipeline(dict(img_path=str(path), gt_label=0))['inputs'].numpy()

        ways[f'crop of {scope}'] = run
    paths = [tmp_path / f'{number}.jpg' for number in range(len(jpegs))]
    for path, content in zip(paths, jpegs, strict=True):
        path.write_bytes(content)
    rows = compare(ways, paths, 'crop of mmpretrain')
    assert rows['crop of mobileone_mm'][0] == len(jpegs)
    assert rows['crop of mobileone_mm'][-1] < 0.9
