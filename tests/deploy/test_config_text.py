"""The written config: self-contained, portable, in deploy form."""

from functools import partial
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch import nn

from helpers import ROOT
from mobileone_mm.config.read import load_config
from mobileone_mm.config.tree import walk
from mobileone_mm.deploy.config import (
    _teacher,
    absolute_paths,
    build_model,
    deploy_config_text,
    deploy_form,
    is_mobileone,
    student_form,
)
from mobileone_mm.registry import MODELS

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
        if node.get('type') == 'mobileone_mm.LoadImage':  # in OUT.py, it is the host's
            node.type = 'LoadImageFromFile'
            node.pop('on_error', None)
    for key in set(before) | set(after):
        if key not in ('load_from', 'resume', 'work_dir', 'launcher'):
            assert after[key] == before[key], key
    assert not {'load_from', 'resume', 'work_dir'} & set(after)


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


class Learner(nn.Module):
    def __init__(self, size, data_preprocessor=None):
        super().__init__()
        self.given = data_preprocessor

    @staticmethod
    def student_config(model):
        return dict(type='Student', size=model['size'])


@pytest.fixture
def learner(monkeypatch):
    """A model that this package's scope alone knows, in a process that used another scope."""
    monkeypatch.setitem(MODELS.module_dict, 'Learner', Learner)
    with DefaultScope.overwrite_default_scope('mmengine'):
        yield dict(default_scope='mobileone_mm', model=dict(type='Learner', size=3))


def test_the_student_of_a_model_that_learns(learner, tmp_path):
    view = dict(type='mobileone_mm.StoredView', transforms=[dict(type='A'), dict(type='B')])
    pipeline = [view, dict(type='Pack', meta_keys=('path', 'teacher_view'))]
    config = Config({**learner, 'pipeline': pipeline}, cfg_text='a = 1', filename=tmp_path / 'a.py')
    found = student_form(config)
    assert found.model == dict(type='Student', size=3)
    pack = dict(type='Pack', meta_keys=('path',))
    assert found.pipeline == [dict(type='A'), dict(type='B'), pack]
    assert (found.text, found.filename) == ('a = 1', str(tmp_path / 'a.py'))
    assert student_form(found) is found
    without_scope = Config(dict(model=dict(type=Learner, size=2)))
    assert student_form(without_scope).model.size == 2


def test_the_model_is_built_in_its_scope_with_the_preprocessor_of_the_config(learner):
    for own, common, expected in ((None, None, None), (None, 1, 1), (2, 1, 2), (2, None, 2)):
        config = Config({**learner, 'data_preprocessor': common})
        if own:
            config.model.data_preprocessor = own
        before = config.to_dict()
        assert build_model(config).given == expected
        assert config.to_dict() == before
    assert isinstance(build_model(Config(dict(model=dict(type=Learner, size=2)))), Learner)
    with DefaultScope.overwrite_default_scope('mmengine'):
        deployed = deploy_form(Config({**learner, 'model': dict(type='MobileOne')}))
    assert deployed.model.deploy


def test_the_longest_data_root_that_is_a_folder_becomes_a_variable(monkeypatch, tmp_path):
    monkeypatch.setenv('A_ROOT', '/mnt/a')
    monkeypatch.setenv('B_ROOT', '/mnt/a/b/')
    monkeypatch.setenv('NUMBER', '/mnt')
    (tmp_path / 'config.py').write_text(
        "model = dict(type='X')\na = '{{$A_ROOT:data/a}}'\nb = '{{$B_ROOT:data/b}}'\n"
        "c = b + 'c'\nd = a + '2'\ne = a + '/e'\nf = '{{$NUMBER:3}}'\n"
    )
    config = Config.fromstring(text_of(tmp_path / 'config.py').replace('{{', '<'), '.py')
    assert (config.a, config.b, config.c) == (
        '<$A_ROOT:data/a}}',
        *['<$B_ROOT:data/b}}' + s for s in ('', 'c')],
    )
    assert (config.d, config.e, config.f) == ('/mnt/a2', '<$A_ROOT:data/a}}/e', '/mnt')


