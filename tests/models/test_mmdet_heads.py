"""SSD's head and neck: the fault of mmdet's, and predictions against a definition."""

import math

import pytest
import torch
from mmdet.models import SSDHead as HostHead
from mmdet.models.necks import SSDNeck as HostNeck
from mmdet.structures import DetDataSample
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData

from helpers import ROOT, randomize_
from mobileone_mm.models.ssd import SSDHead, SSDNeck
from mobileone_mm.registry import MODELS
from mobileone_mm.reparam.compare import max_difference

CLASSES, CELLS = 3, (4, 2)  # two levels of 4x4 and 2x2 cells on an image of 64 px
PRIORS = 4  # a cell: the ratios 1 (two sizes), 2 and 1 / 2
MODEL = Config.fromfile(ROOT / 'configs' / '_base_' / 'models' / 'ssdlite_mobileone.py').model
ANCHORS = dict(strides=[16, 32], ratios=[[2], [2]], min_sizes=[16, 32], max_sizes=[32, 48])
SETTINGS = ConfigDict(
    num_classes=CLASSES,
    in_channels=(8, 8),
    anchor_generator=dict(MODEL.bbox_head.anchor_generator, **ANCHORS),
    bbox_coder=MODEL.bbox_head.bbox_coder,
    train_cfg=MODEL.train_cfg,
    test_cfg=MODEL.test_cfg,
)
NECK = dict(MODEL.neck, in_channels=(8, 12), out_channels=(8, 12, 10, 6))
NECK.update(level_strides=(2, 2), level_paddings=(1, 1))
del NECK['type']


@pytest.fixture(autouse=True)
def _scope():
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


def head_of(kind=SSDHead, **changes):
    torch.manual_seed(0)
    return kind(**{**SETTINGS, **changes})


def random_maps():
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(2, 8, cells, cells, generator=generator) for cells in CELLS]


def images(*boxes_and_labels, scale=1.0):
    metas = [dict(img_shape=(64, 64), pad_shape=(64, 64), scale_factor=(scale, scale))]
    metas = metas * len(boxes_and_labels)
    gts = [
        InstanceData(
            bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            labels=torch.tensor(labels, dtype=torch.long),
        )
        for boxes, labels in boxes_and_labels
    ]
    return gts, metas


def losses(head, maps, gts, metas):
    return head.loss_by_feat(*head(maps), gts, metas)


def total(result):
    return sum(torch.stack(list(values)).sum() for values in result.values())


def test_mmdets_own_head_cannot_predict():
    _, metas = images(([], []), ([], []))
    host = head_of(HostHead).eval()
    with torch.no_grad(), pytest.raises(AttributeError, match='loss_cls'):
        host.predict_by_feat(*host(random_maps()), batch_img_metas=metas)
    assert ROOT_MODELS.get('mobileone_mm.SSDHead') is MODELS.get('SSDHead') is SSDHead
    assert ROOT_MODELS.get('mmdet.SSDHead') is HostHead


def test_weights_and_losses_are_mmdets():
    ours, host = head_of(), head_of(HostHead)
    host.load_state_dict(ours.state_dict(), strict=True)
    boxes = images(([[4, 6, 30, 40]], [1]), ([[8, 8, 60, 50], [0, 0, 20, 20]], [2, 0]))
    data = random_maps(), *boxes
    assert torch.equal(total(losses(ours, *data)), total(losses(host, *data)))


@pytest.mark.parametrize('scale', [1.0, 0.5])
def test_prediction_is_the_decoded_anchor(scale):
    """One anchor gets a known class and offset; the box follows from the coder's definition."""
    head = head_of().eval()
    anchors = torch.cat(head.prior_generator.grid_priors([(c, c) for c in CELLS], device='cpu'))
    chosen, label, delta = 17, 2, torch.tensor([0.5, -1.0, 0.4, -0.3])
    scores = torch.zeros(len(anchors), CLASSES + 1)
    scores[:, -1] = 20.0  # background everywhere
    scores[chosen] = torch.tensor([0.0, 1.0, 6.0, 0.0])
    deltas = torch.zeros(len(anchors), 4)
    deltas[chosen] = delta
    first = CELLS[0] ** 2 * PRIORS

    def maps_of(values):
        """(anchors, c) to one (1, priors * c, cells, cells) a level."""
        parts = values[:first], values[first:]
        return [
            part.reshape(1, cells, cells, -1).permute(0, 3, 1, 2)
            for part, cells in zip(parts, CELLS, strict=True)
        ]

    _, metas = images(([], []), scale=scale)
    maps = maps_of(scores), maps_of(deltas)
    (result,) = head.predict_by_feat(*maps, batch_img_metas=metas, rescale=True)
    x1, y1, x2, y2 = anchors[chosen].tolist()
    width, height = x2 - x1, y2 - y1
    centre = (x1 + x2) / 2 + 0.05 * width, (y1 + y2) / 2 - 0.1 * height
    half = width * math.exp(0.08) / 2, height * math.exp(-0.06) / 2
    box = [centre[0] - half[0], centre[1] - half[1], centre[0] + half[0], centre[1] + half[1]]
    expected = torch.tensor(box).clamp(0, 64) / scale
    assert result.labels[0] == label
    assert torch.allclose(result.bboxes[0], expected, atol=1e-4)
    assert torch.allclose(result.scores[0], scores[chosen].softmax(0)[label])


def test_images_without_boxes_train_and_predict():
    head = head_of()
    loss = total(losses(head, random_maps(), *images(([], []), ([], []))))
    loss.backward()
    assert loss == 0
    assert all(torch.isfinite(p.grad).all() for p in head.parameters())
    silent = head_of(test_cfg=ConfigDict(SETTINGS.test_cfg, score_thr=0.999)).eval()
    samples = [DetDataSample(metainfo=meta) for meta in images(([], []), ([], []))[1]]
    with torch.no_grad():
        results = silent.predict(random_maps(), samples)
    assert [len(r) for r in results] == [0, 0]


def test_one_image_and_one_cell_is_a_clear_error():
    neck = SSDNeck(**NECK)
    alone = torch.rand(1, 8, 8, 8), torch.rand(1, 12, 4, 4)
    with pytest.raises(ValueError, match='^train_dataloader.batch_size: got a batch of 1') as error:
        neck(alone)
    assert '\n' not in str(error.value)
    neck.eval()
    assert [tuple(x.shape[-2:]) for x in neck(alone)] == [(8, 8), (4, 4), (2, 2), (1, 1)]
    neck.train()
    neck((torch.rand(2, 8, 8, 8), torch.rand(2, 12, 4, 4)))
    neck((torch.rand(1, 8, 16, 16), torch.rand(1, 12, 8, 8)))  # the last level has four cells


def test_neck_is_mmdets():
    """Same weights, same maps. ``--cfg-options`` gives lists, which mmdet's refuses beside a tuple."""
    ours, host = SSDNeck(**{**NECK, 'in_channels': [8, 12]}).eval(), HostNeck(**NECK).eval()
    host.load_state_dict(randomize_(ours, seed=2).state_dict(), strict=True)
    maps = torch.rand(2, 8, 8, 8), torch.rand(2, 12, 4, 4)
    assert max_difference(ours(maps), host(maps)) == (0, 0)
