"""Models of the hosts with MobileOne in several places, and BNs that fold or must not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmcv.cnn import ConvModule
from mmengine.config import Config
from mmengine.model import BaseModel, BaseModule
from mmengine.registry import MODELS
from torch.nn.modules.batchnorm import _BatchNorm

from helpers import randomize_
from mobileone_mm.config.read import load_config
from mobileone_mm.deploy.config import build_model
from mobileone_mm.deploy.convert import convert_to_deploy

TINY = (
    "dict(type='mobileone_mm.MobileOne', out_indices=(0, 1, 2, 3), arch=dict(\n"
    '    num_blocks=[1, 2, 1, 1], width_factor=[0.125] * 4, num_conv_branches=[2, 1, 1, 1]))'
)
HEADER = f"""
backbone = {TINY}
fpn = dict(type='FPN', in_channels=[8, 16, 32, 64], out_channels=16, num_outs=5)
test_pipeline = [dict(type='Resize', scale=(96, 64))]
"""
BN = dict(type='BN')


def base(host: str, name: str) -> str:
    package = pytest.importorskip(host)
    path = Path(package.__file__).parent / '.mim' / 'configs' / '_base_' / 'models' / name
    return (
        f"_base_ = ['{path}']\ndefault_scope = '{host}'\n"
        f'backbone = {TINY.replace("dict(", "dict(_delete_=True, ", 1)}\n'
    )


@pytest.fixture
def convert(tmp_path: Path) -> Callable[..., tuple[dict, Any, Any]]:
    """Convert the randomised model of a config; return the report, the original and the result."""

    def run(text: str, **kwargs: Any):
        config, checkpoint = tmp_path / 'model.py', tmp_path / 'net.pth'
        config.write_text(text)
        model = randomize_(build_model(load_config(config)), seed=5)
        model.eval()  # mmdet's distillers return nothing from it
        torch.save(model.state_dict(), checkpoint)
        report = convert_to_deploy(config, checkpoint, tmp_path / 'out.pth', **kwargs)
        deployed = build_model(Config.fromfile(tmp_path / 'out.py'))
        deployed.eval()
        state = torch.load(tmp_path / 'out.pth', weights_only=True)['state_dict']
        deployed.load_state_dict(state, strict=True)
        return report, model, deployed

    return run


def norms(model: Any) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, _BatchNorm)]


def reasons(report: dict) -> dict[str, str]:
    return {entry['norm']: entry['reason'] for entry in report['folded']['left']}


CASCADE = """
model = dict(
    backbone=backbone,
    neck=dict(in_channels=[8, 16, 32, 64], out_channels=16, norm_cfg=dict(type='BN')),
    rpn_head=dict(in_channels=16, feat_channels=16),
    roi_head=dict(bbox_roi_extractor=dict(out_channels=16), bbox_head=[
        dict(type='ConvFCBBoxHead', in_channels=16, conv_out_channels=16, fc_out_channels=32,
             num_shared_convs=1, num_shared_fcs=1, norm_cfg=dict(type='SyncBN'), num_classes=4,
             reg_class_agnostic=agnostic, bbox_coder=dict(type='DeltaXYWHBBoxCoder'))
        for agnostic in (True, True, False)]),
    test_cfg=dict(rpn=dict(nms_pre=50, max_per_img=20)),
)
test_pipeline = [dict(type='Resize', scale=(96, 64))]
"""


def test_cascade_rcnn(convert):
    """Proposals come from one model, or a last digit would choose others."""
    report, _model, deployed = convert(base('mmdet', 'cascade-rcnn_r50_fpn.py') + CASCADE)
    assert len(report['folded']['norms']) == 8 + 3  # of the neck, one of each stage
    assert report['folded']['left'] == []
    assert norms(deployed) == []
    assert deployed.backbone.deploy
    # Two inputs in two dtypes: five feature maps, five pairs of the first stage, scores and boxes of
    # the last one, the regions of three stages, and one unit.
    assert len(report['proof']['differences']) == 2 * 2 * (5 + 10 + 2 + 3 + 1)


SOFT = """
backbone.pop('_delete_')
detector = _base_.model
detector.backbone = backbone
detector.neck = dict(type='FPN', in_channels=[8, 16, 32, 64], out_channels=16, num_outs=5,
                     norm_cfg=dict(type='BN', requires_grad=False))
