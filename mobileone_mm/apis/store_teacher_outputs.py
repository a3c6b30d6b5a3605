"""Run the teachers of a config over its training images once, and store their outputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS

from ..config.explain import config_faults
from ..config.tree import datasets
from ..distill import stored
from ..distill.teachers import describe
from ..distill.views import SIGNATURE, FixedView, wrap_pipeline
from ..errors import InputError, check_least
from ..inference.images import with_progress
from ..runs.prepare import TEACHERS, prepare
from ..training.folders import check_writable
from ..training.launch import select_device
from ..training.runner import Runner


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
) -> None:
    """Store the outputs of the teachers for some views of every training image; print what was done.

    Existing views are kept: repeat an interrupted call, add views later, or write different views
    on several machines. Damaged views are written again.

    Args:
        config: A config with a distilling classifier.
        topk: Number of probabilities for each image; 0 for all.
        seed: Source of the seeds of the views.
        batch_size: Images of a batch; by default that of the training.

    Raises:
        InputError: The config or an argument cannot be used, or the folder holds views with other
            settings.
    """
    check_least(1, views=views, batch_size=batch_size)
    check_least(0, first_view=first_view, topk=topk, seed=seed)
    chosen = select_device(device)
    cfg = prepare(config, cfg_options, TEACHERS).cfg
    if 'outputs' in cfg.model:
        cfg.model.outputs = None
    with config_faults(cfg):
        model = MODELS.build(cfg.model)
        if not hasattr(model, 'load_teachers'):
            raise InputError(
                f'config: its model is a {type(model).__name__}, which has no teachers; give a config '
                'with mobileone_mm.DistillClassifier'
            )
        model.load_teachers()
    if topk > model.num_classes:
        raise InputError(f'--topk: got {topk}; the teachers have {model.num_classes} classes')
    check_writable(out_dir, 'out_dir')
    model.data_preprocessor.to(chosen)
    storing = _Storing(cfg, model, topk or model.num_classes, seed, batch_size)
    storing.run(Path(out_dir).expanduser(), range(first_view, first_view + views))


class _Storing:
    """Makes views one after the other: dataset, teachers, and what all views have in common."""

    def __init__(
        self, cfg: Config, model: Any, topk: int, seed: int, batch_size: int | None
    ) -> None:
        found = list(datasets(cfg, 'train_dataloader'))
        if len(found) != 1:
            raise InputError(
                f'train_dataloader.dataset: joins {len(found)} datasets; store the outputs of one'
            )
        ((path, dataset),) = found
        root = str(Path(dataset.get('data_root') or ''))
        wrapper = dict(type='mobileone_mm.FixedView', root=root, seed=seed)
        fields = 'teacher_name', 'teacher_signature'
        steps = wrap_pipeline(dataset['pipeline'], f'{path}.pipeline', wrapper, *fields)
        with config_faults(cfg):
            self.dataset = DATASETS.build({**dataset, 'pipeline': steps})
        (self.fixed,) = (t for t in self.dataset.pipeline.transforms if isinstance(t, FixedView))
        self.model = model
        self.loader = dict(
            batch_size=batch_size or cfg.train_dataloader.batch_size,
            num_workers=cfg.train_dataloader.get('num_workers', 0),
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='default_collate'),
        )
        paths = (self.dataset.get_data_info(i)['img_path'] for i in range(len(self.dataset)))
        names = [self.fixed.name_of(path) for path in paths]
        self.keys = self._keys(names)
        self.meta = stored.OutputsMeta(
            num_classes=model.num_classes,
            topk=topk,
            temperature=model.distill_loss.temperature,
            teachers=[describe(spec) for spec in model.teacher_specs],
            fingerprints=[teacher.fingerprint() for teacher in model.teachers.members],
            transforms=stored.plain_config(steps[1]['transforms']),
            seed=seed,
            images=stored.digest_of(self.keys),
            depths=sorted({name.count('/') + 1 for name in names}, reverse=True),
        )

    @staticmethod
    def _keys(names: Iterable[str]) -> np.ndarray:
        """Return the sorted keys of the images."""
        found: dict[int, str] = {}
        for name in names:
            other = found.setdefault(stored.image_key(name), name)
            if other != name:
                raise InputError(f"images '{name}' and '{other}' have one key; rename one")
        return np.array(sorted(found), np.uint64)

    def run(self, folder: Path, wanted: range) -> None:
        damaged = self._check_existing(folder)
        existing = set(stored.views_in(folder)) - set(damaged)
        missing = [view for view in wanted if view not in existing]
        rests, unreadable = [], 0
        for view in missing:
            tensors = self._view(view)
            path = stored.write_view(folder, view, tensors, self.meta)
            print(f'{path}: {path.stat().st_size} bytes')
            sums = tensors['scores'].sum(1, dtype=np.float64)
            readable = np.count_nonzero(sums)
            unreadable = len(sums) - readable
            rests.append(1 - sums.sum() / max(1, readable))
        for what, views in (
            ('exist already', [view for view in wanted if view in existing]),
            ('were damaged and are written again', [view for view in damaged if view in wanted]),
        ):
            if views:
                print(f'views that {what}: {", ".join(map(str, views))}')
        for view in damaged:
            if view not in wanted:
                print(f'view {view} is damaged; write it again with --first-view {view} --views 1')
        if missing:
            print(
                f'{readable} images in each view; the stored classes leave {np.mean(rests):.4f} of '
                'the probability to the others'
            )
        if unreadable:
            print(f'{unreadable} images could not be read and have no outputs')

    def _check_existing(self, folder: Path) -> list[int]:
        """Compare the views of the folder with the settings of this call; return the damaged ones."""
        damaged = []
        for view in stored.views_in(folder):
            path = stored.view_path(folder, view)
            try:
                _, there = stored.open_view(path, verify=True)
            except stored.DamagedViewError:
                damaged.append(view)
                continue
            for name, now in asdict(self.meta).items():
                own = stored.plain_config(getattr(there, name))
                if own != now:
                    raise InputError(
                        f"out_dir: '{path}' has other {name} ({own}; now: {now}); give another folder"
                    )
        return damaged

    def _view(self, view: int) -> dict[str, np.ndarray]:
        """Make the tensors of a view; the row of an unreadable image stays 0."""
        self.fixed.view = view
        loader: Any = Runner.build_dataloader(dict(self.loader, dataset=self.dataset))
        scores = np.zeros((len(self.keys), self.meta.topk), np.float16)
        classes_type = np.uint16 if self.meta.num_classes <= 1 << 16 else np.uint32
        classes = np.zeros(scores.shape, classes_type)
        signatures = np.zeros((len(self.keys), SIGNATURE), np.uint8)
        for batch in with_progress(loader, f'View {view}'):
            data = self.model.data_preprocessor(batch, training=False)
            names = [stored.image_key(sample.teacher_name) for sample in data['data_samples']]
            rows = np.searchsorted(self.keys, np.array(names, np.uint64))
            found = self.model.teachers.scores(data['inputs'], self.meta.temperature).cpu()
            if self.meta.topk < self.meta.num_classes:
                found, greatest = found.topk(self.meta.topk, dim=1)
                classes[rows] = greatest
            scores[rows] = found
            signatures[rows] = [sample.teacher_signature for sample in data['data_samples']]
        tensors: dict[str, np.ndarray] = dict(keys=self.keys, scores=scores, signatures=signatures)
        if self.meta.topk < self.meta.num_classes:
            tensors['classes'] = classes
        return tensors
