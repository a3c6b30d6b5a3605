"""The size of an image against its annotation: before a run, and while loading."""

import json

import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image
from torch.utils.data import DataLoader

from helpers import write_files
from mobileone_mm.data import loading, sizes
from mobileone_mm.data.checks import image_sizes
from mobileone_mm.data.checks.image_sizes import check_sizes, sizes_of
from mobileone_mm.data.checks.loaders import check_data
from mobileone_mm.data.convert.coco_crops import cut_objects
from mobileone_mm.data.loading import LoadImage
from mobileone_mm.data.sizes import size_fault
from mobileone_mm.errors import InputError


@pytest.fixture(autouse=True)
def said(monkeypatch):
    """The messages; the counts of a run, which no other test sees."""
    lines = []
    for module in (loading, image_sizes):
        monkeypatch.setattr(module, 'print_log', lambda text, *_, **__: lines.append(text))

    loading.forget_files()
    yield lines
    loading.forget_files()


@pytest.fixture
def write(tmp_path):
    def save(name='a.jpg', size=(48, 32), orientation=1):
        exif = Image.Exif()
        exif[274] = orientation
        Image.new('RGB', size).save(tmp_path / name, exif=exif)
        return tmp_path / name

    return save


@pytest.mark.parametrize(
    ('annotated', 'found', 'orientation', 'said'),
    [
        ((90, 120), (90, 120), 1, None),
        ((90, 120), (91, 119), 1, None),
        ((90, 91), (91, 90), 6, None),
        ((90, 120), (120, 90), 6, 'height and width are exchanged: the EXIF orientation 6 turns'),
        ((90, 120), (120, 90), 3, 'the image was turned after the annotation, or they are in the'),
        ((90, 120), (45, 60), 1, 'the image was resized after the annotation, by 0.5'),
        ((427, 640), (214, 320), 1, 'resized after the annotation, by 0.501'),
        ((90, 90), (180, 180), 6, 'resized after the annotation, by 2'),
        (
            (90, 120),
            (60, 45),
            8,
            'the EXIF orientation 8 turns .*; the image was also resized, by 0.5',
        ),
        ((90, 120), (90, 122), 1, 'another image, or was cropped or padded'),
        ((90, 120), (333, 500), 6, 'another image, or was cropped or padded'),
    ],
)
def test_causes(annotated, found, orientation, said):
    fault = size_fault('x/a.jpg', annotated, found, orientation)
    if said is None:
        assert fault is None
        return
    (height, width), (old_height, old_width) = found, annotated
    start = f"image 'x/a.jpg' has {width} x {height} pixels, its annotation says "
    assert fault.text.startswith(f'{start}{old_width} x {old_height}: ')
    assert all(part in fault.text for part in said.split('.*'))
    assert fault.advice


@pytest.mark.parametrize(
    ('images', 'wrong', 'refused'),
    [(3, [], False), (3, [2], True), (99, [50], True), (400, [1, 7, 70, 200], False),
     (400, range(5), True), (5000, range(0, 5000, 10), True), (5000, [0], False),
     (5000, [1], None)],
)  # fmt: skip
def test_before_a_run(images, wrong, refused, write, said, monkeypatch):
    """More than 1 % of at most 500 images; a single wrong one of many may not be seen."""
    good, turned = write(), write('b.jpg', orientation=6)
    read = []
    original = image_sizes.read_header
    monkeypatch.setattr(
        image_sizes, 'read_header', lambda *args: read.append(args) or original(*args)
    )
    files = [turned if i in list(wrong) else good for i in range(images)]
    rows = sizes_of([dict(file_name=file.name, height=32, width=48) for file in files], good.parent)
    if refused:
        with pytest.raises(
            InputError, match=r"^DATA: \d+ of \d+ compared .* image '.*b.jpg' has 32 x"
        ):
            check_sizes('DATA', rows)
    else:
        check_sizes('DATA', rows)
        assert len(said) == (bool(wrong) and refused is not None)
        assert all('EXIF orientation 6' in line and '\n' not in line for line in said)
    assert len(read) == min(images, 500)


def test_headers_that_say_nothing(write, tmp_path):
    """The loader names files that it cannot read, and may leave the orientation out."""
    (tmp_path / 'c.jpg').write_bytes(b'no image')
    check_sizes('DATA', [(tmp_path / 'c.jpg', 1, 1), (tmp_path / 'gone.jpg', 1, 1)])
    check_sizes('DATA', [])
    turned = write(orientation=8)
    check_sizes('DATA', [(turned, 48, 32)])
    check_sizes('DATA', [(turned, 32, 48)], turns_by_exif=False)
    with pytest.raises(InputError):
        check_sizes('DATA', [(turned, 48, 32)], turns_by_exif=False)