detector.rpn_head.in_channels = detector.rpn_head.feat_channels = 16
detector.roi_head.bbox_roi_extractor.out_channels = 16
detector.roi_head.bbox_head.in_channels = 16
detector.test_cfg.rpn.nms_pre = 50
detector.test_cfg.rpn.max_per_img = 20
model = dict(
    _delete_=True, type='SoftTeacher', detector=detector,
    data_preprocessor=dict(type='MultiBranchDataPreprocessor',
                           data_preprocessor=detector.data_preprocessor),
    semi_train_cfg=dict(freeze_teacher=True), semi_test_cfg=dict(predict_on='teacher'),
)
test_pipeline = [dict(type='Resize', scale=(96, 64))]
"""


def test_teacher_and_student(convert):
    report, _model, deployed = convert(base('mmdet', 'faster-rcnn_r50_fpn.py') + SOFT)
    assert deployed.student.backbone.deploy
    assert deployed.teacher.backbone.deploy
    assert {name.split('.')[0] for name in report['folded']['norms']} == {'student', 'teacher'}
    assert norms(deployed) == []
    # The two are random and differ; each was compared with its own.
    assert not torch.equal(
        deployed.student.backbone.stage0.branch_reparam.weight,
        deployed.teacher.backbone.stage0.branch_reparam.weight,
    )
    outputs = {d['output'] for d in report['proof']['differences'] if 'output' in d['output']}
    assert len(outputs) == 2 * (5 + 10 + 2 + 1)


RTMDET = """
default_scope = 'mmdet'
model = dict(
    type='RTMDet', data_preprocessor=dict(type='DetDataPreprocessor'), backbone=backbone,
    neck=dict(type='CSPNeXtPAFPN', in_channels=[16, 32, 64], out_channels=16,
              num_csp_blocks=1, norm_cfg=dict(type='SyncBN'), act_cfg=dict(type='SiLU')),
    bbox_head=dict(type='RTMDetSepBNHead', num_classes=4, in_channels=16, stacked_convs=2,
                   feat_channels=16, with_objectness=False, exp_on_reg=True, share_conv=True,
                   anchor_generator=dict(type='MlvlPointGenerator', strides=[8, 16, 32]),
                   bbox_coder=dict(type='DistancePointBBoxCoder'), norm_cfg=dict(type='BN'),
                   act_cfg=dict(type='SiLU')),
    test_cfg=dict(),
)
"""


def test_bn_of_each_level_behind_one_convolution(convert):
    """One kernel cannot be several; the configs have heads of which each level has its own."""
    pytest.importorskip('mmdet')
    report, _model, deployed = convert(HEADER.replace('(0, 1, 2, 3)', '(1, 2, 3)') + RTMDET)
    assert any(name.startswith('neck') for name in report['folded']['norms'])
    left = reasons(report)
    assert set(left) == set(norms(deployed))
    assert len(left) == 3 * 2 * 2
    assert set(left.values()) == {'shares its convolution with 2 other BN'}


FCOS = """
default_scope = 'mmdet'
model = dict(
    type='FCOS', data_preprocessor=dict(type='DetDataPreprocessor'), backbone=backbone,
    neck=dict(fpn, norm_cfg=dict(type='BN', eps=0.01)),
    bbox_head=dict(type='FCOSHead', num_classes=4, in_channels=16, stacked_convs=1,
                   feat_channels=32, strides=[8, 16, 32, 64, 128],
                   norm_cfg=dict(type='BN', affine=False)),
    test_cfg=dict(),
)
"""


def test_bn_shared_by_levels_and_without_affine(convert):
    """FCOS runs one head on all levels: one pair, several runs."""
    pytest.importorskip('mmdet')
    report, model, deployed = convert(HEADER + FCOS)
    assert model.bbox_head.cls_convs[0].bn.weight is None
    assert norms(deployed) == []
    assert len(report['folded']['norms']) == 8 + 2

    report, model, deployed = convert(HEADER + FCOS, backbone_only=True)
    assert norms(deployed) == [name for name in norms(model) if 'backbone' not in name]
    assert report['folded']['norms'] == []
    assert deployed.backbone.deploy


CLS = f"""
default_scope = 'mmpretrain'
backbone = {TINY.replace('(0, 1, 2, 3)', '(3,)')}
model = dict(
    type='ImageClassifier', backbone=backbone,
    neck=[dict(type='GlobalAveragePooling'),
          dict(type='LinearNeck', in_channels=64, out_channels=24)],
    head=dict(type='StackedLinearClsHead', num_classes=5, in_channels=24, mid_channels=[16],
              norm_cfg=dict(type='BN1d'), act_cfg=dict(type='ReLU')),
)
"""


def test_linear_layers_and_a_norm_that_the_config_does_not_name(convert):
    """LinearNeck normalises by default; only an explicit None switches it off."""
    pytest.importorskip('mmpretrain')
    report, _model, deployed = convert(CLS)
    assert report['folded']['norms'] == ['neck.1.norm', 'head.layers.0.norm']
    assert report['folded']['config'] == ['model.neck.1.norm_cfg=None', 'model.head.norm_cfg=None']
    assert norms(deployed) == []


LD = """
default_scope = 'mmdet'
model = dict(
    type='KnowledgeDistillationSingleStageDetector',
    backbone=backbone, teacher_config='{teacher}', neck=dict(fpn, norm_cfg=dict(type='BN')),
    bbox_head=dict(type='LDHead', num_classes=4, in_channels=16, stacked_convs=1,
        feat_channels=32, reg_max=7,
        anchor_generator=dict(type='AnchorGenerator', ratios=[1.0], octave_base_scale=8,
                              scales_per_octave=1, strides=[8, 16, 32, 64, 128]),
        loss_ld=dict(type='KnowledgeDistillationKLDivLoss', T=10)),
    data_preprocessor=dict(type='DetDataPreprocessor'), test_cfg=dict(),
)
"""


def test_a_teacher_in_a_file_of_its_own(convert, tmp_path):
    """The written config must not ask for the teacher's config and weights on this machine."""
    pytest.importorskip('mmdet')
    teacher = tmp_path / 'teacher.py'
    teacher.write_text(HEADER + FCOS)
    report, _, deployed = convert(HEADER + LD.format(teacher=teacher))
    assert str(tmp_path) not in (tmp_path / 'out.py').read_text()
    assert deployed.teacher_model.backbone.deploy
    assert report['folded']['config'] == ['model.neck.norm_cfg=None']  # not the teacher's
    assert len(report['folded']['norms']) == 8
    gn = 'is a GroupNorm, which depends on the input'
    assert reasons(report) == {f'bbox_head.{kind}_convs.0.gn': gn for kind in ('cls', 'reg')}


