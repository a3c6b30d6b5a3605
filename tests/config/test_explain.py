"""What becomes one line with a path while something is built, and what keeps its traceback."""

from __future__ import annotations

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS

from mobileone_mm.config.explain import config_faults
from mobileone_mm.errors import InputError

BACKBONE = dict(type='mobileone_mm.MobileOne', arch='mu0')


def build(node, built, error=None):
    """Build a node under a config that has it as its second head."""
    cfg = Config(dict(model=dict(heads=[dict(BACKBONE), node])))
    with config_faults(cfg, built=lambda: built):
        MODELS.build(cfg.model.heads[1])
        if error is not None:
            raise error


@pytest.mark.parametrize('built', [False, True])
@pytest.mark.parametrize(
    ('change', 'said'),
    [
        (dict(norm_evl=True), "has no argument 'norm_evl'; did you mean 'norm_eval'"),
        (dict(arch='s9'), 's9'),
        (
            dict(type='mobileone_mm.MobileOn'),
            "type: 'mobileone_mm.MobileOn' is unknown; did you mean",
        ),
    ],
)
def test_a_refusal_of_what_stands_in_the_config(change, said, built):
    """Also late: a hook may build a pipeline of the config at its epoch."""
    with pytest.raises(InputError, match=rf'^model\.heads\.1.*{said}'):
        build(BACKBONE | change, built)


@pytest.mark.parametrize('kind', [TypeError, KeyError, ValueError, AssertionError, RuntimeError])
def test_an_error_that_built_nothing(kind):
    with pytest.raises(kind, match='own'):
        build(BACKBONE, True, kind('own'))


def test_a_late_refusal_of_what_the_program_builds():
    cfg = Config(dict(model=BACKBONE))
    with pytest.raises(TypeError), config_faults(cfg, built=lambda: True):
        MODELS.build(dict(BACKBONE, unknown=1))
