"""Post-processing on the stand-in costs less than the network before it."""

from statistics import median
from unittest.mock import Mock

import pytest
import torch

import mobileone_mm
from helpers import ROOT
from mobileone_mm.benchmark.timer import interleaved

META = dict(img_shape=(320, 320), ori_shape=(480, 640), scale_factor=(0.5, 2 / 3))


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize('crowded', ['all classes', 'one class'])
@torch.no_grad()
def test_ssdlite_320(crowded: str, one_thread, monkeypatch: pytest.MonkeyPatch):
    """Worst case: the levels that can fill their ``nms_pre``, with boxes all over the image."""
    import mmdet.models.dense_heads.base_dense_head as host
    from mmdet.registry import MODELS
    from mmengine.config import Config
    from mmengine.registry import DefaultScope

    config = Config.fromfile(ROOT / 'configs' / 'ssdlite_mobileone_s2_coco.py')
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = mobileone_mm.reparameterize_model(MODELS.build(config.model).eval())
    image = torch.randn(1, 3, 320, 320)
    features = model.extract_feat(image)
    generator = torch.Generator().manual_seed(0)
    scores, boxes = (
        [torch.randn(level.shape, generator=generator) for level in levels]
        for levels in model.bbox_head(features)
    )
    if crowded == 'one class':
        for level in scores:
            level.view(1, -1, 81, *level.shape[2:])[:, :, 3] += 5
    suppress = Mock(wraps=host.batched_nms)
    monkeypatch.setattr(host, 'batched_nms', suppress)
    head, options = model.bbox_head, dict(batch_img_metas=[META], rescale=True)
    parts = dict(
        network=lambda: head(model.extract_feat(image)),
        post=lambda: head.predict_by_feat(scores, boxes, **options),
    )
    network, post = map(median, interleaved(parts, repeats=7).values())
    passed = [len(call.args[0]) for call in suppress.call_args_list]
    assert min(passed) > 3000
    assert post < network, f'post-processing {post * 1e3:.1f} ms, network {network * 1e3:.1f} ms'
    print(f'post-processing {post * 1e3:.1f} ms, network {network * 1e3:.1f} ms, {passed[0]} boxes')
