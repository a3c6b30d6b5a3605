"""``_delete_`` in the items of a list, which mmengine passes over."""

from __future__ import annotations

import pytest
from mmengine.config import Config

from mobileone_mm.config.merge import merge_options


def config():
    return Config(dict(a=dict(b=[dict(type='X', x=1), dict(type='Y', y=2)]), c=dict(type='Z', z=3)))


def test_item_of_a_list_is_replaced():
    cfg = config()
    options = {
        'a.b.0._delete_': True,
        'a.b.0.type': 'W',
        'a.b.1.y': 5,
        'c._delete_': True,
        'c.type': 'V',
    }
    before = dict(options)
    merge_options(cfg, options)
    assert cfg.a.b == [dict(type='W'), dict(type='Y', y=5)]
    assert cfg.c == dict(type='V')
    assert options == before


def test_mmengine_alone_keeps_the_old_arguments():
    """Why this exists: if mmengine learns it, this fails and the function can go."""
    cfg = config()
    cfg.merge_from_dict({'a.b.0._delete_': True, 'a.b.0.type': 'W'})
    assert cfg.a.b[0]['x'] == 1


def test_no_such_item():
    with pytest.raises(KeyError, match=r'a\.b\.7 is no item of a list'):
        merge_options(config(), {'a.b.7._delete_': True})