class Neck(BaseModule):
    """A neck with one ConvModule, which folds."""

    conv_cfg: Any = None

    def __init__(self, channels: int, norm_cfg: Any = BN) -> None:
        super().__init__()
        self.part = ConvModule(channels, channels, 1, conv_cfg=self.conv_cfg, norm_cfg=norm_cfg)

    def forward(self, x: Any) -> Any:
        return (self.part(x[-1]),)


class Standardised(Neck):
    """Computes its weights from its tensors."""

    conv_cfg = dict(type='ConvWS')


class Mixed(Neck):
    """Without ``norm_cfg``, a norm before its layer is removed, too."""

    def __init__(self, channels: int, norm_cfg: Any = BN) -> None:
        super().__init__(channels, norm_cfg)
        self.before = None if norm_cfg is None else torch.nn.BatchNorm2d(channels)

    def forward(self, x: Any) -> Any:
        return super().forward([x[-1] if self.before is None else self.before(x[-1])])


class Fixed(Neck):
    """Has a norm that no setting removes."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)


class Unreached(Neck):
    """Has a part that no forward pass of the model reaches, as auxiliary heads are."""

    def forward(self, x: Any) -> Any:
        return (x[-1],)


class Several(BaseModel):
    """Two backbones, one of them in a list, and a chain of necks."""

    def __init__(self, first: Any, others: Any, necks: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.first = MODELS.build(first)
        self.others = torch.nn.ModuleList(MODELS.build(other) for other in others)
        self.necks = torch.nn.ModuleList(MODELS.build(neck) for neck in necks)

    def forward(self, inputs: Any, data_samples: Any = None, mode: str = 'tensor') -> Any:
        features = (self.first(inputs)[-1] + self.others[0](inputs)[-1],)
        for neck in self.necks:
            features = neck(features)
        return features


def test_several_backbones_and_folds_that_only_look_right(convert, monkeypatch):
    """A refused part does not keep the others from folding, and the reason names the setting."""
    necks = (Neck, Standardised, Mixed, Fixed, Unreached)
    for kind in (*necks, Several):
        monkeypatch.setitem(MODELS.module_dict, kind.__name__, kind)
    items = [dict(type=neck.__name__, channels=64) for neck in necks]
    report, model, deployed = convert(
        f"{HEADER}default_scope = 'mmengine'\n"
        f"model = dict(type='Several', first=backbone, others=[backbone], necks={items})\n"
    )
    assert deployed.first.deploy
    assert deployed.others[0].deploy
    assert report['folded']['norms'] == ['necks.0.part.bn', 'necks.4.part.bn']
    assert report['folded']['config'] == [f'model.necks.{i}.norm_cfg=None' for i in (0, 4)]
    x = torch.rand(2, 64, 5, 5)
    with torch.no_grad():
        assert torch.allclose(deployed.necks[4].part(x), model.necks[4].part(x), atol=1e-5)
    left = reasons(report)
    assert set(left) == {'necks.2.before', *(f'necks.{i}.part.bn' for i in (1, 2, 3))}
    assert 'does not act directly on' in left['necks.1.part.bn']
    assert left['necks.2.part.bn'] == (
        "stays, because with model.necks.2.norm_cfg=None 'necks.2.before' would also be "
        'removed, and it cannot be folded'
    )
    assert left['necks.3.part.bn'] == 'stays, because no norm_cfg of the config removes it'
