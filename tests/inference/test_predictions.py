"""Predictions that are NaN or Inf are refused, and end a validation or test."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.structures import BaseDataElement, InstanceData, PixelData

from mobileone_mm.errors import InputError
from mobileone_mm.hooks.prediction_check import PredictionCheckHook
from mobileone_mm.inference.predictions import record_of


def sample(value):
    fields = dict(
        pred_score=torch.tensor([0.5, value]),
        pred_instances=InstanceData(
            scores=torch.tensor([value]), bboxes=torch.ones(1, 4), labels=torch.tensor([0])
        ),
        seg_logits=PixelData(data=torch.tensor([[[0.5, value]], [[0.5, 0.5]]])),
        pred_sem_seg=PixelData(data=torch.tensor([[[0, 1]]])),
    )
    return BaseDataElement(metainfo=dict(img_path='a.png'), **fields)


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
@pytest.mark.parametrize('field', ['pred_score', 'pred_instances', 'seg_logits'])
def test_numbers_that_are_not_finite(field, value):
    hook, good = PredictionCheckHook(), sample(0.25)
    bad = sample(0.25)
    bad.set_field(sample(value).get(field), field)
    for call in (hook.after_val_iter, hook.after_test_iter):
        call(SimpleNamespace(), 0, outputs=[good, {}])
        with pytest.raises(
            InputError, match=r"^image 'a\.png': the model predicts NaN or Inf: its"
        ):
            call(SimpleNamespace(), 0, outputs=[good, bad])
    hook.after_train_iter(SimpleNamespace(), 0, outputs=dict(loss=value))
    record_of(good, None, 0.0)
    with pytest.raises(InputError, match='predicts NaN or Inf'):
        record_of(bad, None, 0.0)
