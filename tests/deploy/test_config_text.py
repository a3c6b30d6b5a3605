"""The written config: self-contained, portable, in deploy form."""

from functools import partial
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.runner import Runner

from helpers import ROOT
from mobileone_mm.config.read import load_config
from mobileone_mm.config.tree import walk
from mobileone_mm.deploy.config import (
    _without_stored_views,
    absolute_paths,
    build_model,
    deploy_config_text,
    deploy_form,
)
from mobileone_mm.errors import InputError

parse_config_text = partial(Config.fromstring, file_format='.py')
SSD = ROOT / 'configs' / 'ssdlite_mobileone_s2_coco.py'
SEG = ROOT / 'configs' / 'deeplabv3_mobileone_s0_voc.py'


def text_of(path: Path, options: dict | None = None) -> str:
    return deploy_config_text(load_config(path, options))


@pytest.mark.parametrize('root', [None, '/mnt/somewhere/coco', 'data'])
def test_data_roots_stay_variables(monkeypatch, root):
    monkeypatch.delenv('COCO_ROOT', raising=False)
    if root is not None:
        monkeypatch.setenv('COCO_ROOT', root)
    text = text_of(SSD)
    assert "'{{$COCO_ROOT:data/coco/}}'" in text
    assert "'{{$COCO_ROOT:data/coco/}}/annotations/instances_val2017.json'" in text
    assert '_base_' not in text
    assert '__environment' not in text
    assert absolute_paths(text) == []
    monkeypatch.setenv('COCO_ROOT', '/elsewhere')
    dataset = parse_config_text(text).test_dataloader.dataset
    assert dataset.data_root == '/elsewhere'


def test_a_variable_that_chooses_a_base_file_keeps_its_choice(monkeypatch):
    monkeypatch.setenv('VOC_TRAIN', 'train')
    monkeypatch.setenv('VOC_ROOT', '/mnt/voc')
    text = text_of(SEG)
    assert 'VOC_TRAIN' not in text
    assert 'SegmentationClassAug' not in text
    assert "'{{$VOC_ROOT:data/VOCdevkit/VOC2012}}'" in text
    assert '/mnt/voc' not in text


def test_only_the_form_changes():
    before = load_config(SSD)
    after = parse_config_text(text_of(SSD))
    assert after.model.backbone.pop('deploy') is True
    assert before.model.backbone.pop('init_cfg').type == 'Pretrained'
    for _, node in walk(before._cfg_dict):
        if (
            node.get('type') == 'mobileone_mm.LoadImage'
        ):  # of test_loaders_of_a_run_become_the_hosts
            node.type = 'LoadImageFromFile'
            node.pop('on_error', None)
    for key in set(before) | set(after):
        if key not in ('load_from', 'resume', 'work_dir', 'launcher'):
            assert after[key] == before[key], key
    assert not {'load_from', 'resume', 'work_dir'} & set(after)


def test_pretrained_files_and_options():
    options = {
        'model.backbone.init_cfg': dict(type='Pretrained', checkpoint='/home/me/s2.pth'),
        'model.neck.init_cfg': [dict(type='Pretrained', checkpoint='/home/me/neck.pth')],
        'work_dir': '/home/me/runs',
        'test_dataloader.dataset.data_root': '/home/me/coco',
    }
    text = text_of(SSD, options)
    assert 'Pretrained' not in text
    # What the user names in so many words is kept, and listed in the report.
    assert absolute_paths(text) == ['/home/me/coco']


def test_backbones_at_any_depth_get_the_form(tmp_path):
    mobileone = "dict(type='mobileone_mm.MobileOne', arch='s1')"
    (tmp_path / 'config.py').write_text(
        f"default_scope = 'mmengine'\n"
        f"model = dict(type='X', teacher=dict(backbone={mobileone}), list=[{mobileone}],\n"
        f"             other=dict(type='mmpretrain.MobileOne', arch='s1'))\n"
    )
    config = parse_config_text(text_of(tmp_path / 'config.py'))
    assert config.model.teacher.backbone.deploy
    assert config.model.list[0].deploy
    assert 'deploy' not in config.model.other
    assert config.custom_imports.imports == ['mobileone_mm']


def test_a_model_that_cannot_be_built(tmp_path):
    (tmp_path / 'config.py').write_text("model = dict(type='Nonsense')")
    with pytest.raises(InputError, match=r"model\.type: 'Nonsense' is unknown"):
        build_model(load_config(tmp_path / 'config.py'))


@pytest.mark.parametrize(('workers', 'persistent'), [(0, False), (2, True)])
def test_hosts_build_the_loaders_of_the_text(tmp_path, workers, persistent):
    """torch refuses persistent workers without workers, which overrides easily leave behind."""
    loader = dict(
        batch_size=2,
        num_workers=workers,
        persistent_workers=True,
        dataset=dict(type='BaseDataset'),
        sampler=dict(type='DefaultSampler', shuffle=False),
    )
    (tmp_path / 'config.py').write_text(
        "default_scope = 'mmengine'\nmodel = dict(type='mobileone_mm.MobileOne')\n"
        f'test_dataloader = {loader}\nval_dataloader = None\n'
    )
    config = parse_config_text(text_of(tmp_path / 'config.py'))
    config.test_dataloader.dataset = range(4)
    assert config.test_dataloader.persistent_workers is persistent
    assert len(Runner.build_dataloader(config.test_dataloader)) == 2


def test_stored_views_become_their_transforms():
    view = dict(type='mobileone_mm.StoredView', transforms=[dict(type='A'), dict(type='B')])
    pack = dict(type='PackInputs', meta_keys=('img_path', 'teacher_view'))
    expected = [dict(type='A'), dict(type='B'), dict(type='PackInputs', meta_keys=('img_path',))]
    assert _without_stored_views(dict(pipeline=[view, pack])) == dict(pipeline=expected)


@pytest.mark.parametrize('scope', ['mmseg', 'mmdet'])
def test_loaders_of_a_run_become_the_hosts(scope):
    """The hosts' inferencers look for them by name."""
    ours = [
        dict(type='mobileone_mm.LoadImage', on_error='blank', color_type='color'),
        dict(
            type='mobileone_mm.LoadSegAnnotations', num_classes=2, ignore_index=255, on_error='skip'
        ),
    ]
    config = Config(dict(default_scope=scope, test_pipeline=ours, model=dict(type='X')))
    mask = 'LoadAnnotations' if scope == 'mmseg' else 'mmseg.LoadAnnotations'
    assert deploy_form(config).to_dict()['test_pipeline'] == [
        dict(type='LoadImageFromFile', color_type='color'), dict(type=mask),
    ]  # fmt: skip
