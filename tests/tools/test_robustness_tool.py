"""tools/analysis_tools/test_robustness.py as a user calls it: tiny nets, tiny images."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import MODELS

from mobileone_mm.robustness.corruptions import CORRUPTIONS
from mobileone_mm.robustness.sets import wnids
from mobileone_mm.runs.prepare import prepare


@pytest.fixture
def given(tiny_config, tmp_path, fresh_mmengine):
    """Config and checkpoint of an untrained classifier of 1000 classes."""
    config = tiny_config('cls')
    cfg = prepare(config).cfg
    torch.manual_seed(0)
    torch.save(MODELS.build(cfg.model).state_dict(), tmp_path / 'net.pth')
    return config, tmp_path / 'net.pth'


def results(out):
    """The content of a file with results of one model."""
    (found,) = json.loads(out.read_text())['models'].values()
    return found


def folders(root, names, size=48):
    rng = np.random.default_rng(0)
    for name in names:
        (root / name).mkdir(parents=True)
        image = rng.integers(0, 256, (size, size, 3)).astype(np.uint8)
        cv2.imwrite(str(root / name / 'image.png'), image)


def test_own_test_set_then_interrupted_and_continued(given, tool, tmp_path, capsys, monkeypatch):
    out = tmp_path / 'runs' / 'result.json'
    some = ('--corruptions', 'fog', 'jpeg_compression', '--severities', 1, 5, '--out', out,
            '--work-dir', tmp_path / 'runs')  # fmt: skip
    from mobileone_mm.apis import test_robustness as robustness

    count_correct, calls = robustness.count_correct, []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return count_correct(*args)

    monkeypatch.setattr(robustness, 'count_correct', interrupted)
    assert tool('test_robustness', *given, *some) == 130
    assert list(results(out)['evaluations']) == ['clean', 'generated/fog/1']
    capsys.readouterr()
    assert tool('test_robustness', *given, *some) == 0
    printed = capsys.readouterr().out
    assert printed.count('from an earlier call') == 2
    assert len(calls) == 3 + 3
    assert '| fog |' in printed
    content = results(out)
    assert len(content['evaluations']) == 5
    assert content['summary']['generated']['images'] == 8
    assert content['summary']['sets']['clean']['images'] == 8
    assert set(content['summary']['generated']['errors']) == {'fog', 'jpeg_compression'}
    assert cv2.imread(str(out.with_suffix('.png'))) is not None
    # Another seed concerns generated corruptions alone; --fresh concerns all.
    assert tool('test_robustness', *given, *some, '--seed', 1) == 0
    assert len(calls) == 6 + 4
    assert tool('test_robustness', *given, *some, '--seed', 1, '--fresh') == 0
    assert len(calls) == 10 + 5


def test_clean_accuracy_is_that_of_the_test_tool(given, tool, tmp_path):
    options = ('--cfg-options', 'test_evaluator.topk=(1,5)')
    assert (
        tool(
            'test',
            *given,
            '--out',
            tmp_path / 'metrics.json',
            '--work-dir',
            tmp_path / 'a',
            *options,
        )
        == 0
    )
    metrics = json.loads((tmp_path / 'metrics.json').read_text())
    out = tmp_path / 'robust.json'
    some = ('--sets', 'clean', '--out', out, '--work-dir', tmp_path / 'b', '--batch-size', 3)
    assert tool('test_robustness', *given, *some) == 0
    found = results(out)['summary']['sets']['clean']
    assert found['top1'] == pytest.approx(metrics['accuracy/top1'], abs=1e-3)
    assert found['top5'] == pytest.approx(metrics['accuracy/top5'], abs=1e-3)


def test_published_sets_below_a_root(given, tool, tmp_path, monkeypatch, capsys):
    root = tmp_path / 'data'
    folders(root / 'imagenet-a', wnids()[::5], size=8)
    folders(root / 'ImageNet-Sketch' / 'sketch', wnids()[3:6])
    folders(root / 'imagenetv2-matched-frequency', ['0', '2', '10'])
    for severity in (2, 3):
        folders(root / 'imagenet-c' / 'weather' / 'fog' / str(severity), wnids()[7:9])
    monkeypatch.setenv('IMAGENET_ROOT', str(tmp_path / 'none'))
    out = tmp_path / 'result.json'
    some = (
        '--corruptions',
        'fog',
        '--severities',
        2,
        3,
        '--out',
        out,
        '--work-dir',
        tmp_path / 'w',
    )
    assert tool('test_robustness', *given, '--root', root, *some) == 0
    content = results(out)
    assert list(content['evaluations']) == ['c/fog/2', 'c/fog/3', 'a', 'sketch', 'v2']
    found = content['summary']['sets']
    assert {name: (s['images'], s['classes']) for name, s in found.items()} == {
        'a': (200, 200), 'sketch': (3, 3), 'v2': (3, 3)}  # fmt: skip
    assert content['summary']['c']['images'] == 2
    assert '| ImageNet-A | 200 | 200 |' in capsys.readouterr().out
    # A second call adds to the file.
    assert (
        tool('test_robustness', *given, '--sets', f'v2={root}/imagenetv2-matched-frequency', *some)
        == 0
    )
    assert len(results(out)['evaluations']) == 5


def test_a_second_checkpoint_leaves_the_results_of_the_first(given, tool, tmp_path, capsys):
    config, first = given
    second = tmp_path / 'second.pth'
    state = torch.load(first)
    state['head.fc.bias'] += torch.arange(1000.0)
    torch.save(state, second)
    some = ('--sets', 'clean', '--work-dir', tmp_path / 'runs')
    assert tool('test_robustness', config, first, *some) == 0
    before = results(tmp_path / 'runs' / 'robustness.json')
    assert tool('test_robustness', config, second, *some) == 0
    models = json.loads((tmp_path / 'runs' / 'robustness.json').read_text())['models']
    assert [m['checkpoint'] for m in models.values()] == [str(first), str(second)]
    assert before in models.values()
    capsys.readouterr()
    assert tool('test_robustness', config, first, *some) == 0
    assert 'from an earlier call' in capsys.readouterr().out


def test_a_model_of_other_classes(given, tiny_config, tool, tmp_path, refused):
    """Its own test set serves, without AlexNet's errors; the published ones do not."""
    config = tiny_config(
        'cls', 'model.update(head=dict(num_classes=1001, in_channels=32))', 'other'
    )
    cfg = prepare(config).cfg
    torch.save(MODELS.build(cfg.model).state_dict(), tmp_path / 'other.pth')
    for wnid in wnids()[::5]:
        (tmp_path / 'imagenet-a' / wnid).mkdir(parents=True)
    line = refused('test_robustness', config, tmp_path / 'other.pth', '--root', tmp_path)
    assert 'model.head.num_classes is 1001; ImageNet-A needs the 1000 classes of ImageNet' in line


