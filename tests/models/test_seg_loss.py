"""mmseg's cross entropy with class weights, beside torch's."""

import pytest
import torch
from torch.nn import functional as F

from mobileone_mm.models.seg_loss import use_class_weights


@pytest.mark.parametrize('avg_non_ignore', [False, True])
def test_class_weights_with_ignored_pixels(avg_non_ignore, monkeypatch):
    module = pytest.importorskip('mmseg.models.losses.cross_entropy_loss')
    monkeypatch.setattr(module, 'cross_entropy', module.cross_entropy)
    use_class_weights()
    use_class_weights()
    weights = [1.0, 2.0, 5.0]
    loss = module.CrossEntropyLoss(class_weight=weights, avg_non_ignore=avg_non_ignore)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 8, 8, generator=generator)
    labels = torch.randint(3, (2, 8, 8), generator=generator)
    labels[:, :3] = 255
    expected = F.cross_entropy(logits, labels, torch.tensor(weights), ignore_index=255)
    torch.testing.assert_close(loss(logits, labels, ignore_index=255), expected)
    labels[:] = 255
    assert loss(logits, labels, ignore_index=255) == 0
    plain = module.CrossEntropyLoss(avg_non_ignore=avg_non_ignore)
    labels[:, 0] = 1
    expected = F.cross_entropy(logits, labels, ignore_index=255)
    expected = expected if avg_non_ignore else expected / 8
    torch.testing.assert_close(plain(logits, labels, ignore_index=255), expected)
