"""tools/analysis_tools/measure_input.py prints what it measured, and wrong input is one line."""

from types import SimpleNamespace

import pytest

from mobileone_mm.apis.measure_input import measure_input

STAGES = {
    'cls': ('read', 'decode', 'RandomResizedCrop', 'RandomFlip', 'PackInputs', 'collate'),
    'det': ('read', 'decode', 'LoadAnnotations', 'Expand', 'PackDetInputs', 'collate'),
    'seg': ('read', 'decode', 'LoadSegAnnotations', 'RandomCrop', 'PackSegInputs', 'collate'),
}


@pytest.mark.parametrize(
    'task', ['cls', *(pytest.param(task, marks=pytest.mark.slow) for task in ('det', 'seg'))]
)
def test_three_tasks(task, tiny_config, tool, capsys):
    """The classifier against images of 900 pixels instead of 48, with its training step."""
    flags = '--num-workers 0 --repeats 1 --no-train-step'
    if task == 'cls':
        wider = 'train_dataloader.dataset.pipeline.1.scale=900'
        flags = f'--num-workers 0 1 --repeats 3 --target-rate 1e9 --against {wider}'
    assert tool('measure_input', tiny_config(task), '--num', '8', *flags.split()) == 0
    out = capsys.readouterr().out
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line}
    assert [row for row in rows if row in STAGES[task]] == list(STAGES[task])
    assert 'One core prepares' in out
    assert ('The training step here:' in out) == (task == 'cls')
    if task == 'cls':
        assert '--target-rate: 1000000000 images/s; ' in out
        assert float(rows['PackInputs'][-1]) < 0.5
        assert float(rows['0'][-1]) < 1


def test_time_goes_to_its_stage(tiny_config, monkeypatch, fresh_mmengine):
    """A clock that runs in two places only: 5 ms for each reading, 10 for each decoding."""
    from mobileone_mm.benchmark import input as measured
    from mobileone_mm.data import loading

    now = 0.0

    def taking(seconds, function):
        def call(*args, **kwargs):
            nonlocal now
            now += seconds
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(measured, 'time', SimpleNamespace(perf_counter=lambda: now))
    monkeypatch.setattr(loading.LoadImage, 'decode', taking(0.010, loading.LoadImage.decode))
    monkeypatch.setattr(loading.LoadImage, 'content', taking(0.005, loading.LoadImage.content))
    made, with_workers = [], measured.StagedPipeline.with_workers

    def spy(self, number):
        made.append(with_workers(self, number))
        return made[-1]

    monkeypatch.setattr(measured.StagedPipeline, 'with_workers', spy)
    found, rate = measure_input(tiny_config('cls'), [1, 0], num=8, repeats=1, train_step=False)
    assert rate is None
    assert [loader.num_workers for loader in made] == [0, 1]
    assert found[0].first_read == pytest.approx(0.005)
    stages = {name: spent for name, spent in found[0].stages.items() if spent}
    assert stages == pytest.approx({'read': 0.005, 'decode': 0.010})
    # Two passes of eight images by stages and two by the loader, with the same clock; the worker
    # has its own.
    assert now == pytest.approx(4 * 8 * 0.015)
    assert found[0].workers.keys() == {0, 1}
    assert min(found[0].workers.values()) > 0


WRAPPED = """
train_dataloader['dataset'] = dict(
    _delete_=True, type='ConcatDataset', datasets=[{{_base_.train_dataloader.dataset.dataset}}])
"""


def test_refused(refused, tiny_config, tmp_path):
    config = tiny_config('cls')
    for argv, message in (
        ((tmp_path / 'none.py',), 'no such file'),
        ((config, '--num', '0'), '--num: got 0; expected at least 1'),
        ((config, '--repeats', '0'), '--repeats: got 0'),
        ((config, '--num-workers', '-1'), '--num-workers: got -1'),
        ((config, '--target-rate', '-5'), '--target-rate: got -5.0; expected a number above 0'),
        ((config, '--target-rate', 'nan'), '--target-rate: got nan'),
        ((config, '--against', 'train_dataloader.datasets.x=1'), "no 'datasets'"),
        ((config, '--cfg-options', 'train_dataloader=None'), "has no 'train_dataloader'"),
        ((config, '--cfg-options', 'train_dataloader.dataset.data_root=/none'), 'is not a folder'),
    ):
        assert message in refused('measure_input', *argv)
    wrapped = tiny_config('det', WRAPPED, 'wrapped')
    said = refused('measure_input', wrapped, '--no-train-step')
    assert 'ConcatDataset has no list of transforms' in said
