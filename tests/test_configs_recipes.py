"""docs/recipes.md against the configs: its tables and its options."""

import ast
import re

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from helpers import ROOT
from mobileone_mm.config.options import parse_value
from mobileone_mm.config.read import load_config
from mobileone_mm.config.tree import datasets, flatten

pytestmark = pytest.mark.usefixtures('own_scope')
PAGE = (ROOT / 'docs' / 'recipes.md').read_text()
FAMILIES = {
    'SSDLite on COCO': 'ssdlite_mobileone_*_coco',
    'DeepLabV3 on VOC and ADE20K': 'deeplabv3_mobileone_*',
    'RTMDet on COCO': 'rtmdet_mobileone_*_coco',
    'DeepLabV3+ on VOC and ADE20K': 'deeplabv3plus_mobileone_*',
}
ROW = re.compile(r'^\| `([\w.{}]+)` \| `(.+?)` \| ([ABMR, ]+) \| ?(.*?) ?\|$', re.MULTILINE)
#: what says how a number is used, not how much
NO_VALUES = {'type', 'by_epoch', 'begin', 'convert_to_iter_based', 'priority', 'update_buffers',
             'enable', 'interval', 'constructor', 'ema_type'}  # fmt: skip
COMPLETE = ('optim_wrapper', 'param_scheduler', 'train_cfg', 'auto_scale_lr', 'custom_hooks')


def table(title):
    """Return the rows of the table below a heading: key, value as written, marks, reason."""
    text = PAGE.partition(f'\n## {title}\n')[2].partition('\n## ')[0]
    return ROW.findall(text)


def leaves(title):
    paths = sorted((ROOT / 'configs').glob(f'{FAMILIES[title]}.py'))
    assert len(paths) >= 3
    return paths


def look_up(node, key):
    for part in key.split('.'):
        node = node[int(part)] if isinstance(node, (list, tuple)) else node[part]
    return node


@pytest.mark.parametrize('title', FAMILIES)
def test_table_agrees_with_the_configs(title):
    rows = table(title)
    assert len(rows) >= 6
    assert len(rows) == len({key for key, *_ in rows})
    for key, _, marks, reason in rows:
        assert set(marks.split(', ')) <= set('ABMR'), key
        if marks == 'R' and not key.endswith('val_interval') and 'start_factor' not in key:
            assert len(reason) > 5, f'{key}: what is ours has a reason'
    for path in leaves(title):
        cfg = Config.fromfile(path)
        size = re.search(r'mobileone_(s\d)', path.stem)[1]
        train = [node for _, node in datasets(cfg, 'train_dataloader')]
        for key, shown, _, _ in rows:
            expected = ast.literal_eval(shown.replace('{size}', size))
            for node in train if key.startswith('{train}.') else [cfg]:
                found = look_up(node, key.removeprefix('{train}.'))
                found = list(found) if isinstance(expected, list) else found
                assert found == expected, (path.stem, key)


def test_every_row_is_read():
    assert len(re.findall(r'^\| `[^`]*[.][^`]*` \|', PAGE, re.MULTILINE)) == sum(
        len(table(title)) for title in FAMILIES
    )


@pytest.mark.parametrize('title', [title for title in FAMILIES if '+' not in title])
def test_table_is_complete(title):
    """Each number of optimizer, schedule and hooks has its row, and so its source."""
    listed = {key for key, *_ in table(title)}
    cfg = Config.fromfile(leaves(title)[0]).to_dict()
    for part in COMPLETE:
        for path, value in flatten(cfg.get(part, {}), part).items():
            if path.rpartition('.')[2] not in NO_VALUES and path != part and value != []:
                assert path in listed, path


@pytest.mark.parametrize('data', ['voc', 'ade20k'])
@pytest.mark.parametrize('size', ['s0', 's1', 's2'])
def test_plus_differs_in_its_model_alone(size, data):
    plain, plus = (
        Config.fromfile(ROOT / 'configs' / f'{kind}_mobileone_{size}_{data}.py').to_dict()
        for kind in ('deeplabv3', 'deeplabv3plus')
    )
    before, after = (flatten(cfg.pop('model'), 'model') for cfg in (plain, plus))
    assert plain == plus
    changed = {key for key, value in after.items() if before.get(key) != value}
    changed = {re.sub(r'\.\d+$', '', key) for key in changed}  # of a list
    listed = {key for key, *_ in table('DeepLabV3+ on VOC and ADE20K')}
    assert changed - {'model.decode_head.c1_in_channels'} <= listed


def test_options_of_the_page():
    """The lines after --cfg-options do what the page says; merged as the tools do."""

    def options(after, stop):
        text = PAGE.partition(after)[2].partition(stop)[0].replace('\\\n', ' ')
        pairs = [word.partition('=') for word in text.split() if '=' in word]
        return {key: parse_value(value) for key, _, value in pairs}

    def load(*where):
        path = ROOT / 'configs' / 'deeplabv3_mobileone_s2_voc.py'
        return load_config(path, options(*where), needs=('optim_wrapper',))

    cfg = load('## From scratch', 'The last line')
    assert cfg.model.backbone.init_cfg == dict(type='mobileone_mm.NearIdentityInit')
    assert cfg.optim_wrapper.paramwise_cfg.custom_keys == {}
    assert cfg.custom_hooks == []
    cfg = load('**Output stride.**', 'State the stride')
    init_default_scope(cfg.default_scope)
    with torch.device('meta'):
        model = MODELS.build({**cfg.model.backbone, 'norm_cfg': dict(type='BN')})
    assert model.out_strides == (8, 8)
    assert cfg.model.decode_head.dilations == (1, 12, 24, 36)