def test_bad_input(given, tiny_config, refused, tmp_path):
    config, checkpoint = given

    def error(*argv, **kwargs):
        return refused('test_robustness', config, checkpoint, *argv, **kwargs)

    assert "--root: '/nowhere' is not a folder" in error('--root', '/nowhere')
    assert 'holds none of imagenet-c' in error('--root', tmp_path)
    assert "--sets: got 'x'" in error('--sets', 'x')
    assert "--corruptions: got 'mist'" in error('--corruptions', 'mist')
    assert '--severities: got 9' in error('--severities', '9')
    assert '--seed: got -1' in error('--seed', '-1')
    assert '--batch-size: got 0' in error('--batch-size', '0')
    assert "--out: got 'x.txt'" in error('--out', 'x.txt')
    (tmp_path / 'mine.json').write_text('{}')
    assert 'is not a file of this tool' in error('--out', 'mine.json')
    (tmp_path / 'v2' / 'cats').mkdir(parents=True)
    assert "the folder 'cats'" in error('--sets', 'v2=v2')
    (tmp_path / 'a' / wnids()[0]).mkdir(parents=True)
    assert "'a' has 1 class folders, the set has 200" in error('--sets', 'a=a')
    (tmp_path / 'c' / 'weather' / 'fog').mkdir(parents=True)
    assert "gaussian_noise/1' does not exist; unpack noise.tar" in error('--sets', 'c=c')
    assert 'no such file' in refused('test_robustness', config, 'gone.pth')
    assert "default_scope is 'mmdet'" in refused('test_robustness', tiny_config('det'), checkpoint)
    assert "default_scope is 'mmseg'" in refused('test_robustness', tiny_config('seg'), checkpoint)
    assert len(CORRUPTIONS) == 15
