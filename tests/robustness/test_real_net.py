"""Apple's S0 on real images: our corruptions cost it as much accuracy as another implementation's."""

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS

from mobileone_mm.inference.model import init_model
from mobileone_mm.robustness.corruptions import corrupt, generator
from mobileone_mm.robustness.digital import jpeg
from mobileone_mm.robustness.pipeline import SplitPipeline
from mobileone_mm.robustness.sets import own_images
from mobileone_mm.runs.prepare import prepare

CASES = [('gaussian_noise', 2), ('gaussian_noise', 5), ('glass_blur', 3), ('snow', 3), ('frost', 3),
         ('fog', 3)]  # fmt: skip
# Of 128 images; two draws of the same corruption differ by some three.
TOLERANCE = 12


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_accuracy_is_that_on_another_implementations_images(real_data, monkeypatch, fresh_mmengine):
    """The other one has the photographs of frost; all images are stored as JPEG, as published."""
    peer = pytest.importorskip('imagecorruptions', exc_type=ImportError)
    monkeypatch.setenv('IMAGENET_ROOT', str(real_data / 'imagenet'))
    cfg = prepare('configs/mobileone_s0_in1k.py', {'model.backbone.deploy': True}).cfg
    weights = real_data / 'weights' / 'mobileone_s0_apple_fused.pth'
    model, _ = init_model(cfg, weights)
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    dataset.full_init()
    files = own_images(dataset)
    pipeline = SplitPipeline(cfg.test_dataloader.dataset.pipeline)
    samples = [pipeline.read(dict(img_path=path, gt_label=label, sample_idx=0))
               for path, label in zip(files.files[::5], files.labels[::5], strict=True)]  # fmt: skip
    crops = [np.ascontiguousarray(sample['img'][..., ::-1]) for sample in samples]

    @torch.no_grad()
    def predicted(images):
        packed = [pipeline.pack({**sample, 'img': jpeg(image)[..., ::-1].copy()})
                  for sample, image in zip(samples, images, strict=True)]  # fmt: skip
        found = []
        for start in range(0, len(packed), 8):
            data = model.data_preprocessor(pseudo_collate(packed[start : start + 8]), False)
            found.append(model(data['inputs'], mode='tensor').argmax(1))
        return torch.cat(found)

    labels = torch.tensor([sample['gt_label'] for sample in samples])
    print(f'\nclean: {int((predicted(crops) == labels).sum())} of {len(labels)}')
    for name, severity in CASES:
        np.random.seed(0)
        own = predicted([corrupt(image, name, severity, generator(0, name, severity, str(index)))
                         for index, image in enumerate(crops)])  # fmt: skip
        other = predicted([
            peer.corrupt(image, corruption_name=name, severity=severity).clip(0, 255).astype('uint8')
            for image in crops
        ])  # fmt: skip
        right = [int((found == labels).sum()) for found in (own, other)]
        shares = [torch.bincount(found).max() / len(found) for found in (own, other)]
        percent = [f'{100 * share:.0f} %' for share in shares]
        print(f'{name} {severity}: {right[0]}, other {right[1]}; most frequent class: {percent}')
        assert abs(right[0] - right[1]) <= TOLERANCE
        assert abs(shares[0] - shares[1]) < 0.15
