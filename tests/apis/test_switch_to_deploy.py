"""The tool that converts: how often it executes and builds, and the metric before and after."""

import json
from types import SimpleNamespace

import pytest

from mobileone_mm import MobileOne
from mobileone_mm.apis import switch_to_deploy as api
from mobileone_mm.errors import ProofError


@pytest.mark.parametrize(
    ('task', 'data'),
    [('cls', False), ('cls', True),
     *(pytest.param(task, True, marks=pytest.mark.slow) for task in ('det', 'seg'))],
)  # fmt: skip
def test_conversion(task, data, trained, tool, tmp_path, monkeypatch, capsys):
    """The config is executed once. With ``--data``, the Runner builds each model once more."""
    count = tmp_path / 'count'
    config, checkpoint = trained(task, f"open('{count}', 'a').write('executed ')\n")
    count.unlink()
    forms, init = [], MobileOne.__init__

    def counted(self, *args, **kwargs):
        init(self, *args, **kwargs)
        forms.append(self.deploy)

    monkeypatch.setattr(MobileOne, '__init__', counted)
    flags = ('--data', '--backbone-only')[: (2 if task == 'cls' else 1)] if data else ()
    assert tool('switch_to_deploy', config, checkpoint, tmp_path / 'out.pth', *flags) == 0
    assert count.read_text() == 'executed '
    printed = capsys.readouterr().out
    assert ('none (backbone only)' in printed) is ('--backbone-only' in flags)
    report = json.loads((tmp_path / 'out.json').read_text())
    assert ('metric' in report) is data
    if task == 'cls':
        assert forms == [False, True] * (2 if data else 1)
    if data:
        name = {'cls': 'accuracy/top1', 'det': 'coco/bbox_mAP', 'seg': 'mIoU'}[task]
        before, after = report['metric']['values'][name]
        assert after == pytest.approx(before, abs=1e-3 * max(1, abs(before)))
        assert f'{name}:' in printed


@pytest.mark.parametrize(
    ('before', 'after', 'said'),
    [(0.5, float('nan'), '0.5 before and nan after'),
     (50.0, 49.96, None),
     (float('nan'), float('nan'), None)],
)  # fmt: skip
def test_metrics_that_differ(before, after, said, monkeypatch):
    found = iter([{'top1': before, 'old': 1}, {'top1': after, 'new': 2}])
    monkeypatch.setattr(api, '_metrics', lambda _: next(found))
    monkeypatch.setattr(api, 'prepare', lambda *_, **__: None)
    pair = SimpleNamespace(write=lambda _: {'config': '', 'checkpoint': ''})
    if said is None:
        values = api.compare_metrics(pair, None, '')['values']
        assert values == {'top1': pytest.approx([before, after], nan_ok=True)}
        return
    with pytest.raises(ProofError, match=f'top1: {said}'):
        api.compare_metrics(pair, None, '')


def test_another_metric_ends_it(trained, tool, tmp_path, capsys, monkeypatch):
    config, checkpoint = trained('cls')
    run = ('switch_to_deploy', config, checkpoint, tmp_path / 'out.pth', '--data')
    found = iter([50.0, 49.9])
    monkeypatch.setattr(api, '_metrics', lambda _: {'accuracy/top1': next(found)})
    assert tool(*run) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith('error: accuracy/top1: 50 before and 49.9 after the conversion')
    assert '\n' not in error
    config.write_text(config.read_text() + 'test_evaluator = None\n')
    assert tool(*run) == 2
    assert "has no 'test_evaluator'" in capsys.readouterr().err
    assert not list(tmp_path.glob('out*'))
