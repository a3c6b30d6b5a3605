"""What the tests of the deploy form share."""

import pytest
import torch


@pytest.fixture(autouse=True)
def strict_nms(monkeypatch):
    """mmcv's compiled NMS reads only float32; its stand-in reads more types."""
    nms = pytest.importorskip('mmcv.ops.nms')
    plain = nms.ext_module.nms

    def strict(boxes, scores, **kwargs):
        assert boxes.dtype == scores.dtype == torch.float32
        return plain(boxes, scores, **kwargs)

    monkeypatch.setattr(nms.ext_module, 'nms', strict)
