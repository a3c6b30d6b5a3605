"""The demo's own logic; its steps are the tools, which have tests of their own."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demo import jobs as demo
from demo.__main__ import main
from helpers import ROOT, cfg_options, write_files
from mobileone_mm.config.read import load_config
from mobileone_mm.errors import ProofError


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """A demo whose tools only write what the next step reads."""
    calls = []
    metrics = {'before': 0.8, 'after': 0.8}

    def run(command, **kwargs):
        assert kwargs['check']
        calls.append(command[1])
        words = [str(word) for word in command]
        if 'train' in words[1]:
            write_files(tmp_path, {'train/last_checkpoint': 'epoch_3.pth'})
        elif 'test' in words[1]:
            out = Path(words[words.index('--out') + 1])
            out.write_text(json.dumps({here.job.metric: metrics[out.stem.partition('_')[2]]}))
        elif 'switch' in words[1]:
            report = dict(parameters=dict(before=9, after=8), latency=dict(ratio=1.5))
            (tmp_path / 'deploy.json').write_text(json.dumps(report))
        elif 'predict' in words[1]:
            folder = Path(words[words.index('--out-dir') + 1], 'vis', 'class')
            folder.mkdir(parents=True, exist_ok=True)
            for index in range(17):
                Image.new('RGB', (30, 20), (15 * index, 0, 0)).save(folder / f'{index:02d}.png')

    monkeypatch.setattr(demo.subprocess, 'run', run)
    monkeypatch.setattr(demo.Demo, '_make_data', lambda self: None)
    here = demo.Demo('det', tmp_path)
    return here, calls, metrics


def test_runs_all_tools_once(stage):
    here, calls, _ = stage
    summary = here.run()
    names = [f'tools/{n}.py' for n in ('train', 'test', 'switch_to_deploy', 'test', 'predict')]
    assert calls == names
    assert json.loads((here.folder / 'summary.json').read_text()) == summary
    reds = np.asarray(Image.open(summary['overview']))[..., 0]
    for index in range(0, 16, 2):  # every second image of the first sixteen
        assert (abs(reds.astype(int) - 15 * index) < 3).mean() > 0.05


@pytest.mark.parametrize(
    ('before', 'after', 'message'),
    [
        (0.8, 0.7, r'0\.8 before the conversion, 0\.7 after'),
        (0.5, 0.5, r'got 0\.5; expected at least 0\.7'),
    ],
)
def test_judges(before, after, message, stage):
    here, _, metrics = stage
    metrics.update(before=before, after=after)
    with pytest.raises(ProofError, match=message):
        here.run()


def test_bad_task(capsys):
    with pytest.raises(SystemExit, match='2'):
        main(['pose'])
    assert "invalid choice: 'pose'" in capsys.readouterr().err


@pytest.mark.parametrize('task', demo.JOBS)
def test_options_fit_the_config(task, monkeypatch):
    job = demo.JOBS[task]
    monkeypatch.setenv('VOC_TRAIN', 'train')
    options = cfg_options(*job.train_options, *job.test_options)
    config = load_config(ROOT / 'configs' / f'{job.config}.py', options)
    assert config.optim_wrapper.optimizer.type == 'AdamW'
    assert config.train_cfg.max_epochs == config.param_scheduler[1].end
    assert 'momentum' not in config.optim_wrapper.optimizer