def test_absolute_paths():
    text = "a = '/'\nb = '/b'\nc = ['~/c', '/b']\nd = 'C:/d'\ne = 'e/f'\nf = '/'"
    assert absolute_paths(text) == ['/b', 'C:/d', '~/c']


def test_what_the_form_of_a_model_lacks():
    """Files of this machine, and the settings that are to be None."""
    file = dict(type='Pretrained', checkpoint='a.pth')
    start = dict(type='Normal')
    neck = [
        dict(norm_cfg=dict(type='BN'), init_cfg=[start, file]),
        dict(norm_cfg=1, init_cfg=start),
    ]
    model = dict(
        backbone=dict(type='mobileone_mm.MobileOne', init_cfg=start, pretrained='b.pth'),
        neck=neck, teacher_config=dict(model=1), teacher_ckpt='c.pth', pretrained=True,
    )  # fmt: skip
    imports = dict(imports='other', allow_failed_imports=True)
    config = Config(dict(model=model, custom_imports=imports, work_dir='a', launcher='none'))
    before = config.to_dict()
    assert deploy_form(config, [('neck', 0, 'norm_cfg'), ('pretrained',)]).to_dict() == dict(
        model=dict(
            backbone=dict(type='mobileone_mm.MobileOne', deploy=True),
            neck=[dict(norm_cfg=None), dict(norm_cfg=1, init_cfg=start)],
            teacher_config=dict(model=1), teacher_ckpt=None, pretrained=None,
        ),
        custom_imports=dict(imports=['mobileone_mm', 'other'], allow_failed_imports=True),
    )  # fmt: skip
    assert config.to_dict() == before
    listed = dict(imports=['a', 'mobileone_mm'], allow_failed_imports=False)
    for given, expected in ((listed, ['mobileone_mm', 'a']), (None, ['mobileone_mm'])):
        content = dict(model=dict(type='X'), **({'custom_imports': given} if given else {}))
        found = deploy_form(Config(content)).custom_imports
        assert found == dict(imports=expected, allow_failed_imports=False)


def test_our_backbone_and_teachers_in_mmdets_package():
    kinds = ('mobileone_mm.MobileOne', 'Nothing', 'mmpretrain.MobileOne', Learner)
    assert [is_mobileone(dict(type=kind)) for kind in kinds] == [True, False, False, False]
    pytest.importorskip('mmdet')
    found = _teacher('mmdet/.mim/configs/_base_/models/ssd300.py')
    assert found['model']['type'] == 'SingleStageDetector'


@pytest.mark.parametrize('scope', ['mmseg', 'mmdet'])
def test_loaders_of_a_run_become_the_hosts(scope):
    """The hosts' inferencers look for them by name."""
    ours = [
        dict(type='mobileone_mm.LoadImage', on_error='blank', color_type='color'),
        dict(
            type='mobileone_mm.LoadSegAnnotations', num_classes=2, ignore_index=255, on_error='skip'
        ),
    ]
    mask = 'LoadAnnotations' if scope == 'mmseg' else 'mmseg.LoadAnnotations'
    renumbering = dict(type=mask, label_map={255: 1})
    config = Config(
        dict(default_scope=scope, test_pipeline=[*ours, renumbering], model=dict(type='X'))
    )
    config.test_dataloader = dict(dataset=dict(pipeline=[ours[1], renumbering]))
    found = deploy_form(config).to_dict()
    assert found['test_pipeline'] == [
        dict(type='LoadImageFromFile', color_type='color'), dict(type=mask), dict(type=mask),
    ]  # fmt: skip
    # Only our loader has a label_map.
    assert found['test_dataloader']['dataset']['pipeline'] == [
        dict(type=mask), dict(type='mobileone_mm.LoadSegAnnotations', label_map={255: 1}),
    ]  # fmt: skip
