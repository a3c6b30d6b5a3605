"""Reports against numbers worked out by hand."""

import pytest

from mobileone_mm.benchmark.ablation import summarise, table
from mobileone_mm.benchmark.input import InputSpeed, input_report


def test_input_report():
    this = InputSpeed(32, {'read': 0.001, 'decode': 0.003}, {2: 400.0, 0: 240.0}, first_read=0.02)
    other = InputSpeed(32, {'read': 0.002, 'collate': 0.008}, {2: 100.0, 0: 300.0})
    lines = input_report([this, other], step_rate=50.0, target_rate=2500.0).splitlines()
    cells = {line.split()[0]: line.split()[1:] for line in lines if line}
    assert cells['read'] == ['1.000', '25%', '1000', '0.50']
    assert cells['decode'] == ['3.000', '75%', '333', '-']
    assert cells['all'] == ['4.000', '100%', '250', '0.40']
    assert cells['2'] == ['400', '200', '0.25']
    assert cells['0'] == ['240', '240', '1.25']
    assert 'read an image in 20.000 ms' in lines[-4]
    assert lines[-3:] == [
        'One core prepares 200 images/s (batches of 32).',
        'The training step here: 50 images/s; needs 0.25 cores: num_workers=1 or more.',
        '--target-rate: 2500 images/s; needs 12.50 cores: num_workers=13 or more.',
    ]
    alone = input_report([InputSpeed(8, {'read': 0.01})])
    assert alone.endswith('\nOne core prepares 100 images/s (batches of 8).')
    assert 'against' not in alone


def test_spread_of_an_ablation():
    values = {'all': {0: 80.0, 1: 82.0, 2: 84.0}, 'less': {0: 79.0, 1: 82.0, 2: 81.0}}
    summary = summarise(values, 'top1')
    assert summary['variants']['all']['std'] == pytest.approx(2)
    less = summary['variants']['less']
    assert (less['difference'], less['lowest'], less['highest']) == (pytest.approx(-4 / 3), -3, 0)
    # Standard deviation of -1, 0 and -3, divided by the root of 3.
    assert less['error'] == pytest.approx((7 / 3) ** 0.5 / 3**0.5)
    assert table(summary)[-1] == '| less | 80.67 ± 1.53 | -1.33 ± 0.88 | -3.00 to +0.00 |'
    single = table(summarise({'all': {0: 1.0}, 'less': {0: 2.0}}, 'top1'))
    assert single[-1] == '| less | 2.00 | +1.00 | +1.00 to +1.00 |'
