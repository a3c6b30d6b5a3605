"""Evaluate an image classifier on corruptions and on the published test sets in one run."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import DATASETS

from ..config.explain import config_faults
from ..config.tree import datasets
from ..data.checks.loaders import check_data
from ..data.datasets import head_sizes
from ..data.loading import reported_files
from ..errors import InputError, check_least
from ..inference.images import with_progress
from ..inference.model import init_model
from ..inference.results import check_output
from ..reparam import reparameterize_model
from ..reparam.compare import fingerprint
from ..robustness.pipeline import EvaluatedImages, SplitPipeline, count_correct
from ..robustness.records import Counts, Records, digest
from ..robustness.report import plot, summarise, table
from ..robustness.sets import LAYOUTS, OWN_SETS, Evaluation, make_plan, own_images, read_set
from ..runs.prepare import ROBUSTNESS, prepare
from ..training.launch import select_device
from ..training.runner import Runner


def evaluate_robustness(
    config: str | Path,
    checkpoint: str | Path,
    root: str | Path | None = None,
    sets: Sequence[str] | None = None,
    corruptions: Sequence[str] | None = None,
    severities: Sequence[int] | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    fresh: bool = False,
    work_dir: str | None = None,
    out: str | None = None,
    cfg_options: Mapping[str, Any] | None = None,
    device: str | None = None,
) -> dict[str, Any]:
    """Evaluate a classifier, print a table, and write the results as JSON with a plot beside it.

    The file is written after each evaluation, so that a second call continues an interrupted one.
    It holds the results of several models. Units with branches are fused in memory. Returns the
    summary, see :func:`~mobileone_mm.robustness.report.summarise`. An InputError says that the config,
    the checkpoint or an argument cannot be used.

    Args:
        root: See :func:`~mobileone_mm.robustness.sets.make_plan`, also for the next three.
        seed: Seed of generated corruptions.
        fresh: Evaluate again what an earlier call has evaluated.
        out: The JSON file, by default ``robustness.json`` in the work dir.
    """
    chosen = select_device(device)
    check_least(0, seed=seed)
    check_least(1, batch_size=batch_size)
    cfg = prepare(config, cfg_options, ROBUSTNESS, work_dir=work_dir).cfg
    roots = [data.get('data_root') or '' for _, data in datasets(cfg, 'test_dataloader')]
    plan = make_plan(root, sets, corruptions, severities, own=any(map(os.path.isdir, roots)))
    classes = _check_classifier(cfg, [evaluation.set for evaluation in plan])
    if any(evaluation.set in OWN_SETS for evaluation in plan):
        check_data(cfg, ('test_dataloader',))
    path = Path(out or Path(cfg.work_dir, 'robustness.json')).expanduser()
    check_output(path, [config, checkpoint], formats=['.json'])
    if batch_size is not None:
        cfg.test_dataloader.batch_size = batch_size
    session = _Session(cfg, checkpoint, chosen, seed, classes)
    about = {'config': str(config), 'checkpoint': str(checkpoint), 'seed': seed}
    records = Records(path, session.digest, about, fresh)
    summary = summarise(session.run(plan, records), imagenet=classes == 1000)
    records.write(summary)
    plot(summary, path.with_suffix('.png'))
    if broken := reported_files(reset=True):
        print_log(f'{broken} files cannot be read; they count as grey images.', 'current')
    print(f'\n{table(summary)}\nResults in {path}, plot in {path.with_suffix(".png")}')
    return summary


def _check_classifier(cfg: Config, sets: Sequence[str]) -> int | None:
    """Return the number of classes of the model; None if the config does not contain it."""
    scope = cfg.get('default_scope')
    if scope != 'mmpretrain':
        raise InputError(
            f"config: default_scope is '{scope}'; expected an image classifier, whose scope is "
            'mmpretrain'
        )
    classes = dict(head_sizes(cfg.model)).get('model.head.num_classes')
    published = [name for name in sets if name in LAYOUTS]
    if classes not in (None, 1000) and published:
        raise InputError(
            f'model.head.num_classes is {classes}; {LAYOUTS[published[0]].title} needs the 1000 '
            'classes of ImageNet; for another model take --sets clean generated'
        )
    return 1000 if published else classes


class _Session:
    """The model with its pipeline, and one evaluation after the other."""

    def __init__(
        self, cfg: Config, checkpoint: str | Path, device: str, seed: int, classes: int | None
    ) -> None:
        self.cfg, self.seed, self.classes = cfg, seed, classes
        found = [data for _, data in datasets(cfg, 'test_dataloader')]
        steps = found[0].get('pipeline') if len(found) == 1 else None
        if not steps:
            raise InputError("test_dataloader.dataset: expected one dataset with a 'pipeline'")
        with config_faults(cfg):
            self.pipeline = SplitPipeline(steps)
        model, _ = init_model(cfg, checkpoint, device)
        self.digest = digest(fingerprint(model), cfg.model, cfg.get('data_preprocessor'), steps)
        self.model = reparameterize_model(model, inplace=True)

    def run(self, plan: Sequence[Evaluation], records: Records) -> dict[Evaluation, Counts]:
        """Evaluate what the records do not have, and log the remaining time."""
        result: dict[Evaluation, Counts] = {}
        seconds: list[float] = []
        for index, evaluation in enumerate(plan, 1):
            start = time.monotonic()
            dataset = self._dataset(evaluation)
            # The contents of the files are not read.
            key = digest(evaluation.name, dataset.images[1:], dataset.corruption)
            counts, note = records.get(evaluation.name, key), 'from an earlier call'
            if counts is None:
                counts = self._evaluate(evaluation.name, dataset)
                records.put(evaluation.name, key, counts)
                seconds.append(time.monotonic() - start)
                left = sum(seconds) / len(seconds) * (len(plan) - index)
                note = f'eta: {timedelta(seconds=int(left))}'
            result[evaluation] = counts
            print_log(
                f'[{index}/{len(plan)}] {evaluation.name}: accuracy/top1: '
                f'{100 - 100 * counts.error:.2f}  images: {counts.images}  {note}',
                'current',
            )
        return result

    @cached_property
    def own(self) -> EvaluatedImages:
        """The test set of the config."""
        with config_faults(self.cfg):
            dataset = DATASETS.build(self.cfg.test_dataloader.dataset)
            dataset.full_init()
        return EvaluatedImages(own_images(dataset), self.pipeline)

    def _dataset(self, evaluation: Evaluation) -> EvaluatedImages:
        if evaluation.folder is not None:
            images = read_set(evaluation.set, evaluation.folder)
            return EvaluatedImages(images, self.pipeline, stored=evaluation.set == 'c')
        if not evaluation.corruption:
            return self.own
        corruption = evaluation.corruption, evaluation.severity, self.seed
        return replace(self.own, corruption=corruption)

    def _evaluate(self, name: str, dataset: EvaluatedImages) -> Counts:
        loader = dict(
            self.cfg.test_dataloader,
            dataset=dataset,
            persistent_workers=False,  # the loader serves once
            drop_last=False,
            sampler=dict(type='DefaultSampler', shuffle=False),
        )
        with config_faults(self.cfg):
            batches: Any = Runner.build_dataloader(loader)
        images, shown = dataset.images, with_progress(batches, name)
        top1, top5 = count_correct(self.model, shown, images.limit, self.classes)
        return Counts(len(dataset), top1, top5, len(set(images.labels)))
