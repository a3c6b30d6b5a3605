"""The test pipeline of a classifier with a corruption between crop and packing, and its hits."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmengine.dataset import Compose
from torch import Tensor, nn
from torch.utils.data import Dataset

from ..config.tree import type_name
from ..errors import InputError
from .corruptions import as_stored, corrupt, generator
from .sets import Images

_GEOMETRY = re.compile(r'Resize|Crop|Pad')
# Up to this many bytes, the crops that are corrupted 75 times stay in memory.
KEPT_BYTES = 1 << 30


@dataclass(frozen=True)
class Corruption:
    """A corruption of the images of one evaluation."""

    name: str
    severity: int
    seed: int

    def __call__(self, image: np.ndarray, key: str) -> np.ndarray:
        """Corrupt an image: (H, W, 3), uint8, BGR; its name is the key of the random numbers."""
        rng = generator(self.seed, self.name, self.severity, key)
        rgb = np.ascontiguousarray(image[..., ::-1])
        return as_stored(corrupt(rgb, self.name, self.severity, rng))[..., ::-1].copy()


class TestPipeline:
    """A test pipeline in three parts: loading, then resizing and cropping, then packing.

    Raises:
        InputError: There is no step, or the transforms do not make an array of one size.
    """

    __test__ = False  # pytest takes the name for a test

    def __init__(self, steps: Sequence[Mapping[str, Any]]) -> None:
        if not steps:
            raise InputError("test_dataloader.dataset: has no 'pipeline'")
        last = max((i for i, s in enumerate(steps) if _GEOMETRY.search(type_name(s))), default=0)
        self.load = Compose([dict(steps[0])])
        self.fit = Compose([dict(step) for step in steps[1 : last + 1]])
        self.pack = Compose([dict(step) for step in steps[last + 1 :]])
        self.size = self._size() if last else None

    def _size(self) -> tuple[int, int]:
        sizes = set()
        for shape in ((400, 500), (350, 300)):
            image = np.zeros((*shape, 3), np.uint8)
            result = self.fit(dict(img=image, img_shape=shape, ori_shape=shape))
            sizes.add(_checked(result)['img'].shape[:2])
        if len(sizes) != 1:
            raise InputError(
                'test_dataloader.dataset.pipeline: its output size depends on the image; expected a '
                'crop or a fixed size'
            )
        return sizes.pop()

    def crop(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        """Load, resize and crop an image."""
        return _checked(self.fit(self.load(dict(sample))))

    def stored(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        """Load an image of ImageNet-C, which is a crop of 224 pixels already.

        Its authors evaluate the crop as it is. A second resize and crop would lose the border. A
        config of another size gets the crop resized to that size.
        """
        result = _checked(self.load(dict(sample)))
        if self.size is not None and result['img'].shape[:2] != self.size:
            from mmcv import imresize

            result['img'] = imresize(result['img'], self.size[::-1], backend='pillow')
            result['img_shape'] = self.size
        return result


class EvaluatedImages(Dataset):
    """The images of one evaluation, ready for the model.

    ``corruption`` is applied to the crop. With ``stored`` the images are crops already. ``crops``
    are crops in memory by index.
    """

    def __init__(
        self,
        images: Images,
        pipeline: TestPipeline,
        corruption: Corruption | None = None,
        stored: bool = False,
        crops: Mapping[int, dict[str, Any]] | None = None,
    ) -> None:
        self.images, self.pipeline, self.corruption = images, pipeline, corruption
        self.read = pipeline.stored if stored else pipeline.crop
        self.crops = crops or {}

    def __len__(self) -> int:
        return len(self.images.files)

    def __deepcopy__(self, _: Any) -> EvaluatedImages:
        # mmengine copies the settings of a loader; the crops in them may take a GiB.
        return self

    def sample(self, index: int) -> dict[str, Any]:
        """Return an image before it is corrupted and packed."""
        path, label = self.images.files[index], self.images.labels[index]
        return self.read(dict(img_path=path, gt_label=label, sample_idx=index))

    def __getitem__(self, index: int) -> Any:
        result = dict(self.crops.get(index) or self.sample(index))
        if self.corruption is not None:
            result['img'] = self.corruption(result['img'], self.images.names[index])
        return self.pipeline.pack(result)


def keep_crops(images: Images, pipeline: TestPipeline) -> dict[int, dict[str, Any]]:
    """Read images that are corrupted many times into memory, if they fit into a GiB.

    Forked workers of data loaders share them without a copy.
    """
    dataset = EvaluatedImages(images, pipeline)
    size = pipeline.size
    if size is None or len(dataset) * size[0] * size[1] * 3 > KEPT_BYTES:
        return {}
    return {index: dataset.sample(index) for index in range(len(dataset))}


@torch.no_grad()
def count_correct(
    model: nn.Module,
    batches: Iterable[Any],
    limit: Sequence[int] | None = None,
    classes: int | None = None,
) -> tuple[int, int]:
    """Count images whose class is the first, and among the first five, predictions of a classifier.

    ``Accuracy`` of mmpretrain cannot leave classes out. ImageNet-A and ImageNet-R are defined by the
    greatest score among their own 200 classes: other classes cannot be predicted.

    Args:
        limit: Predictions are limited to these classes; None for all.
        classes: Number of scores that the model must give; None for any number.

    Raises:
        InputError: The model gives another number of scores, or none.
    """
    top1 = top5 = 0
    for batch in batches:
        data = model.data_preprocessor(batch, False)  # type: ignore[operator]
        # Logits: a softmax over all classes can leave no probability for those of a set.
        logits = model(data['inputs'], mode='tensor')
        if not (isinstance(logits, Tensor) and logits.ndim == 2):
            raise InputError('model: gives no score for each class; expected an image classifier')
        if classes is not None and logits.shape[1] != classes:
            raise InputError(f'model: gives {logits.shape[1]} scores; expected {classes}')
        if limit is not None:
            allowed = torch.zeros(logits.shape[1], dtype=torch.bool, device=logits.device)
            allowed[list(limit)] = True
            logits = logits.masked_fill(~allowed, -torch.inf)
        labels = torch.cat([sample.gt_label for sample in data['data_samples']]).to(logits.device)
        hit = logits.topk(min(5, logits.shape[1])).indices == labels[:, None]
        top1 += int(hit[:, 0].sum())
        top5 += int(hit.sum())
    return top1, top5


def _checked(result: Any) -> dict[str, Any]:
    image = result.get('img') if isinstance(result, Mapping) else None
    if not (isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.shape[2:] == (3,)):
        raise InputError(
            'test_dataloader.dataset.pipeline: expected an array of uint8 with three channels after '
            'resizing and cropping; use the transforms of mmcv and mmpretrain, not of torchvision'
        )
    return result
