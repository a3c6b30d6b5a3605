"""Error measures: by hand, against the sources of AlexNet's errors, and where they are undefined."""

import pytest

from mobileone_mm.robustness.corruptions import CORRUPTIONS, SEVERITIES
from mobileone_mm.robustness.measures import ALEXNET_CLEAN_ERROR, ALEXNET_ERRORS, corruption_errors

# AugMix's list, and the paper's table in percent.
AUGMIX = (0.886428, 0.894468, 0.922640, 0.819880, 0.826268, 0.785948, 0.798360, 0.866816, 0.826572,
          0.819324, 0.564592, 0.853204, 0.646056, 0.717840, 0.606500)  # fmt: skip


def errors(value):
    return {name: dict.fromkeys(SEVERITIES, value) for name in CORRUPTIONS}


def test_alexnet_by_severity_has_the_means_of_the_other_source():
    assert list(ALEXNET_ERRORS) == list(CORRUPTIONS)
    for expected, values in zip(AUGMIX, ALEXNET_ERRORS.values(), strict=True):
        assert sum(values) / 5 == pytest.approx(expected, abs=5e-7)


def test_alexnet_itself_has_100():
    own = {name: dict(enumerate(errors, 1)) for name, errors in ALEXNET_ERRORS.items()}
    found = corruption_errors(own, ALEXNET_CLEAN_ERROR)
    assert found['mce'] == pytest.approx(100)
    assert found['relative_mce'] == pytest.approx(100)
    assert found['unnormalised_mce'] == pytest.approx(100 * sum(AUGMIX) / 15, abs=1e-4)


def test_by_hand():
    found = corruption_errors(errors(0.5), 0.25)
    assert found['mean_error']['fog'] == pytest.approx(50)
    assert found['ce']['fog'] == pytest.approx(50 / 0.819324, rel=1e-5)
    assert found['relative_ce']['fog'] == pytest.approx(25 / (0.819324 - 0.43478), rel=1e-5)
    assert found['mce'] == pytest.approx(sum(50 / error for error in AUGMIX) / 15, rel=1e-5)


def test_what_is_not_defined_is_left_out():
    some = {'fog': {1: 0.5, 3: 0.7}, 'snow': dict.fromkeys(SEVERITIES, 0.5)}
    found = corruption_errors(some, None)
    assert found['mean_error'] == pytest.approx({'fog': 60, 'snow': 50})
    assert set(found['ce']) == {'snow'}
    assert not found['relative_ce']
    assert not {'mce', 'relative_mce', 'unnormalised_mce'} & set(found)
    other = corruption_errors(errors(0.5), 0.25, normalise=False)
    assert other['unnormalised_mce'] == pytest.approx(50)
    assert not other['ce']
    assert 'mce' not in other
