"""The tool that converts: how often it executes and builds, and the metric before and after."""

from __future__ import annotations

import json

import pytest

from mobileone_mm import MobileOne
from mobileone_mm.apis import switch_to_deploy as api


@pytest.mark.parametrize(('data', 'builds'), [((), 2), (('--data',), 4)])
def test_the_config_is_executed_once_and_each_model_is_built_once(
    trained, tool, tmp_path, monkeypatch, data, builds
):
    """With ``--data``, the Runner builds each of the two models once more."""
    count = tmp_path / 'count'
    config, checkpoint = trained('cls', f"open('{count}', 'a').write('executed ')\n")
    count.unlink()
    forms = []
    init = MobileOne.__init__

    def counted(self, *args, **kwargs):
        init(self, *args, **kwargs)
        forms.append(self.deploy)

    monkeypatch.setattr(MobileOne, '__init__', counted)
    assert tool('switch_to_deploy', config, checkpoint, tmp_path / 'out.pth', *data) == 0
    assert count.read_text() == 'executed '
    assert forms == [False, True] * (builds // 2)


@pytest.mark.parametrize(
    'task', ['cls', *(pytest.param(task, marks=pytest.mark.slow) for task in ('det', 'seg'))]
)
def test_the_metric_before_and_after(task, trained, tool, tmp_path, capsys):
    config, checkpoint = trained(task)
    only = ('--backbone-only',) if task == 'cls' else ()
    out = tmp_path / 'out.pth'
    assert tool('switch_to_deploy', config, checkpoint, out, '--data', *only) == 0
    report = json.loads((tmp_path / 'out.json').read_text())
    name = {'cls': 'accuracy/top1', 'det': 'coco/bbox_mAP', 'seg': 'mIoU'}[task]
    before, after = report['metric']['values'][name]
    assert after == pytest.approx(before, abs=1e-3 * max(1, abs(before)))
    printed = capsys.readouterr().out
    assert f'{name}:' in printed
    assert ('none (backbone only)' in printed) is bool(only)


@pytest.mark.parametrize(
    ('values', 'code', 'said'),
    [
        ((50.0, 49.9), 1, 'accuracy/top1: 50 before and 49.9 after the conversion'),
        ((0.5, float('nan')), 1, 'accuracy/top1: 0.5 before and nan after'),
        ((50.0, 49.96), 0, ''),
        ((float('nan'), float('nan')), 0, ''),
    ],
)
def test_another_metric_ends_it(trained, tool, tmp_path, capsys, monkeypatch, values, code, said):
    config, checkpoint = trained('cls')
    found = iter(values)
    monkeypatch.setattr(api, '_metrics', lambda _: {'accuracy/top1': next(found)})
    assert tool('switch_to_deploy', config, checkpoint, tmp_path / 'out.pth', '--data') == code
    error = capsys.readouterr().err.strip()
    assert said in error
    assert '\n' not in error
    assert len(list(tmp_path.glob('out*'))) == (0 if code else 3)


def test_data_needs_a_test_set(trained, tool, tmp_path, capsys):
    config, checkpoint = trained('cls')
    config.write_text(config.read_text() + 'test_evaluator = None\n')
    assert tool('switch_to_deploy', config, checkpoint, tmp_path / 'out.pth', '--data') == 2
    assert "has no 'test_evaluator'" in capsys.readouterr().err
    assert not list(tmp_path.glob('out*'))
