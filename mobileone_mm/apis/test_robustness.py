"""Robustness of an image classifier: corruptions and the published test sets in one run."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
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
from ..errors import InputError
from ..inference.model import init_model
from ..inference.results import check_output
from ..reparam import reparameterize_model
from ..robustness.counting import count_right, own_images
from ..robustness.layouts import LAYOUTS, Images, read_set
from ..robustness.pipeline import Corruption, EvaluatedImages, TestPipeline, keep_crops
from ..robustness.plan import OWN_SETS, Evaluation, make_plan
from ..robustness.records import Counts, Records, digest, images_digest, model_digest
from ..robustness.report import plot, summarise, table
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
    """Evaluate a classifier on corrupted images and on the published test sets.

    Writes the results as JSON after each evaluation, so that a second call continues an interrupted
    one, and a plot beside it at the end. Blocks with branches are fused in memory.

    Args:
        config: Path of the config.
        checkpoint: Path of the weights; they must be those of the config's model.
        root: See :func:`~mobileone_mm.robustness.plan.make_plan`, as for the next three.
        sets: What to evaluate.
        corruptions: Names of corruptions.
        severities: Of 1 to 5.
        seed: For what is random in generated corruptions.
        batch_size: In place of the config's.
        fresh: Evaluate again what an earlier call has evaluated.
        work_dir: Folder of the results, by default ``work_dirs/<config>``.
        out: The JSON file, by default ``robustness.json`` in the work dir.
        cfg_options: Overrides by dotted key.
        device: ``cpu``, ``cuda`` or ``cuda:N``; by default the GPU if there is one.

    Returns:
        The summary, see :func:`~mobileone_mm.robustness.report.summarise`.

    Raises:
        InputError: Something that the user gave does not fit.
    """
    chosen = select_device(device)
    if seed < 0:
        raise InputError(f'--seed: got {seed}; 0 or more is allowed')
    if batch_size is not None and batch_size < 1:
        raise InputError(f'--batch-size: got {batch_size}; 1 or more is allowed')
    cfg = prepare(config, cfg_options, ROBUSTNESS, work_dir=work_dir, batch_size=batch_size).cfg
    plan = make_plan(root, sets, corruptions, severities, own=_has_data(cfg))
    classes = _check_classifier(cfg, {evaluation.set: None for evaluation in plan})
    if any(evaluation.set in OWN_SETS for evaluation in plan):
        check_data(cfg, ('test_dataloader',))
    out = _check_out(out or str(Path(cfg.work_dir, 'robustness.json')), [config, checkpoint])
    session = _Session(cfg, checkpoint, chosen, seed, classes)
    about = {'config': str(config), 'checkpoint': str(checkpoint), 'seed': seed}
    records = Records(out, session.digest, about, fresh)
    if records.dropped:
        print_log(f"'{out}': {records.dropped} earlier results are dropped.", 'current')
    summary = summarise(session.run(plan, records), imagenet=classes == 1000)
    records.write(summary)
    image = Path(out).with_suffix('.png')
    plot(summary, image)
    broken = reported_files(reset=True)
    if broken:
        print_log(f'{broken} files could not be read; they were grey images.', 'current')
    print(f'\n{table(summary)}\nResults in {out}, plot in {image}')
    return summary


def _has_data(cfg: Config) -> bool:
    roots = [data.get('data_root') for _, data in datasets(cfg, 'test_dataloader')]
    return any(root and os.path.isdir(root) for root in roots)


def _check_out(out: str, inputs: Sequence[str | Path]) -> str:
    if Path(out).suffix != '.json':
        raise InputError(f"--out: got '{out}'; a name that ends in .json is needed")
    check_output(out, inputs)
    return out


def _check_classifier(cfg: Config, sets: Iterable[str]) -> int | None:
    """The number of the model's classes; None where the config does not say it."""
    scope = cfg.get('default_scope')
    if scope != 'mmpretrain':
        raise InputError(
            f"config: default_scope is '{scope}'; robustness is evaluated for image classifiers, "
            'whose configs are of mmpretrain'
        )
    classes = dict(head_sizes(cfg.model)).get('model.head.num_classes')
    published = [name for name in sets if name in LAYOUTS]
    if classes not in (None, 1000) and published:
        raise InputError(
            f"model.head.num_classes is {classes}; {LAYOUTS[published[0]].title} needs ImageNet's "
            '1000 classes; for another model take --sets clean generated'
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
            raise InputError("test_dataloader.dataset: one dataset with a 'pipeline' is needed")
        with config_faults(cfg):
            self.pipeline = TestPipeline(steps)
        model, _ = init_model(cfg, checkpoint, device)
        self.digest = digest(model_digest(model), cfg.model, cfg.get('data_preprocessor'), steps)
        self.model = reparameterize_model(model, inplace=True)
        self._own: Images | None = None
        self._crops: dict[int, dict[str, Any]] | None = None

    def run(
        self, plan: Sequence[Evaluation], records: Records
    ) -> dict[tuple[str, str, int], Counts]:
        """Evaluate what the records do not have, and say how long the rest will take."""
        result: dict[tuple[str, str, int], Counts] = {}
        seconds: list[float] = []
        for index, evaluation in enumerate(plan, 1):
            start = time.monotonic()
            images = self._images(evaluation)
            seed = self.seed if evaluation.set == 'generated' else None
            key = digest(evaluation.name, images_digest(images), seed)
            counts = records.get(evaluation.name, key)
            note = 'from an earlier call'
            if counts is None:
                counts = self._evaluate(evaluation, images)
                records.put(evaluation.name, key, counts)
                seconds.append(time.monotonic() - start)
                left = sum(seconds) / len(seconds) * (len(plan) - index)
                note = f'eta: {int(left // 3600)}:{time.strftime("%M:%S", time.gmtime(left))}'
            result[evaluation.set, evaluation.corruption, evaluation.severity] = counts
            top1 = 100 * counts.top1 / counts.images
            print_log(
                f'[{index}/{len(plan)}] {evaluation.name}: accuracy/top1: {top1:.2f}  '
                f'images: {counts.images}  {note}',
                'current',
            )
        return result

    def _images(self, evaluation: Evaluation) -> Images:
        if evaluation.folder is not None:
            return read_set(evaluation.set, evaluation.folder)
        if self._own is None:
            with config_faults(self.cfg):
                dataset = DATASETS.build(self.cfg.test_dataloader.dataset)
                dataset.full_init()
            self._own = own_images(dataset)
        return self._own

    def _evaluate(self, evaluation: Evaluation, images: Images) -> Counts:
        corruption = None
        if evaluation.set == 'generated':
            corruption = Corruption(evaluation.corruption, evaluation.severity, self.seed)
            if self._crops is None:
                self._crops = keep_crops(images, self.pipeline)
        dataset = EvaluatedImages(
            images,
            self.pipeline,
            corruption,
            stored=evaluation.set == 'c',
            crops=self._crops if corruption else None,
        )
        # The loader serves once: workers that outlive it would only hold memory.
        loader = dict(self.cfg.test_dataloader, dataset=dataset, persistent_workers=False,
                      drop_last=False, sampler=dict(type='DefaultSampler', shuffle=False))  # fmt: skip
        with config_faults(self.cfg):
            batches = Runner.build_dataloader(loader)
        shown = _with_progress(batches, evaluation.name)
        top1, top5 = count_right(self.model, shown, images.limit, self.classes)
        return Counts(len(dataset), top1, top5, len(set(images.labels)))


def _with_progress(batches: Any, name: str) -> Iterable[Any]:
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    disable = not console.is_terminal
    return track(batches, name, len(batches), console=console, transient=True, disable=disable)
