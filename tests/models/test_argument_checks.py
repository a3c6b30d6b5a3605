"""Checks of constructor arguments."""

import math

import numpy as np
import pytest

from mobileone_mm.models.argument_checks import check_integer, check_integers, check_number


@pytest.mark.parametrize('value', [1, 3, np.int64(2)])
def test_integers(value):
    assert check_integer('x', value, 1, 3) == value
    assert type(check_integer('x', value, 1)) is int
    assert check_integers('x', [value], 1, 1) == (value,)


@pytest.mark.parametrize(
    ('value', 'error', 'message'),
    [
        (0, ValueError, 'x: got 0; expected an integer from 1 to 3'),
        (4, ValueError, 'x: got 4; expected an integer from 1 to 3'),
        (1.0, TypeError, 'x: got 1.0; expected an integer from 1 to 3'),
        (True, TypeError, 'x: got True; expected an integer from 1 to 3'),
    ],
)
def test_other_values_are_no_such_integers(value, error, message):
    with pytest.raises(error, match=f'^{message}$'):
        check_integer('x', value, 1, 3)
    with pytest.raises(error, match=rf'^x\[1\]{message[1:]}$'):
        check_integers('x', (1, value), 2, 1, 3)


@pytest.mark.parametrize(
    ('options', 'good', 'bad', 'allowed'),
    [
        ((0, 1), (0, 0.5, 1), (-0.1, 1.1, math.nan, True, '1'), 'from 0 to 1'),
        ((0, 1, False), (0.5,), (0, 1, math.nan), 'between 0 and 1'),
        ((0,), (0, 1e9, math.inf), (-1, math.nan), 'of at least 0'),
    ],
)
def test_numbers(options, good, bad, allowed):
    for value in good:
        assert check_number('x', value, *options) == value
    for value in bad:
        with pytest.raises(ValueError, match=f'^x: got {value!r}; expected a number {allowed}$'):
            check_number('x', value, *options)
