"""What a test leaves behind: predictions as CSV or pickle, metrics as JSON."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.evaluator import BaseMetric, DumpResults

from ..errors import InputError
from ..files import atomic_text
from ..training.folders import check_writable

FORMATS = ('.csv', '.json', '.pkl', '.pickle')


class PredictionsCSV(BaseMetric):
    """Writes a classifier's predictions, one line an image: file, label, prediction, probability.

    Files are named below the folder of images; the label is empty where there is none.

    Args:
        path: The CSV file.
        folder: The folder of images.
    """

    def __init__(self, path: str | Path, folder: str = '') -> None:
        super().__init__(collect_device='cpu')
        self.path = path
        self.folder = folder

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:  # noqa: ARG002
        """Take the predictions of a batch.

        Raises:
            InputError: The model is no classifier.
        """
        for sample in data_samples:
            if 'pred_score' not in sample:
                raise InputError(f'--out {self.path}: a CSV is for classifiers; use .pkl')
            score = sample['pred_score']
            best = int(score.argmax())
            label = sample.get('gt_label')
            self.results.append(
                dict(
                    file=self._name(str(sample.get('img_path', ''))),
                    label_index='' if label is None else ' '.join(str(int(v)) for v in label),
                    predicted_index=best,
                    probability=f'{float(score[best]):.6f}',
                )
            )

    def compute_metrics(self, results: list[dict]) -> dict:
        """Write the file; there is no metric to report."""
        text = io.StringIO()
        columns = ('file', 'label_index', 'predicted_index', 'probability')
        writer = csv.DictWriter(text, columns, lineterminator='\n')
        writer.writeheader()
        writer.writerows(results)
        atomic_text(self.path, text.getvalue())
        return {}

    def _name(self, path: str) -> str:
        if not self.folder:
            return path
        name = os.path.relpath(path, self.folder)
        return path if name.startswith('..') else Path(name).as_posix()


def check_output(out: str | Path, inputs: Sequence[str | Path] = ()) -> None:
    """Check the name and the folder of an output file before a long run.

    Args:
        out: The file.
        inputs: Files that it must not be.

    Raises:
        InputError: The format is unknown, it is an input, or the folder cannot be written.
    """
    suffix = Path(out).suffix
    if suffix not in FORMATS:
        raise InputError(f"--out: got '{out}'; a name that ends in {', '.join(FORMATS)} is allowed")
    if Path(out).is_dir():
        raise InputError(f"--out: '{out}' is a folder; give the name of a file")
    if any(os.path.realpath(out) == os.path.realpath(path) for path in inputs):
        raise InputError(f"--out: '{out}' would overwrite an input; choose another name")
    check_writable(Path(out).absolute().parent, '--out')


def add_output(runner: Any, out: str | None) -> None:
    """Make a test write its predictions, if the output's format is one of predictions."""
    if not out or out.endswith('.json'):
        return
    metrics = runner.test_evaluator.metrics
    if out.endswith('.csv'):
        dataset = runner.test_dataloader.dataset
        metrics.append(PredictionsCSV(out, getattr(dataset, 'img_prefix', '')))
    elif runner.cfg.get('default_scope') == 'mmdet':
        from mmdet.evaluation import DumpDetResults

        metrics.append(DumpDetResults(out_file_path=out))
    else:
        metrics.append(DumpResults(out_file_path=out))


def write_metrics(runner: Any, metrics: dict, out: str | None) -> None:
    """Write the metrics, if the output's format is JSON."""
    if out and out.endswith('.json') and is_main_process():
        # mmseg's metrics are NumPy numbers, which json does not know.
        plain = {name: _number(value) for name, value in metrics.items()}
        atomic_text(out, json.dumps(plain, indent=2) + '\n')
    runner.logger.info('Done.')


def _number(value: Any) -> Any:
    return value.item() if hasattr(value, 'item') else value
