"""Contact sheets of training images."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement, InstanceData, PixelData

from mobileone_mm.apis.browse import contact_sheet
from mobileone_mm.inference.draw import Painter


@pytest.mark.parametrize('task', ['cls', 'det', 'seg'])
def test_a_sheet_of_each_task(task, tiny_config, tool, tmp_path, capsys):
    config, out = tiny_config(task), tmp_path / 'out'

    def sheet(*flags):
        capsys.readouterr()
        assert tool('browse_dataset', config, '--out-dir', out, '--num', 2, *flags) == 0
        (path,) = out.iterdir()
        printed = capsys.readouterr().out
        assert f'written: {path}' in printed
        assert 'broken_files  ' in printed  # the changes of the config
        return cv2.imread(str(path))

    first = sheet()
    assert first.std() > 20
    assert sheet('--mode', 'concat').size > 1.5 * first.size
    if task == 'cls':
        assert np.array_equal(sheet('--seed', 0), first)
        assert not np.array_equal(sheet('--seed', 1), first)


CURRICULUM = """
train_cfg = dict(max_epochs=4)
custom_hooks = [dict(
    type='mobileone_mm.CurriculumHook',
    phases=[dict(begin=0, resolution=32), dict(begin=2, resolution=64)],
)]
"""


def test_a_sheet_of_each_phase(tiny_config, tool, tmp_path, monkeypatch):
    shown, draw = [], Painter.draw_truth

    def truth(self, image, sample):
        shown.append(image.shape)
        return draw(self, image, sample)

    monkeypatch.setattr(Painter, 'draw_truth', truth)
    config, out = tiny_config('cls', CURRICULUM), tmp_path / 'out'
    assert tool('browse_dataset', config, '--out-dir', out, '--num', 2) == 0
    assert sorted(path.name for path in out.iterdir()) == ['cls_phase_1.png', 'cls_phase_2.png']
    assert shown == [(32, 32, 3)] * 2 + [(64, 64, 3)] * 2


def test_wrong_arguments(tiny_config, refused):
    def error(*flags):
        return refused('browse_dataset', tiny_config('cls'), '--out-dir', 'out', *flags)

    assert '--num: got 0' in error('--num', 0)
    assert "--mode: got 'x'; expected transformed or concat" in error('--mode', 'x')
    root = 'train_dataloader.dataset.data_root=/nowhere'
    assert '/nowhere' in error('--cfg-options', root)


def test_every_image_is_on_the_sheet():
    colours = np.random.default_rng(0).integers(0, 200, (7, 3))
    shapes = [(50, 80), (300, 100), (64, 64), (10, 400), (320, 320), (90, 91), (200, 300)]
    images = [np.full((*shape, 3), c, np.uint8) for shape, c in zip(shapes, colours, strict=True)]
    sheet = contact_sheet(images, 'seven')
    for colour in colours:
        assert (sheet == colour).all(-1).sum() > 500


def test_pixels_that_no_loss_counts_are_dark():
    labels = torch.zeros(1, 320, 320, dtype=torch.long)
    labels[:, :, 160:] = 255
    labels[:, :100, :100] = 1
    image = np.full((320, 320, 3), 200, np.uint8)
    meta = dict(classes=('background', 'cat'), palette=[(0, 0, 0), (0, 0, 255)])
    drawn = Painter(meta).draw_truth(image, BaseDataElement(gt_sem_seg=PixelData(data=labels)))
    assert drawn[300, 300].tolist() == [100, 100, 100]
    assert drawn[300, 20].tolist() == [200, 200, 200]
    assert drawn[5, 5].tolist() == [100, 100, 228]


def test_boxes_and_masks_stand_where_the_labels_say():
    from mmdet.structures.bbox import HorizontalBoxes
    from mmdet.structures.mask import BitmapMasks

    mask = np.zeros((1, 320, 320), np.uint8)
    mask[0, 200:220, 200:220] = 1
    instances = InstanceData(
        bboxes=HorizontalBoxes(torch.tensor([[150.0, 160.0, 250.0, 260.0]])),
        labels=torch.tensor([0]),
        masks=BitmapMasks(mask, 320, 320),
    )
    meta = dict(classes=('cat',), palette=[(255, 0, 0)])
    image = np.full((320, 320, 3), 255, np.uint8)
    drawn = Painter(meta).draw_truth(image, BaseDataElement(gt_instances=instances)).astype(int)
    red = (drawn[..., 0] > 200) & (drawn[..., 1] < 160)
    rows, columns = np.nonzero(red[155:, :])
    assert abs(columns.max() - 250) <= 2
    assert abs(columns.min() - 150) <= 2
    assert abs(rows.max() + 155 - 260) <= 2
    assert red[210, 210]
    assert not red[240, 240]
