"""The test pipeline of a classifier with a corruption between crop and packing, and its hits."""

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
from ..errors import NON_FINITE, InputError
from .corruptions import corrupt, generator
from .digital import jpeg
from .sets import Images

_GEOMETRY = re.compile(r'Resize|Crop|Pad')


class SplitPipeline:
    """A test pipeline in three parts: loading, then resizing and cropping, then packing.

    The transforms must make an array of one size, else there is an InputError.
    """

    def __init__(self, steps: Sequence[Mapping[str, Any]]) -> None:
        last = max((i for i, s in enumerate(steps) if _GEOMETRY.search(type_name(s))), default=0)
        parts = steps[:1], steps[1 : last + 1], steps[last + 1 :]
        self.load, self.fit, self.pack = (Compose([dict(s) for s in part]) for part in parts)
        self.size = self._size() if last else None

    def _size(self) -> tuple[int, int]:
        shapes = (400, 500), (350, 300)
        inputs = [dict(img=np.zeros((*s, 3), np.uint8), img_shape=s, ori_shape=s) for s in shapes]
        size, other = (_checked(self.fit(given))['img'].shape[:2] for given in inputs)
        if size != other:
            raise InputError(
                'test_dataloader.dataset.pipeline: its output size depends on the image; expected a '
                'crop or a fixed size'
            )
        return size

    def read(self, sample: Mapping[str, Any], stored: bool = False) -> dict[str, Any]:
        """Load an image, and resize and crop it unless it is ``stored`` as a crop.

        The images of ImageNet-C are crops of 224 pixels, which its authors evaluate as they are. A
        second resize and crop would lose the border. A config of another size gets the crop resized.
        """
        loaded = self.load(dict(sample))
        result = _checked(loaded if stored else self.fit(loaded))
        if stored and self.size and result['img'].shape[:2] != self.size:
            from mmcv import imresize

            result['img'] = imresize(result['img'], self.size[::-1], backend='pillow')
            result['img_shape'] = self.size
        return result


@dataclass(eq=False)
class EvaluatedImages(Dataset):
    """The images of one evaluation, ready for the model."""

    images: Images
    pipeline: SplitPipeline
    stored: bool = False  # whether the images are crops already
    corruption: tuple[str, int, int] | None = None  # of the crops: name, severity, seed

    def __len__(self) -> int:
        return len(self.images.files)

    def __getitem__(self, index: int) -> Any:
        path, label = self.images.files[index], self.images.labels[index]
        sample = dict(img_path=path, gt_label=label, sample_idx=index)
        result = self.pipeline.read(sample, self.stored)
        if self.corruption is not None:
            name, severity, seed = self.corruption
            rng = generator(seed, name, severity, self.images.names[index])
            rgb = np.ascontiguousarray(result['img'][..., ::-1])
            result['img'] = jpeg(corrupt(rgb, name, severity, rng))[..., ::-1].copy()
        return self.pipeline.pack(result)


@torch.no_grad()
def count_correct(
    model: nn.Module,
    batches: Iterable[Any],
    limit: Sequence[int] | None = None,
    classes: int | None = None,
) -> tuple[int, int]:
    """Count images whose class is the first, and among the first five, predictions of a classifier.

    ``Accuracy`` of mmpretrain cannot leave classes out. ImageNet-A and ImageNet-R are defined by the
    greatest score among their own 200 classes: predictions are limited to the classes in ``limit``.
    An InputError says that the model does not give as many scores as ``classes``, or none.
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
        if not logits.isfinite().all():
            raise InputError(f'model: predicts {NON_FINITE}')
        if limit is not None:
            others = sorted(set(range(logits.shape[1])).difference(limit))
            logits[:, others] = -torch.inf
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
