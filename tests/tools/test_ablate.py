"""tools/analysis_tools/ablate.py: the runs, what is compared, and what happens when one fails."""

import json
import subprocess
import sys
import threading
import time

import pytest
from mmengine.config import Config
from PIL import Image

from helpers import ROOT, scalars, write_files
from mobileone_mm.apis import ablate as ablation
from mobileone_mm.apis.ablate import ablate, read_variants
from mobileone_mm.errors import InputError

VARIANTS = """
variants = {
    'whole': {},
    'slow rate': {'optim_wrapper.optimizer.lr': 1e-5},
}
"""


@pytest.fixture
def variants(tmp_path):
    return lambda text=VARIANTS: write_files(tmp_path, {'variants.py': text}) / 'variants.py'


@pytest.fixture
def trained(monkeypatch):
    """Runs that were asked for; in the place of training, the metric is told by the config."""
    runs = []

    def train(self, run):
        runs.append((run.variant, run.seed))
        config = run.folder / 'config.py'
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(run.text)
        cfg = Config.fromfile(config)
        if cfg.optim_wrapper.optimizer.lr == 7:
            raise InputError('it went wrong')
        return 1000 * cfg.optim_wrapper.optimizer.lr + cfg.randomness.seed

    monkeypatch.setattr(ablation._Trainer, '__call__', train)
    return runs


def test_real_runs_are_recorded_and_left_out_the_second_time(
    tool, tiny_config, variants, tmp_path, capfd
):
    config, work_dir = tiny_config('cls'), tmp_path / 'runs'
    command = ('ablate', config, variants(), '--work-dir', work_dir, '--device', 'cpu')
    assert tool(*command, '--seeds', 3, '--jobs', 2) == 0
    out = capfd.readouterr().out
    assert '2 runs, 0 of them done before' in out
    assert '| whole |' in out
    assert '| slow rate |' in out
    summary = json.loads((work_dir / 'ablation.json').read_text())
    assert summary['metric'] == 'accuracy/top1'
    for name, place in (('whole', 'whole'), ('slow rate', 'slow_rate')):
        folder = work_dir / place / 'seed_3'
        cfg = Config.fromfile(folder / 'config.py')
        assert cfg.randomness.seed == 3
        assert (cfg.optim_wrapper.optimizer.lr == 1e-5) is (name == 'slow rate')
        assert not list(folder.glob('*.pth'))
        measured = [row['accuracy/top1'] for row in scalars(folder) if 'accuracy/top1' in row]
        assert summary['variants'][name]['values'] == measured[-1:]
    assert Image.open(work_dir / 'ablation.png').size[0] > 400
    assert tool(*command, '--seeds', 3) == 0
    assert '2 runs, 2 of them done before' in capfd.readouterr().out


def test_pairs_are_compared(tiny_config, variants, trained, tmp_path):
    config, work_dir = tiny_config('cls'), str(tmp_path / 'runs')
    options = {'optim_wrapper.optimizer.lr': 0.5}
    summary = ablate(config, variants(), ROOT, seeds=(0, 5), work_dir=work_dir, cfg_options=options)
    assert trained == [('whole', 0), ('slow rate', 0), ('whole', 5), ('slow rate', 5)]
    assert summary['variants']['whole']['values'] == [500, 505]
    slow = summary['variants']['slow rate']
    assert slow['difference'] == slow['lowest'] == slow['highest'] == pytest.approx(0.01 - 500)
    assert slow['error'] == pytest.approx(0)
    # Another seed and another variant: what is done is left out.
    others = variants(VARIANTS.replace("'slow", "'other': {},\n    'slow"))
    ablate(config, others, ROOT, (5, 6), ['slow rate'], work_dir=work_dir, cfg_options=options)
    assert trained[4:] == [('whole', 6), ('slow rate', 6)]
    # Without the option "whole" is another run; the variant, which sets the same key, is not.
    ablate(config, variants(), ROOT, seeds=(0,), work_dir=work_dir)
    assert trained[6:] == [('whole', 0)]
    # What is recorded is the value of another metric.
    ablate(config, variants(), ROOT, seeds=(0,), work_dir=work_dir, metric='loss')
    assert trained[7:] == [('whole', 0), ('slow rate', 0)]


