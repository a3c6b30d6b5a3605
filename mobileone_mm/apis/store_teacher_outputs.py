"""Running the teachers of a config over its training images, once, and storing what they say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS
from torch import Tensor

from ..config.explain import config_faults
from ..config.tree import datasets
from ..distill.teachers import describe
from ..distill.view_files import (
    DamagedViewError,
    OutputsMeta,
    digest_of,
    image_key,
    plain_config,
    read_meta,
    verify_view,
    view_path,
    views_in,
    write_view,
)
from ..distill.views import FixedView, split_pipeline, with_fields
from ..errors import InputError
from ..inference.images import with_progress
from ..runs.prepare import TEACHERS, prepare
from ..training.folders import check_writable
from ..training.launch import select_device
from ..training.runner import Runner


@dataclass
class StoredOutputs:
    """What :func:`store_teacher_outputs` did.

    Attributes:
        written: Files that were written.
        kept: Views that were there already.
        rewritten: Views that were damaged and are written again.
        damaged: Views that are damaged, and were not asked for.
        images: In each view.
        unreadable: Images of the dataset that could not be read, when the first view was made.
        rest: Mean share of the probability that the stored classes do not have; None if nothing was
            written.
    """

    written: list[Path]
    kept: list[int]
    rewritten: list[int]
    damaged: list[int]
    images: int
    unreadable: int
    rest: float | None


def store_teacher_outputs(
    config: str | Path,
    out_dir: str | Path,
    views: int = 1,
    first_view: int = 0,
    topk: int = 10,
    seed: int = 0,
    batch_size: int | None = None,
    cfg_options: Mapping[str, Any] | None = None,
    device: str | None = None,
) -> StoredOutputs:
    """Store the teachers' outputs for some views of every training image.

    Views that are in the folder already are kept, so that an interrupted call can be repeated, views
    added later, and several machines write different ones. Damaged ones are written again.

    Args:
        config: A config with a distilling classifier.
        out_dir: Folder of the outputs.
        views: How many views.
        first_view: Number of the first of them.
        topk: How many probabilities are stored for each image; 0 for all.
        seed: From which the seeds of the views are derived.
        batch_size: Images at once; that of the training if not given.
        cfg_options: Overrides by dotted key.
        device: ``cpu``, ``cuda`` or ``cuda:N``; by default the GPU if there is one.

    Raises:
        InputError: Something that the user gave does not fit, or the folder has outputs of others.
    """
    _check_numbers(views=views, first_view=first_view, topk=topk, seed=seed, batch_size=batch_size)
    chosen = select_device(device)
    cfg = prepare(config, cfg_options, TEACHERS).cfg
    if 'outputs' in cfg.model:
        cfg.model.outputs = None
    model = _teaching_model(cfg)
    classes = model.num_classes
    if topk > classes:
        raise InputError(f'--topk: got {topk}; the teachers have {classes} classes')
    check_writable(out_dir, 'out_dir')
    folder = Path(out_dir).expanduser()
    storing = _Storing(cfg, model, folder, topk or classes, seed, batch_size, chosen)
    return storing.run(range(first_view, first_view + views))


def _check_numbers(**numbers: int | None) -> None:
    for name, value in numbers.items():
        least = 1 if name in ('views', 'batch_size') else 0
        if value is not None and value < least:
            raise InputError(f'--{name.replace("_", "-")}: got {value}; at least {least} is needed')


def _teaching_model(cfg: Config) -> Any:
    with config_faults(cfg):
        model = MODELS.build(cfg.model)
        if not hasattr(model, 'load_teachers'):
            raise InputError(
                f'config: its model is a {type(model).__name__}, which has no teachers; give a config '
                'with mobileone_mm.DistillClassifier'
            )
        model.load_teachers()
    return model


class _Storing:
    def __init__(
        self,
        cfg: Config,
        model: Any,
        folder: Path,
        topk: int,
        seed: int,
        batch_size: int | None,
        device: str,
    ) -> None:
        found = list(datasets(cfg, 'train_dataloader'))
        if len(found) != 1:
            raise InputError(
                f'train_dataloader.dataset: joins {len(found)} datasets; store the outputs of one'
            )
        path, dataset = found[0]
        load, transforms, pack = split_pipeline(dataset['pipeline'], f'{path}.pipeline')
        self.transforms = plain_config(transforms)
        root = str(Path(dataset.get('data_root') or ''))
        fixed = dict(type='mobileone_mm.FixedView', transforms=transforms, root=root, seed=seed)
        pack = with_fields(pack, 'teacher_name', 'teacher_signature')
        with config_faults(cfg):
            self.dataset = DATASETS.build({**dataset, 'pipeline': [*load, fixed, pack]})
        (self.fixed,) = (t for t in self.dataset.pipeline.transforms if isinstance(t, FixedView))
        self.workers = cfg.train_dataloader.get('num_workers', 0)
        self.model, self.folder, self.topk, self.seed = model, folder, topk, seed
        self.batch_size = batch_size or cfg.train_dataloader.batch_size
        self.device = device
        self.fingerprints = [t.fingerprint() for t in model.teachers.members]
        self.names = self._names()
        self.unreadable: list[str] | None = None

    def run(self, wanted: range) -> StoredOutputs:
        result = StoredOutputs([], [], [], [], 0, 0, None)
        there, damaged = self._views()
        for view in there:  # before hours of work, all that is known without it
            known = read_meta(self.folder, view)
            if self.unreadable is None:
                self.unreadable = known.unreadable
            self._check_same(view, known, self._meta())
        rests = []
        for view in wanted:
            if view in there:
                result.kept.append(view)
                continue
            tensors = self._view(view)
            result.written.append(write_view(self.folder, view, tensors, self._meta()))
            rests.append(float(1 - tensors['scores'].sum(1, dtype=np.float64).mean()))
        result.rewritten = [view for view in damaged if view in wanted]
        result.damaged = [view for view in damaged if view not in wanted]
        result.unreadable = len(self.unreadable or ())
        result.images = len(self.names) - result.unreadable
        result.rest = float(np.mean(rests)) if rests else None
        return result

    def _views(self) -> tuple[list[int], list[int]]:
        """The whole and the damaged views of the folder."""
        whole: list[int] = []
        damaged: list[int] = []
        for view in views_in(self.folder):
            try:
                verify_view(self.folder, view)
                whole.append(view)
            except DamagedViewError:
                damaged.append(view)
        return whole, damaged

    def _names(self) -> dict[int, str]:
        """Names of all images by their keys."""
        names: dict[int, str] = {}
        for index in range(len(self.dataset)):
            name = self.fixed.name_of(self.dataset.get_data_info(index)['img_path'])
            key = image_key(name)
            if names.setdefault(key, name) != name:
                raise InputError(f"images '{name}' and '{names[key]}' have one key; rename one")
        return names

    def _view(self, view: int) -> dict[str, np.ndarray]:
        """Tensors of a view."""
        rows: dict[int, tuple[np.ndarray, ...]] = {}
        for name, *row in self._rows(with_progress(self._dataloader(view), f'View {view}')):
            # An image that cannot be read is replaced by another one, which then comes twice.
            rows[image_key(name)] = tuple(row)
        missing = [name for key, name in self.names.items() if key not in rows]
        if self.unreadable is None:
            self.unreadable = sorted(missing)
        new = sorted(set(missing) - set(self.unreadable))
        if new:
            raise InputError(
                f"out_dir: the other views in '{self.folder}' have {len(new)} images that cannot be "
                f"read now, such as '{new[0]}'; mend them and repeat the call, or give another folder"
            )
        # One that has been mended since is left out of all views.
        keys = np.array(sorted(set(rows) - set(map(image_key, self.unreadable))), np.uint64)
        columns = zip(*(rows[int(key)] for key in keys), strict=True)
        scores, classes, signatures = (np.stack(column) for column in columns)
        tensors = dict(keys=keys, scores=scores, signatures=signatures)
        if self.topk < self.model.num_classes:
            tensors['classes'] = classes
        return tensors

    def _rows(self, loader: Any) -> Iterator[tuple[Any, ...]]:
        """Name, probabilities, their classes and signature of each image."""
        temperature = self.model.distill_loss.temperature
        preprocess = self.model.data_preprocessor.to(self.device)
        small = self.model.num_classes <= np.iinfo(np.uint16).max
        for batch in loader:
            data = preprocess(batch, training=False)
            scores = self.model.teachers.scores(data['inputs'], temperature)
            values, classes = self._greatest(scores)
            for index, sample in enumerate(data['data_samples']):
                yield (
                    sample.teacher_name,
                    values[index].astype(np.float16),
                    classes[index].astype(np.uint16 if small else np.uint32),
                    np.asarray(sample.teacher_signature, np.uint8),
                )

    def _greatest(self, scores: Tensor) -> tuple[np.ndarray, np.ndarray]:
        if self.topk == scores.shape[1]:
            order = torch.arange(self.topk).expand(scores.shape)
            return scores.cpu().numpy(), order.numpy()
        values, classes = scores.topk(self.topk, dim=1)
        return values.cpu().numpy(), classes.cpu().numpy()

    def _dataloader(self, view: int) -> Any:
        self.fixed.view = view
        return Runner.build_dataloader(
            dict(
                batch_size=self.batch_size,
                num_workers=self.workers,
                dataset=self.dataset,
                sampler=dict(type='DefaultSampler', shuffle=False),
                collate_fn=dict(type='default_collate'),
            )
        )

    def _meta(self) -> OutputsMeta:
        unreadable = self.unreadable or []
        keys = set(self.names) - set(map(image_key, unreadable))
        return OutputsMeta(
            num_classes=self.model.num_classes,
            topk=self.topk,
            temperature=self.model.distill_loss.temperature,
            teachers=[describe(spec) for spec in self.model.teacher_specs],
            fingerprints=self.fingerprints,
            transforms=self.transforms,
            seed=self.seed,
            images=digest_of(np.array(sorted(keys), np.uint64)),
            depths=sorted({name.count('/') + 1 for name in self.names.values()}, reverse=True),
            unreadable=unreadable,
        )

    def _check_same(self, view: int, there: OutputsMeta, wanted: OutputsMeta) -> None:
        for name, now in asdict(wanted).items():
            own = getattr(there, name)
            if own != now:
                raise InputError(
                    f"out_dir: '{view_path(self.folder, view)}' has other {name} ({own}; now: {now}); "
                    'give another folder'
                )
