"""Files of a test: predictions as CSV or pickle, metrics as JSON."""

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
_COLUMNS = ('file', 'label_index', 'predicted_index', 'probability')


class PredictionsCSV(BaseMetric):
    """Writes a classifier's predictions, one line for each image; the label is empty without one.

    The images are named by their paths below ``folder``.
    """

    def __init__(self, path: str | Path, folder: str = '') -> None:
        super().__init__(collect_device='cpu')
        self.path, self.folder = path, folder

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:  # noqa: ARG002
        """Collect the predictions of a batch."""
        for sample in data_samples:
            if 'pred_score' not in sample:
                raise InputError(f'--out {self.path}: a CSV is for classifiers; use .pkl')
            score, label = sample['pred_score'], sample.get('gt_label')
            best = int(score.argmax())
            labels = '' if label is None else ' '.join(str(int(value)) for value in label)
            path = str(sample.get('img_path', ''))
            below = os.path.relpath(path, self.folder) if self.folder else '..'
            name = path if below.startswith('..') else Path(below).as_posix()
            self.results.append((name, labels, best, f'{float(score[best]):.6f}'))

    def compute_metrics(self, results: list) -> dict:
        """Write the file; there is no metric to report."""
        text = io.StringIO()
        csv.writer(text, lineterminator='\n').writerows([_COLUMNS, *results])
        atomic_text(self.path, text.getvalue())
        return {}


def check_output(
    out: str | Path, inputs: Sequence[str | Path], formats: Sequence[str] = FORMATS
) -> None:
    """Check before a long run that an output file can be written and is none of the inputs.

    An InputError says what is wrong: the format, the file or its folder.
    """
    if Path(out).suffix not in formats:
        raise InputError(f"--out: got '{out}'; expected a name that ends in {', '.join(formats)}")
    if Path(out).is_dir():
        raise InputError(f"--out: '{out}' is a folder; give the name of a file")
    if any(os.path.realpath(out) == os.path.realpath(path) for path in inputs):
        raise InputError(f"--out: '{out}' would overwrite an input; choose another name")
    check_writable(Path(out).absolute().parent, '--out')


def add_output(runner: Any, out: str | None) -> None:
    """Make a test write its predictions, unless the output file is for metrics."""
    if not out or out.endswith('.json'):
        return
    metric: Any
    if out.endswith('.csv'):
        metric = PredictionsCSV(out, getattr(runner.test_dataloader.dataset, 'img_prefix', ''))
    elif runner.cfg.get('default_scope') == 'mmdet':
        from mmdet.evaluation import DumpDetResults

        metric = DumpDetResults(out_file_path=out)
    else:
        metric = DumpResults(out_file_path=out)
    runner.test_evaluator.metrics.append(metric)


def write_metrics(runner: Any, metrics: dict, out: str | None) -> None:
    """Write the metrics, if the output file is for metrics."""
    if out and out.endswith('.json') and is_main_process():
        # mmseg's metrics are NumPy numbers, which json cannot write.
        plain = {k: v.item() if hasattr(v, 'item') else v for k, v in metrics.items()}
        atomic_text(out, json.dumps(plain, indent=2) + '\n')
    runner.logger.info('Done.')