def test_what_was_done_before_a_failure_is_kept(tiny_config, variants, trained, tmp_path):
    config, work_dir = tiny_config('cls'), tmp_path / 'runs'
    text = VARIANTS.replace('1e-5', '7')
    with pytest.raises(InputError, match='it went wrong'):
        ablate(config, variants(text), ROOT, seeds=(0,), work_dir=str(work_dir))
    ablate(config, variants(), ROOT, seeds=(0,), work_dir=str(work_dir))
    assert trained == [('whole', 0), ('slow rate', 0), ('slow rate', 0)]
    (work_dir / 'runs.json').write_text('{"a": [')
    with pytest.raises(InputError, match='is not a record of runs'):
        ablate(config, variants(), ROOT, work_dir=str(work_dir))


class Popen(subprocess.Popen):
    """In the place of training: a process that sleeps, or ends at once."""

    seconds, started = 0, staticmethod(lambda: None)

    def __init__(self, *args, **kwargs):
        super().__init__(
            [sys.executable, '-c', f'import time; time.sleep({self.seconds})'], **kwargs
        )
        self.started()


def test_stop_ends_a_run_that_is_just_starting(monkeypatch, tmp_path):
    """stop() comes after the check whether to start, before the process is known."""
    trainer = ablation._Trainer(ROOT / 'tools' / 'train.py', 2, False, None)

    def stop():
        threading.Thread(target=trainer.stop).start()
        time.sleep(0.3)

    monkeypatch.setattr(subprocess, 'Popen', Popen)
    run = ablation.Run('a', 0, '', 'mIoU', tmp_path)
    with pytest.raises(InputError, match="^--metric: 'mIoU' is not in the log"):
        trainer(run)
    monkeypatch.setattr(Popen, 'seconds', 30)
    monkeypatch.setattr(Popen, 'started', staticmethod(stop))
    start = time.monotonic()
    with pytest.raises(InputError, match='exit code -15'):
        trainer(run)
    assert time.monotonic() - start < 20
    with pytest.raises(InputError, match='stopped'):
        trainer(run)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('variants = {}', 'two or more names'),
        ('variants = [1, 2]', 'two or more names'),
        ("variants = {'a': {}, 'b': 3}", "'b' is not a dict"),
        ("variants = {'a b': {}, 'a+b': {}}", "share the folder 'a_b'"),
        ('variants = {', 'cannot be read'),
    ],
)
def test_files_that_hold_no_variants(variants, text, message):
    with pytest.raises(InputError, match=message):
        read_variants(variants(text))


def test_refused(refused, tiny_config, variants, trained, tmp_path):
    config, work_dir = tiny_config('cls'), tmp_path / 'runs'
    text = VARIANTS.replace('1e-5', '-1')
    wrong = variants(text).rename(tmp_path / 'wrong.py')
    for given, arguments, message in (
        (variants(), ('--seeds', 1, 1), '--seeds: got [1, 1]'),
        (variants(), ('--seeds', -1), '--seeds: got [-1]'),
        (variants(), ('--jobs', 0), '--jobs: got 0'),
        (variants(), ('--only', 'fast'), "--only: got 'fast'; the variants are whole, slow rate"),
        (variants(), ('--cfg-options', 'modle.x=1'), 'modle'),
        (variants(), ('--cfg-options', 'val_evaluator=None'), 'val_evaluator'),
        (tmp_path / 'none.py', (), 'cannot be read'),
        (wrong, (), "variant 'slow rate': optim_wrapper.optimizer.lr: got -1"),
    ):
        assert message in refused('ablate', config, given, '--work-dir', work_dir, *arguments)
    assert not trained
