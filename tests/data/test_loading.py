"""LoadImage: what it reads is what mmcv reads, and what it cannot read is named."""

import io

import mmcv
import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from mmengine.registry import TRANSFORMS
from PIL import Image

from mobileone_mm.data import loading
from mobileone_mm.errors import InputError

PREVIEW = {'exif': b'Exif\0\0' + b'\xff\xd8\xff\xd9' * 40}


@pytest.fixture(autouse=True)
def said(monkeypatch):
    """The messages about files; none is forgotten, or left, by another test."""
    lines = []
    monkeypatch.setattr(loading, 'print_log', lambda text, **_: lines.append(text))
    loading.reported_files(reset=True)
    yield lines
    loading.reported_files(reset=True)


@pytest.fixture
def image():
    noise = np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((160, 120))


def encoded(image, kind, **options):
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def load(path, content, **options):
    path.write_bytes(content)
    transform = TRANSFORMS.build(dict(type='mobileone_mm.LoadImage', **options))
    return transform(dict(img_path=str(path)))


@pytest.mark.parametrize(
    ('kind', 'saving', 'options'),
    [('JPEG', {}, {}), ('JPEG', {'progressive': True}, {}), ('JPEG', PREVIEW, {}), ('PNG', {}, {}),
     ('BMP', {}, {}), ('WEBP', {}, {}), ('JPEG', {}, {'to_float32': True}),
     ('JPEG', {}, {'color_type': 'grayscale'})],
)  # fmt: skip
def test_same_as_mmcv(kind, saving, options, image, tmp_path):
    content = encoded(image, kind, **saving)
    ours = load(tmp_path / 'image', content, on_error='raise', **options)
    theirs = LoadImageFromFile(**options)(dict(img_path=str(tmp_path / 'image')))
    assert ours.keys() == theirs.keys()
    assert ours['img'].dtype == theirs['img'].dtype
    assert np.array_equal(ours['img'], theirs['img'])
    assert ours['ori_shape'] == theirs['ori_shape'] == (120, 160)


@pytest.mark.parametrize('tail', [b'\0' * 50_000, b'\xff\xd9', b'movie' * 20_000])
def test_data_after_the_end_is_no_damage(tail, image, tmp_path):
    """Cameras append films and maps to their JPEGs."""
    content = encoded(image, 'JPEG')
    whole = load(tmp_path / 'a', content, on_error='raise')['img']
    assert np.array_equal(load(tmp_path / 'b', content + tail, on_error='raise')['img'], whole)


def damaged(image):
    whole = encoded(image, 'JPEG')
    preview = encoded(image, 'JPEG', **PREVIEW)
    png = encoded(image, 'PNG')
    return {
        'empty': b'',
        'text': b'no image at all',
        'head only': whole[:200],
        'half': whole[: len(whole) // 2],
        'last tenth missing': whole[: len(whole) * 9 // 10],
        'truncated after its preview': preview[: len(preview) * 2 // 3],
        'half of a PNG': png[: len(png) // 2],
    }


@pytest.mark.parametrize('notices', [True, False], ids=['this OpenCV', 'one that fills up'])
@pytest.mark.parametrize('name', list(damaged(Image.new('RGB', (64, 64)))))
def test_damage_is_named(name, notices, image, tmp_path, monkeypatch):
    if not notices:
        monkeypatch.setattr(loading, 'opencv_rejects_truncated', lambda: False)
    with pytest.raises(InputError, match=r'broken\.jpg') as caught:
        load(tmp_path / 'broken.jpg', damaged(image)[name], on_error='raise')
    assert '\n' not in str(caught.value)


def test_opencv_that_fills_up(image, tmp_path, monkeypatch):
    """Some versions return what there is of a cut JPEG, with the rest grey."""
    content = encoded(image, 'JPEG')
    whole = load(tmp_path / 'a', content)['img']
    monkeypatch.setattr(loading, 'opencv_rejects_truncated', lambda: False)
    monkeypatch.setattr(mmcv, 'imfrombytes', lambda *_, **__: whole)
    assert load(tmp_path / 'b', content[: len(content) // 2]) is None
    assert load(tmp_path / 'c', content) is not None


def test_missing_file_and_option(tmp_path):
    with pytest.raises(InputError, match=r'gone\.jpg.*No such file'):
        loading.LoadImage(on_error='raise')(dict(img_path=str(tmp_path / 'gone.jpg')))
    with pytest.raises(ValueError, match="'ignore'; expected one of skip, blank, raise"):
        loading.LoadImage(on_error='ignore')


def test_skipped_and_reported_once(tmp_path, said):
    for _ in range(3):
        for name in ('a.jpg', 'b.jpg'):
            assert load(tmp_path / name, b'x') is None
    assert len(said) == 2
    assert 'a.jpg' in said[0]
    assert 'b.jpg' in said[1]
    assert loading.reported_files() == 2


def test_many_reports(said):
    for number in [*range(500), *range(500)]:
        loading.report_file(f'{number}.jpg', f'{number}')
    assert said == [f'{number}' for number in range(500)]


@pytest.mark.parametrize(
    ('extra', 'size'),
    [(dict(height=30, width=50), (30, 50)), ('mask', (20, 40)), ('header', (120, 160)),
     ('nothing', (256, 256))],
)  # fmt: skip
def test_blank_has_the_annotated_size(extra, size, image, tmp_path):
    """Boxes and masks of the annotation fit the gray image and count as missed."""
    path = tmp_path / 'broken.jpg'
    content = encoded(image, 'JPEG')
    path.write_bytes(b'x' if extra == 'nothing' else content[: len(content) // 2])
    results = dict(img_path=str(path), **(extra if isinstance(extra, dict) else {}))
    if extra == 'mask':
        Image.new('L', (40, 20)).save(tmp_path / 'mask.png')
        results['seg_map_path'] = str(tmp_path / 'mask.png')
    loaded = loading.LoadImage(on_error='blank')(results)
    assert loaded['img'].shape == (*size, 3)
    assert loaded['ori_shape'] == loaded['img_shape'] == size
    assert len(np.unique(loaded['img'])) == 1
    gray = loading.LoadImage(on_error='blank', color_type='grayscale')(dict(results))
    assert gray['img'].shape == size
