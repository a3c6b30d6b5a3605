"""Every reader turns an image by its EXIF orientation, whatever the format and the decoder."""

import io

import numpy as np
import pytest
from mmengine.dataset import Compose
from mmengine.registry import TRANSFORMS
from PIL import Image, ImageOps

from mobileone_mm.apis.predict import _batches
from mobileone_mm.data.exif import Header, read_header
from mobileone_mm.data.loading import LoadImage, read_image
from mobileone_mm.data.packed.write import Item, write_pack
from mobileone_mm.deploy.samples import image_inputs
from mobileone_mm.robustness.pipeline import SplitPipeline

ORIENTATIONS = range(1, 9)
SUFFIXES = ('.jpg', '.png', '.webp', '.tif', '.avif')
COLORS = ((200, 40, 40), (40, 200, 40), (40, 40, 200), (220, 220, 220))


@pytest.fixture
def stored():
    """Four areas of one color each: 48 x 32 pixels as stored."""
    blocks = np.array(COLORS, np.uint8).reshape(2, 2, 3)
    return Image.fromarray(blocks.repeat(16, 0).repeat(24, 1))


@pytest.fixture
def write(stored, tmp_path):
    """Save the image with an orientation; return the file and what every reader must see (RGB)."""

    def save(orientation, suffix='.jpg'):
        exif = Image.Exif()
        exif[274] = orientation
        path = tmp_path / f'{orientation}{suffix}'
        kind = Image.registered_extensions()[suffix]
        stored.save(path, kind, exif=exif, quality=95)
        plain = Image.Exif()
        plain[274] = orientation
        png = io.BytesIO()
        stored.save(png, 'PNG', exif=plain)
        return path, np.asarray(ImageOps.exif_transpose(Image.open(png)))

    return save


def same(found, expected):
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).mean() < 6
    return True


def packed(path):
    folder = path.with_name(f'{path.name}.pack')
    write_pack([Item(str(path), path.name)], folder)
    backend = dict(backend='mobileone_mm.packed', path=str(folder), root=str(path.parent))
    return LoadImage(backend_args=backend, on_error='raise')(dict(img_path=str(path)))['img']


def proof(path):
    class Preprocessor:
        def __call__(self, data, training):
            return {'inputs': data['inputs'][0][None]}

    class Model:
        data_preprocessor = Preprocessor()

    height, width = read_image(path).shape[:2]
    ((_, tensor),) = image_inputs(Model(), [path], (height, width))
    return tensor[0].permute(1, 2, 0).numpy()


def predicted(path):
    load = Compose([dict(type='mobileone_mm.LoadImage', on_error='raise')])
    ((item,),) = _batches([path], load, lambda r: {'inputs': r['img']}, 1, None)
    return item.image[..., ::-1]


READERS = {
    'blank': None,  # a file that ends early
    'drawings, browse and demo': lambda path: read_image(path)[..., ::-1],
    'packed': packed,
    'predict': predicted,
    'proof': proof,
    'robustness': lambda path: SplitPipeline([dict(type='mobileone_mm.LoadImage')]).read(
        dict(img_path=str(path))
    )['img'],
}


@pytest.mark.parametrize('orientation', ORIENTATIONS)
@pytest.mark.parametrize('reader', READERS)
def test_readers(reader, orientation, write):
    """Of a format that OpenCV turns, and of one that it does not."""
    for suffix in ('.jpg', '.webp'):
        path, expected = write(orientation, suffix)
        if READERS[reader] is not None:
            assert same(READERS[reader](path)[..., ::-1], expected)
        else:
            content = path.read_bytes()
            path.write_bytes(content[: len(content) - 60])
            image = LoadImage(on_error='blank')(dict(img_path=str(path)))['img']
            assert suffix == '.webp' or image.shape == expected.shape  # .webp: no header any more


@pytest.mark.parametrize('orientation', ORIENTATIONS)
@pytest.mark.parametrize('suffix', SUFFIXES)
def test_decoders(suffix, orientation, write):
    path, expected = write(orientation, suffix)
    assert read_header(path) == Header(*expected.shape[:2], orientation)
    for backend in ('cv2', 'pillow', None):
        for color_type in ('color', 'unchanged', 'grayscale'):
            kind = dict(type='mobileone_mm.LoadImage', on_error='raise')
            load = TRANSFORMS.build(dict(kind, color_type=color_type, imdecode_backend=backend))
            found = load(dict(img_path=str(path)))
            assert found['ori_shape'] == found['img'].shape[:2] == expected.shape[:2]
            if color_type == 'grayscale':
                found['img'] = np.stack([found['img']] * 3, -1)
                gray = np.asarray(Image.fromarray(expected).convert('L'))
                assert same(found['img'][..., 0], gray)
            else:
                assert same(found['img'][..., ::-1], expected)


def test_tifffile_and_turbojpeg(write, monkeypatch):
    """Decoders that never turn: one of them is not installed, so another one stands for it."""
    import mmcv

    pytest.importorskip('tifffile')
    path, expected = write(6, '.tif')
    load = LoadImage(on_error='raise', imdecode_backend='tifffile')
    assert same(load(dict(img_path=str(path)))['img'], expected)  # RGB: mmcv does not exchange
    path, expected = write(8)
    original = mmcv.imfrombytes

    def never_turns(content, flag, backend):
        assert backend == 'turbojpeg'
        return original(content, flag=f'{flag}_ignore_orientation', backend='cv2')

    monkeypatch.setattr(mmcv, 'imfrombytes', never_turns)
    load = LoadImage(on_error='raise', imdecode_backend='turbojpeg')
    assert same(load(dict(img_path=str(path)))['img'][..., ::-1], expected)


def test_orientation_that_the_user_ignores(write, stored):
    for suffix in ('.jpg', '.webp'):
        path, _ = write(6, suffix)
        load = LoadImage(on_error='raise', color_type='color_ignore_orientation')
        assert same(load(dict(img_path=str(path)))['img'][..., ::-1], np.asarray(stored))


def test_exif_behind_the_pixels(write):
    """Some programs append it to a PNG; Pillow alone would decode the image to find it."""
    path, expected = write(6, '.png')
    content = path.read_bytes()
    start = content.index(b'eXIf') - 4
    length = 12 + int.from_bytes(content[start : start + 4], 'big')
    chunk, rest = content[start : start + length], content[:start] + content[start + length :]
    path.write_bytes(rest[:-12] + chunk + rest[-12:])
    assert read_header(path) == Header(*expected.shape[:2], 6)
    for color_type in ('color', 'unchanged'):
        load = LoadImage(on_error='raise', color_type=color_type)
        assert same(load(dict(img_path=str(path)))['img'][..., ::-1], expected)


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('exif', [b'', b'Exif\0\0', b'Exif\0\0II*\0\x08\0\0\0\x01', b'junk'])
def test_damaged_exif_is_none(exif, stored, tmp_path):
    stored.save(tmp_path / 'a.jpg', exif=exif)
    assert read_header(tmp_path / 'a.jpg') == (32, 48, 1)
    for color_type in ('color', 'unchanged'):
        load = LoadImage(on_error='raise', color_type=color_type)
        assert load(dict(img_path=str(tmp_path / 'a.jpg')))['img'].shape == (32, 48, 3)


def test_orientation_out_of_range(write, stored):
    path, _ = write(9)
    assert read_header(path).orientation == 1
    assert read_image(path).shape == (32, 48, 3)
