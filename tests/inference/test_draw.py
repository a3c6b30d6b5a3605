"""Drawings have a size that can be written and seen, and never end a test."""

import logging
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData, PixelData
from mmpretrain.structures import DataSample
from mmseg.structures import SegDataSample

from mobileone_mm.data.loading import read_image
from mobileone_mm.errors import InputError
from mobileone_mm.inference.draw import DrawHook, Painter, save_image


def samples(width, height):
    """A prediction of each task for an image of this size."""
    scores = DataSample().set_pred_score(torch.tensor([0.7, 0.3]))
    corners = torch.tensor([[0.0, 0.0, width, height], [width / 4, height / 4, width / 2, height]])
    boxes = InstanceData(
        bboxes=corners, scores=torch.tensor([0.9, 0.5]), labels=torch.tensor([0, 1]),
        masks=torch.ones(2, height, width, dtype=torch.bool),
    )  # fmt: skip
    labels = PixelData(data=torch.ones(1, height, width, dtype=torch.long))
    return scores, DetDataSample(pred_instances=boxes), SegDataSample(pred_sem_seg=labels)


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize(
    ('size', 'drawn'),
    [
        ((3000, 12), (4096, 16)),
        ((2, 3000), (3, 4096)),
        ((1, 1), (320, 320)),
        ((1, 20000), (1, 4096)),
        ((480, 160), (960, 320)),
    ],
)
def test_sizes_of_drawings(size, drawn, tmp_path):
    """Also those that are written, with names that matplotlib takes for a formula."""
    image = np.zeros((size[1], size[0], 3), np.uint8)
    painter = Painter(dict(classes=['$a_$', '$\\b$ and $']))
    for sample in samples(*size):
        result = painter.draw(image, sample)
        assert result.shape == (drawn[1], drawn[0], 3)
        assert result.any() or min(drawn) < 9  # no room for a letter
        assert read_image(save_image(result, tmp_path / 'a.jpg')).shape == result.shape


def test_an_image_that_jpeg_cannot_hold(tmp_path):
    image = np.zeros((2, 65501, 3), np.uint8)
    with pytest.raises(
        InputError, match=r'65501 x 2 px cannot be written as \.jpg \(at most 65500'
    ):
        save_image(image, tmp_path / 'a.jpg')
    assert not list(tmp_path.iterdir())
    assert cv2.imread(str(save_image(image, tmp_path / 'a.png'))).shape == image.shape


def test_a_drawing_does_not_end_a_test(tmp_path, caplog):
    """One image cannot be read (the loader says it), one not be drawn, one not be written."""
    paths = [str(tmp_path / f'{name}.png') for name in ('gone', 'odd', 'folder', 'good')]
    for path in paths[1:]:
        cv2.imwrite(path, np.zeros((8, 8, 3), np.uint8))
    (tmp_path / 'out' / 'folder.png').mkdir(parents=True)

    class Images(list):
        metainfo = dict(classes=['a', 'b'])

        def get_data_info(self, index):
            return dict(img_path=self[index])

    dataset = Images(paths)
    logger = logging.getLogger('draw')
    runner = SimpleNamespace(test_dataloader=SimpleNamespace(dataset=dataset), logger=logger)
    outputs = [DataSample(metainfo=dict(img_path=path)) for path in paths]
    for sample in outputs:
        sample.set_pred_score(torch.tensor([0.7, 0.3]))
    outputs[1].pred_score = 'no tensor'
    hook = DrawHook(tmp_path / 'out')
    hook.before_test_epoch(runner)
    hook.after_test_iter(runner, outputs=outputs)
    hook.after_test_epoch(runner)
    hook.after_test_epoch(runner)
    (line,) = caplog.messages
    assert line.startswith('2 images could not be drawn: ')
    assert "odd.png' (AttributeError: " in line
    assert 'it is a folder' in line
    assert sorted(path.name for path in (tmp_path / 'out').glob('*')) == ['folder.png', 'good.png']