@pytest.fixture
def coco(write, tmp_path):
    """A file with two images, both as annotated or with an orientation."""

    def make(orientation, **step):
        files = [write(name, orientation=orientation).name for name in ('a.jpg', 'b.jpg')]
        images = [dict(id=i, file_name=f, height=32, width=48) for i, f in enumerate(files)]
        box = dict(id=1, image_id=0, category_id=1, bbox=[1, 2, 20, 20], area=400, iscrowd=0)
        table = dict(images=images, annotations=[box], categories=[dict(id=1, name='cat')])
        write_files(tmp_path, {'boxes.json': json.dumps(table)})
        return dict(
            type='CocoDataset', data_root=str(tmp_path), ann_file='boxes.json',
            data_prefix=dict(img=''), metainfo=dict(classes=('cat',)),
            pipeline=[dict(type='LoadImageFromFile', **step)],
        )  # fmt: skip

    return make


def test_before_a_run_on_coco(coco, tmp_path, fresh_mmengine):
    init_default_scope('mmdet')

    def check(*given, **step):
        cfg = dict(train_dataloader=dict(dataset=dict(dataset=coco(*given, **step))))
        check_data(Config(cfg), ('train_dataloader',))

    check(1)
    check(6, color_type='color_ignore_orientation')
    line = r"^train_dataloader.dataset.dataset: 2 of 2 compared images .*'.*a.jpg' has 32 x 48"
    with pytest.raises(InputError, match=line):
        check(6)
    given = tmp_path / 'boxes.json', tmp_path, tmp_path / 'out'
    with pytest.raises(InputError, match=r"^annotations: '.*boxes.json': 2 of 2 compared images"):
        cut_objects(*given, min_size=1)
    assert not (tmp_path / 'out').exists()


class Files:
    """A dataset of one file many times, of which some loads have a wrong annotation."""

    def __init__(self, path, wrong):
        self.path, self.wrong = path, wrong
        self.load = LoadImage(on_error='blank')

    def __len__(self):
        return len(self.wrong)

    def __getitem__(self, index):
        size = dict(height=48, width=32) if self.wrong[index] else dict(height=32, width=48)
        return self.load(dict(img_path=str(self.path), **size))['ori_shape']


@pytest.mark.parametrize(
    ('wrong', 'ends', 'workers'),
    [([1] * 9, None, 0), ([1] * 9, None, 2), ([1] * 12, '10 of 10', 0), ([1] * 40, 'of', 2),
     (([0] * 150 + [1]) * 11, None, 0), (([0] * 50 + [1]) * 11, '10 of 510', 0)],
)  # fmt: skip
def test_while_loading(wrong, ends, workers, write, said):
    """Counted over all workers; one of 150 images ends no run, however often it comes."""
    loader = DataLoader(Files(write(), wrong), 50, num_workers=workers, collate_fn=list)
    if ends is None:
        assert sum(map(len, loader)) == len(wrong)
        if sum(wrong) > len(wrong) / 100:  # fewer than ten: at the end of the run
            with pytest.raises(InputError, match='9 of 9 loaded images have another size than'):
                sizes.check_sizes_at_end()
        else:
            sizes.check_sizes_at_end()
    else:
        with pytest.raises(InputError, match=rf'{ends} \d*\s?loaded images have another size than'):
            list(loader)
    assert loading.reported_files(kind=loading.SIZE) == 1
    assert loading.reported_files() == 0
    if workers == 0:  # the lines of the workers are their own
        (line,) = said
        assert 'has 48 x 32 pixels, its annotation says 32 x 48: height and width are' in line


def test_images_that_do_not_count(write, tmp_path, said):
    """Without an annotated size, with one that is no number, and what cannot be read."""
    (tmp_path / 'c.jpg').write_bytes(b'no image')
    for _ in range(12):
        for size in ({}, dict(height=None, width=3), dict(height=0, width=3)):
            LoadImage()(dict(img_path=str(write()), **size))
        LoadImage(on_error='blank')(dict(img_path=str(tmp_path / 'c.jpg'), height=9, width=3))
    assert sizes.shared_counts().tolist() == [0, 0]
    assert len(said) == 1
