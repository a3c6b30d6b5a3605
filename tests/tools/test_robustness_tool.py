"""tools/analysis_tools/test_robustness.py as a user calls it: tiny nets, tiny images."""

import json
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
import torch

from mobileone_mm.apis import test_robustness as robustness
from mobileone_mm.robustness.sets import wnids


@pytest.fixture
def given(trained):
    """Config and checkpoint of a classifier of 1000 classes with random weights."""
    return trained('cls')


@pytest.fixture
def run(given, tool, tmp_path):
    """Run the tool on the given files, and return the results of the file's models."""

    def run(*argv, checkpoint=given[1], code=0):
        some = ('--work-dir', tmp_path / 'runs', *argv)
        assert tool('test_robustness', given[0], checkpoint, *some) == code
        return [*json.loads((tmp_path / 'runs' / 'robustness.json').read_text())['models'].values()]

    return run


@pytest.fixture
def no_plot(monkeypatch):
    monkeypatch.setattr(robustness, 'plot', lambda summary, path: path.write_text('plot'))


def folders(root, names):
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    for name in names:
        (root / name).mkdir(parents=True)
        cv2.imwrite(str(root / name / 'image.png'), image)


def test_own_test_set_then_interrupted_and_continued(run, no_plot, tmp_path, capsys, monkeypatch):
    some = ('--corruptions', 'fog', 'jpeg_compression', '--severities', 1, 5)
    count_correct, calls = robustness.count_correct, []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return count_correct(*args)

    monkeypatch.setattr(robustness, 'count_correct', interrupted)
    (content,) = run(*some, code=130)
    assert list(content['evaluations']) == ['clean', 'generated/fog/1']
    capsys.readouterr()
    (content,) = run(*some)
    printed = capsys.readouterr().out
    assert printed.count('from an earlier call') == 2
    assert len(calls) == 3 + 3
    assert '| fog |' in printed
    assert len(content['evaluations']) == 5
    assert content['summary']['generated']['images'] == 8
    assert content['summary']['sets']['clean']['images'] == 8
    assert set(content['summary']['generated']['errors']) == {'fog', 'jpeg_compression'}
    assert (tmp_path / 'runs' / 'robustness.png').read_text() == 'plot'
    # Another seed concerns generated corruptions alone; --fresh concerns all.
    some = ('--corruptions', 'fog', '--severities', 1)
    run(*some, '--seed', 1)
    assert len(calls) == 6 + 1
    run(*some, '--seed', 1, '--fresh')
    assert len(calls) == 7 + 2


def test_several_checkpoints_and_the_accuracy_of_the_test_tool(
    run, no_plot, given, tool, tmp_path, capsys, monkeypatch
):
    metrics, options = tmp_path / 'metrics.json', ('--cfg-options', 'test_evaluator.topk=(1,5)')
    assert tool('test', *given, '--out', metrics, '--work-dir', tmp_path / 'test', *options) == 0
    expected = json.loads(metrics.read_text())
    sizes, build = [], robustness.Runner.build_dataloader
    monkeypatch.setattr(
        robustness.Runner,
        'build_dataloader',
        lambda loader: sizes.append(loader['batch_size']) or build(loader),
    )
    # The size of a batch is none of the changes that can be switched off.
    own = ('--sets', 'clean', '--batch-size', 3, '--cfg-options', 'changes.workers=False')
    (first,) = run(*own)
    assert sizes == [3]
    found = first['summary']['sets']['clean']
    assert found['top1'] == pytest.approx(expected['accuracy/top1'], abs=1e-3)
    assert found['top5'] == pytest.approx(expected['accuracy/top5'], abs=1e-3)
    content = torch.load(given[1])
    content['state_dict']['head.fc.bias'] += torch.arange(1000.0)
    torch.save(content, tmp_path / 'second.pth')
    models = run('--sets', 'clean', checkpoint=tmp_path / 'second.pth')
    assert [m['checkpoint'] for m in models] == [str(given[1]), str(tmp_path / 'second.pth')]
    assert first in models
    capsys.readouterr()
    run('--sets', 'clean')
    assert 'from an earlier call' in capsys.readouterr().out


def test_published_sets_below_a_root(run, tmp_path, monkeypatch, capsys):
    root = tmp_path / 'data'
    folders(root / 'imagenet-a', wnids()[::5])
    folders(root / 'ImageNet-Sketch' / 'sketch', wnids()[3:6])
    folders(root / 'imagenetv2-matched-frequency', ['0', '2', '10'])
    for severity in (2, 3):
        folders(root / 'imagenet-c' / 'weather' / 'fog' / str(severity), wnids()[7:9])
    monkeypatch.setenv('IMAGENET_ROOT', str(tmp_path / 'none'))
    some = ('--corruptions', 'fog', '--severities', 2, 3)
    (content,) = run('--root', root, *some)
    assert list(content['evaluations']) == ['c/fog/2', 'c/fog/3', 'a', 'sketch', 'v2']
    found = content['summary']['sets']
    assert {name: (s['images'], s['classes']) for name, s in found.items()} == {
        'a': (200, 200), 'sketch': (3, 3), 'v2': (3, 3)}  # fmt: skip
    assert content['summary']['c']['images'] == 2
    assert '| ImageNet-A | 200 | 200 |' in capsys.readouterr().out
    assert cv2.imread(str(tmp_path / 'runs' / 'robustness.png')) is not None


def test_a_set_that_fails_costs_no_other(run, no_plot, tmp_path, monkeypatch, capsys):
    """It is named at the end, and repeated alone in a second call."""
    root = tmp_path / 'data'
    (root / 'sketch' / wnids()[3]).mkdir(parents=True)  # without an image
    folders(root / 'imagenetv2-matched-frequency', ['0', '2', '10'])
    some = ('--root', root, '--sets', 'clean', 'sketch', 'v2')
    (content,) = run(*some, code=2)
    assert list(content['evaluations']) == ['clean', 'v2']
    assert list(content['summary']['sets']) == ['clean', 'v2']
    said = capsys.readouterr()
    assert '| ImageNetV2 | 3 | 3 |' in said.out
    assert '1 of 3 evaluations failed' in said.err
    assert 'sketch: ImageNet-Sketch: no image in class folders below' in said.err.splitlines()[-1]
    # A fault of the program keeps its traceback, after the table.
    fails = Mock(side_effect=TypeError('a fault'))
    monkeypatch.setattr(robustness, 'count_correct', fails)
    folders(root / 'sketch', wnids()[4:5])
    with pytest.raises(TypeError, match='a fault'):
        run(*some)
    assert fails.call_count == 1
    assert '| ImageNetV2 | 3 | 3 |' in capsys.readouterr().out


def test_bad_input(given, tiny_config, refused, tmp_path):
    config, checkpoint = given

    def error(*argv):
        return refused('test_robustness', config, checkpoint, *argv)

    assert '--seed: got -1' in error('--seed', '-1')
    assert '--batch-size: got 0' in error('--batch-size', '0')
    assert "--out: got 'x.txt'" in error('--out', 'x.txt')
    assert 'no such file' in refused('test_robustness', config, 'gone.pth')
    assert "default_scope is 'mmdet'" in refused('test_robustness', tiny_config('det'), checkpoint)
    # Its own test set serves a model of other classes, without AlexNet's errors.
    folders(tmp_path / 'imagenet-a', wnids()[::5])
    other = error('--root', tmp_path, '--cfg-options', 'model.head.num_classes=1001')
    assert 'model.head.num_classes is 1001; ImageNet-A needs the 1000 classes of ImageNet' in other
