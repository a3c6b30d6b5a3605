"""Evaluate an image classifier on corruptions and on the published test sets in one run."""

import logging
import os
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
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
from ..data.checks.checkpoint_classes import Labelled, compare_classes, labelled
from ..data.checks.loaders import check_data
from ..data.datasets import head_sizes
from ..data.loading import reported_files
from ..errors import InputError, check_least, several
from ..faults import any_fault, user_fault
from ..inference.images import with_progress
from ..inference.model import init_model
from ..inference.results import check_output
from ..reparam import reparameterize_model
from ..reparam.compare import fingerprint
from ..robustness.pipeline import EvaluatedImages, SplitPipeline, count_correct
from ..robustness.records import Counts, Records, digest
from ..robustness.report import plot, summarise, table
from ..robustness.sets import LAYOUTS, OWN_SETS, Evaluation, make_plan, own_images, read_set, wnids
from ..runs.prepare import ROBUSTNESS, prepare
from ..training.launch import select_device
from ..training.runner import Runner
from ..weights.unwrap import Weights, read_weights


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
    the checkpoint or an argument cannot be used. One at the end, after the table of the others, names
    the evaluations that failed.

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
    weights = read_weights(checkpoint)
    compare_classes(weights, _data(cfg, [evaluation.set for evaluation in plan]), as_it_is=True)
    path = Path(out or Path(cfg.work_dir, 'robustness.json')).expanduser()
    check_output(path, [config, checkpoint], formats=['.json'])
    if batch_size is not None:
        cfg.test_dataloader.batch_size = batch_size
    session = _Session(cfg, weights, chosen, seed, classes)
    about = {'config': str(config), 'checkpoint': str(checkpoint), 'seed': seed}
    records = Records(path, session.digest, about, fresh)
    results, failures = session.run(plan, records)
    summary = summarise(results, imagenet=classes == 1000)
    records.write(summary)
    plot(summary, path.with_suffix('.png'))
    if broken := reported_files(reset=True):
        print_log(f'{broken} files cannot be read; they count as grey images.', 'current')
    print(f'\n{table(summary)}\nResults in {path}, plot in {path.with_suffix(".png")}')
    _raise_failures(failures, len(plan))
    return summary


def _raise_failures(failures: Mapping[str, Exception], total: int) -> None:
    """Name the evaluations that failed; a fault of the program keeps its traceback."""
    if not failures:
        return
    reasons = [f'{name}: {any_fault(error)}' for name, error in failures.items()]
    line = (
        f'{len(failures)} of {total} evaluations failed; the others are stored, and a second call '
        f'repeats these alone: {several(reasons)}'
    )
    for error in failures.values():
        if user_fault(error) is None:
            print_log(line, 'current', logging.ERROR)
            raise error
    raise InputError(line)


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


def _data(cfg: Config, sets: Sequence[str]) -> Iterator[Labelled]:
    """Yield the class names of the data of an evaluation."""
    if any(name in OWN_SETS for name in sets):
        yield from labelled(cfg, ['test_dataloader'])
    published = [name for name in sets if name in LAYOUTS]
    if published:
        from mmpretrain.datasets.categories import IMAGENET_CATEGORIES

        known = [wnids(), tuple(IMAGENET_CATEGORIES)]
        yield Labelled(
            LAYOUTS[published[0]].title, known, 'test a model with the order of ImageNet'
        )


class _Session:
    """The model with its pipeline, and one evaluation after the other."""

    def __init__(
        self, cfg: Config, weights: Weights, device: str, seed: int, classes: int | None
    ) -> None:
        self.cfg, self.seed, self.classes = cfg, seed, classes
        found = [data for _, data in datasets(cfg, 'test_dataloader')]
        steps = found[0].get('pipeline') if len(found) == 1 else None
        if not steps:
            raise InputError("test_dataloader.dataset: expected one dataset with a 'pipeline'")
        with config_faults(cfg):
            self.pipeline = SplitPipeline(steps)
        model, _ = init_model(cfg, weights, device)
        self.digest = digest(fingerprint(model), cfg.model, cfg.get('data_preprocessor'), steps)
        self.model = reparameterize_model(model, inplace=True)

    def run(
        self, plan: Sequence[Evaluation], records: Records
    ) -> tuple[dict[Evaluation, Counts], dict[str, Exception]]:
        """Evaluate what the records do not have, and log the remaining time.

        An evaluation that fails does not end the others. Returns the results, and the errors by name.
        If nothing can be evaluated, the first error is raised.
        """
        result: dict[Evaluation, Counts] = {}
        failures: dict[str, Exception] = {}
        seconds: list[float] = []
        for index, evaluation in enumerate(plan, 1):
            start, place = time.monotonic(), f'[{index}/{len(plan)}] {evaluation.name}'
            note = 'from an earlier call'
            try:
                key, dataset = self._dataset(evaluation)
                counts = records.get(evaluation.name, key)
                found = counts or self._evaluate(evaluation.name, dataset)
            except Exception as error:
                traceback.clear_frames(error.__traceback__)  # the tensors need memory
                failures[evaluation.name] = error
                print_log(f'{place}: failed: {any_fault(error)}', 'current', logging.WARNING)
                continue
            if counts is None:
                records.put(evaluation.name, key, found)
                seconds.append(time.monotonic() - start)
                left = sum(seconds) / len(seconds) * (len(plan) - index)
                note = f'eta: {timedelta(seconds=int(left))}'
            result[evaluation] = found
            print_log(
                f'{place}: accuracy/top1: {100 - 100 * found.error:.2f}  images: {found.images}  '
                f'{note}',
                'current',
            )
        if not result:
            raise next(iter(failures.values()))
        return result, failures

    @cached_property
    def own(self) -> EvaluatedImages:
        """The test set of the config."""
        with config_faults(self.cfg):
            dataset = DATASETS.build(self.cfg.test_dataloader.dataset)
            dataset.full_init()
        return EvaluatedImages(own_images(dataset), self.pipeline)

    def _dataset(self, evaluation: Evaluation) -> tuple[str, EvaluatedImages]:
        """Return the images of an evaluation and their digest; the contents of files are not read."""
        if evaluation.folder is not None:
            images = read_set(evaluation.set, evaluation.folder)
            dataset = EvaluatedImages(images, self.pipeline, stored=evaluation.set == 'c')
        elif evaluation.corruption:
            corruption = evaluation.corruption, evaluation.severity, self.seed
            dataset = replace(self.own, corruption=corruption)
        else:
            dataset = self.own
        return digest(evaluation.name, dataset.images[1:], dataset.corruption), dataset

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
