"""Run the teachers of a config over its training images once, and store their outputs."""

from collections.abc import Mapping
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS

from ..config.explain import config_faults
from ..config.tree import datasets
from ..distill import stored
from ..distill.partial import PartialView, check_part, part_path
from ..distill.views import FixedView, wrap_pipeline
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

    Existing views are kept, and a repeated call continues a view that was interrupted. Add views later,
    or write different views on several machines. Damaged views are written again. An InputError says
    that the config or an argument cannot be used, or that the folder holds views with other settings.

    Args:
        config: A config with a distilling classifier.
        topk: Number of probabilities for each image; 0 for all.
        seed: Source of the seeds of the views.
        batch_size: Images of a batch; by default that of the training.
    """
    check_least(1, views=views, batch_size=batch_size)
    check_least(0, first_view=first_view, topk=topk, seed=seed)
    chosen = select_device(device)
    cfg = prepare(config, cfg_options, TEACHERS).cfg
    model = _model(cfg)
    if topk > model.num_classes:
        raise InputError(f'--topk: got {topk}; the teachers have {model.num_classes} classes')
    check_writable(out_dir, 'out_dir')
    model.data_preprocessor.to(chosen)
    dataset, transforms = _dataset(cfg, seed)
    (fixed,) = (step for step in dataset.pipeline.transforms if isinstance(step, FixedView))
    paths = (dataset.get_data_info(index)['img_path'] for index in range(len(dataset)))
    order = [fixed.key_of(path) for path in paths]
    keys = np.array(sorted(set(order)), np.uint64)
    meta = _meta(model, topk, transforms, seed, keys)
    settings = dict(
        dataset=dataset,
        batch_size=batch_size or cfg.train_dataloader.batch_size,
        num_workers=cfg.train_dataloader.get('num_workers', 0),
        collate_fn=dict(type='default_collate'),
    )
    folder, wanted = Path(out_dir).expanduser(), range(first_view, first_view + views)
    kept = _check_existing(folder, wanted, meta)
    for view in wanted:
        path = stored.view_path(folder, view)
        if view in kept:
            part_path(path).unlink(missing_ok=True)
            print(f'{path}: exists already')
            continue
        fixed.view = view
        with PartialView(path, meta.rows(keys), meta) as part:
            rest = [index for index, key in enumerate(order) if key not in part.keys]
            if part.keys:
                print(f'{path}: continues with {len(part.keys)} of {len(keys)} images')
            if rest:
                loader: Any = Runner.build_dataloader(dict(settings, sampler=rest))
                _fill(part, with_progress(loader, f'View {view}'), model, meta)
            stored.write_view(path, part.rows, meta)
        part.path.unlink(missing_ok=True)
        read = np.count_nonzero(part.rows['scores'].any(1))
        missing = f'{len(keys) - read} images could not be read and have no outputs'
        print(f'{path}: {read} images; {missing}')


def _model(cfg: Config) -> Any:
    if 'outputs' in cfg.model:
        cfg.model.outputs = None
    with config_faults(cfg):
        model = MODELS.build(cfg.model)
        if not hasattr(model, 'load_teachers'):
            raise InputError(
                f'config: its model, {type(model).__name__}, has no teachers; give a config '
                'with mobileone_mm.DistillClassifier'
            )
        model.load_teachers()
    return model


def _dataset(cfg: Config, seed: int) -> tuple[Any, Any]:
    """Build the training set with views of its images; return it with their transforms."""
    found = list(datasets(cfg, 'train_dataloader'))
    if len(found) != 1:
        raise InputError(
            f'train_dataloader.dataset: joins {len(found)} datasets; store the outputs of one'
        )
    ((path, dataset),) = found
    root = str(Path(dataset.get('data_root') or ''))
    wrapper = dict(type='mobileone_mm.FixedView', root=root, seed=seed)
    fields = 'teacher_key', 'teacher_signature'
    steps = wrap_pipeline(dataset['pipeline'], f'{path}.pipeline', wrapper, *fields)
    with config_faults(cfg):
        return DATASETS.build({**dataset, 'pipeline': steps}), steps[1]['transforms']


def _meta(
    model: Any, topk: int, transforms: Any, seed: int, keys: np.ndarray
) -> stored.OutputsMeta:
    return stored.OutputsMeta(
        num_classes=model.num_classes,
        topk=topk or model.num_classes,
        temperature=model.distill_loss.temperature,
        teachers=[stored.describe(spec) for spec in model.teacher_specs],
        fingerprints=[teacher.fingerprint() for teacher in model.teachers.members],
        transforms=stored.plain_config(transforms),
        seed=seed,
        images=sha256(keys.tobytes()).hexdigest(),
    )


def _check_existing(folder: Path, wanted: range, meta: stored.OutputsMeta) -> set[int]:
    """Check the settings of the views in the folder, and return those that are not damaged."""
    kept = set()
    for view in wanted:
        check_part(stored.view_path(folder, view), meta)
    for view in stored.views_in(folder):
        path = stored.view_path(folder, view)
        try:
            _, there = stored.open_view(path, verify=True)
        except stored.DamagedViewError:
            again = 'is written' if view in wanted else f'write it with --first-view {view}'
            print(f'{path}: is damaged; {again} again')
            continue
        there.check(path, **asdict(meta))
        kept.add(view)
    return kept


def _fill(part: PartialView, batches: Any, model: Any, meta: stored.OutputsMeta) -> None:
    """Fill the rows of a view; that of an unreadable image stays 0."""
    rows = part.rows
    all_keys = rows['key'].copy()
    for batch in batches:
        data = model.data_preprocessor(batch, training=False)
        samples = data['data_samples']
        keys = np.array([sample.teacher_key for sample in samples], np.uint64)
        places = np.searchsorted(all_keys, keys)
        scores = model.teachers.scores(data['inputs'], meta.temperature).cpu()
        if meta.topk < meta.num_classes:
            scores, rows['classes'][places] = scores.topk(meta.topk, dim=1)
        rows['scores'][places] = scores
        rows['signature'][places] = [sample.teacher_signature for sample in samples]
        part.add(rows[places])
