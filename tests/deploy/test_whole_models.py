"""Models of the hosts with MobileOne in several places, and BNs that fold or must not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmcv.cnn import ConvModule
from mmengine.config import Config
from mmengine.model import BaseModel, BaseModule, ExponentialMovingAverage
from mmengine.registry import MODELS
from torch.nn.modules.batchnorm import _BatchNorm

from helpers import randomize_
from mobileone_mm.config.read import load_config
from mobileone_mm.deploy.config import build_model
from mobileone_mm.deploy.convert import convert_to_deploy
from mobileone_mm.deploy.fold import build_deploy_form, foldable
from mobileone_mm.deploy.forward import RawForward
from mobileone_mm.deploy.prove import compare_models, deploy_state
from mobileone_mm.errors import ProofError

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


def built(text: str, folder: Path, seed: int = 0) -> tuple[Config, Any]:
    """The config with this text, and its model with random weights."""
    (folder / 'model.py').write_text(text)
    config = load_config(folder / 'model.py')
    model = randomize_(build_model(config), seed)
    model.eval()  # mmdet's distillers return nothing from it
    return config, model


@pytest.fixture
def convert(tmp_path: Path) -> Callable[..., tuple[dict, Any, Any]]:
    """Convert the randomised model of a config; return the report, the original and the result."""

    def run(text: str, change: Callable[[Any], Any] = lambda state: state, **kwargs: Any):
        _, model = built(text, tmp_path, seed=5)
        torch.save(change(model.state_dict()), tmp_path / 'net.pth')
        inputs = tmp_path / 'model.py', tmp_path / 'net.pth'
        report = convert_to_deploy(*inputs, tmp_path / 'out.pth', **kwargs)
        assert report == json.loads((tmp_path / 'out.json').read_text())
        deployed = build_model(Config.fromfile(tmp_path / 'out.py'))
        deployed.eval()
        state = torch.load(tmp_path / 'out.pth', weights_only=True)['state_dict']
        deployed.load_state_dict(state, strict=True)
        assert report['proof']['float64']['greatest_relative'] < 1e-9
        assert report['proof']['float32']['greatest_relative'] < 1.2e-4
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


def test_cascade_rcnn(convert, tmp_path):
    """Proposals come from one model, or a last digit would choose others."""
    text = base('mmdet', 'cascade-rcnn_r50_fpn.py')
    report, _model, deployed = convert(text + CASCADE)
    assert len(report['folded']['norms']) == 8 + 3  # of the neck, one of each stage
    assert report['folded']['left'] == []
    assert norms(deployed) == []
    assert deployed.backbone.deploy
    # Two inputs in two dtypes: five feature maps, five pairs of the first stage, scores and boxes of
    # the last one, the regions of three stages, and one unit.
    assert len(report['proof']['differences']) == 2 * 2 * (5 + 10 + 2 + 3 + 1)
    written = (tmp_path / 'out.py').read_text()
    assert '_base_' not in written
    assert '.mim' not in written


SOFT = """
_base_ = ['{faster}']
default_scope = 'mmdet'
detector = _base_.model
detector.backbone = {tiny}
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
    mmdet = pytest.importorskip('mmdet')
    faster = Path(mmdet.__file__).parent / '.mim/configs/_base_/models/faster-rcnn_r50_fpn.py'
    report, _model, deployed = convert(SOFT.format(faster=faster, tiny=TINY))
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
                   feat_channels=16, with_objectness=False, exp_on_reg=True, share_conv={share},
                   anchor_generator=dict(type='MlvlPointGenerator', strides=[8, 16, 32]),
                   bbox_coder=dict(type='DistancePointBBoxCoder'), norm_cfg=dict(type='BN'),
                   act_cfg=dict(type='SiLU')),
    test_cfg=dict(),
)
"""


@pytest.mark.parametrize('share', [True, False])
def test_bn_of_each_level_behind_one_convolution(convert, share):
    """One kernel cannot be several; where each level has its own, all of them fold."""
    pytest.importorskip('mmdet')
    text = HEADER.replace('(0, 1, 2, 3)', '(1, 2, 3)') + RTMDET.format(share=share)
    report, _model, deployed = convert(text)
    assert any(name.startswith('neck') for name in report['folded']['norms'])
    left = reasons(report)
    if share:
        assert set(left) == set(norms(deployed))
        assert len(left) == 3 * 2 * 2
        assert set(left.values()) == {'shares its convolution with 2 other BN'}
    else:
        assert left == {}
        assert norms(deployed) == []


FCOS = """
default_scope = 'mmdet'
model = dict(
    type='FCOS', data_preprocessor=dict(type='DetDataPreprocessor'), backbone=backbone,
    neck=dict(fpn, norm_cfg=dict(type='BN', eps=0.01)),
    bbox_head=dict(type='FCOSHead', num_classes=4, in_channels=16, stacked_convs=1,
                   feat_channels=32, strides=[8, 16, 32, 64, 128]{norm}),
    test_cfg=dict(),
)
"""


def test_a_gn_head_stays_and_is_listed(convert):
    pytest.importorskip('mmdet')
    report, _model, deployed = convert(HEADER + FCOS.format(norm=''))
    left = reasons(report)
    assert set(left) == {'bbox_head.cls_convs.0.gn', 'bbox_head.reg_convs.0.gn'}
    assert set(left.values()) == {'is a GroupNorm, which depends on the input'}
    assert norms(deployed) == []
    assert report['folded']['config'] == ['model.neck.norm_cfg=None']

    report, model, deployed = convert(HEADER + FCOS.format(norm=''), backbone_only=True)
    assert norms(deployed) == [name for name in norms(model) if 'backbone' not in name]
    assert report['folded']['norms'] == []
    assert deployed.backbone.deploy


def test_bn_shared_by_levels_and_without_affine(convert):
    """FCOS runs one head on all levels: one pair, several runs."""
    pytest.importorskip('mmdet')
    norm = ", norm_cfg=dict(type='BN', affine=False)"
    report, model, deployed = convert(HEADER + FCOS.format(norm=norm))
    assert model.bbox_head.cls_convs[0].bn.weight is None
    assert norms(deployed) == []
    assert len(report['folded']['norms']) == 8 + 2


LRASPP = """
backbone.update(output_stride=8, out_indices=(0, 1, 3))
model = dict(
    backbone=backbone,
    decode_head=dict(
        in_channels=(8, 16, 64), channels=16, branch_channels=(8, 8), norm_cfg=dict(type='BN')),
)
test_pipeline = [dict(type='Resize', scale=(512, 400))]
"""


def test_a_head_that_needs_large_images(convert):
    """LR-ASPP pools windows of 49 cells: the second size of the proof must be large enough, too."""
    report, _, deployed = convert(base('mmseg', 'lraspp_m-v3-d8.py') + LRASPP)
    assert {entry['input'] for entry in report['proof']['differences']} == {
        'random input of 400 x 512',
        'random input of 416 x 640',
    }
    assert set(norms(deployed)) == set(reasons(report))


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


def averaged(state: dict) -> dict:
    """mmengine's wrapper of averaged models, in half precision."""
    wrapped = {f'module.{k}': v.half() if v.is_floating_point() else v for k, v in state.items()}
    return {'state_dict': {'steps': torch.tensor(7), **wrapped}}


def test_linear_layers_and_a_norm_that_the_config_does_not_name(convert):
    """LinearNeck normalises by default; only an explicit None switches it off."""
    pytest.importorskip('mmpretrain')
    assert set(averaged({'a': torch.ones(1)})['state_dict']) == {
        f'module.{key}' if key == 'a' else key
        for key in ExponentialMovingAverage(torch.nn.Identity()).state_dict()
    } | {'module.a'}
    report, _model, deployed = convert(CLS, averaged)
    assert report['folded']['norms'] == ['neck.1.norm', 'head.layers.0.norm']
    assert report['folded']['config'] == ['model.neck.1.norm_cfg=None', 'model.head.norm_cfg=None']
    assert norms(deployed) == []
    assert (report['ema'], report['entry']) == (True, 'state_dict')
    assert {p.dtype for p in deployed.parameters()} == {torch.float32}


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
    teacher.write_text(HEADER + FCOS.format(norm=''))
    report, _, deployed = convert(HEADER + LD.format(teacher=teacher))
    text = (tmp_path / 'out.py').read_text()
    assert str(tmp_path) not in text
    assert deployed.backbone.deploy
    assert deployed.teacher_model.backbone.deploy
    assert report['absolute_paths_in_config'] == []
    assert report['folded']['config'] == ['model.neck.norm_cfg=None']  # not the teacher's
    assert len(report['folded']['norms']) == 8


class Neck(BaseModule):
    """A neck with one ConvModule; its subclasses are the ways in which a fold fails."""

    conv_cfg: Any = None
    kind: Any = ConvModule

    def __init__(self, channels: int, norm_cfg: Any = BN) -> None:
        super().__init__()
        self.part = self.kind(channels, channels, 1, conv_cfg=self.conv_cfg, norm_cfg=norm_cfg)

    def forward(self, x: Any) -> Any:
        return (self.part(x[-1]),)


class Standardised(Neck):
    """Computes its weights from its tensors."""

    conv_cfg = dict(type='ConvWS')


class Reaching(Neck):
    """Uses the tensors of a layer instead of running it."""

    def __init__(self, channels: int, norm_cfg: Any = BN) -> None:
        super().__init__(channels, norm_cfg)
        self.reached = torch.nn.Conv2d(channels, channels, 1)

    def forward(self, x: Any) -> Any:
        return super().forward([torch.nn.functional.conv2d(x[-1], self.reached.weight)])


class Unnormed(Neck):
    """Runs its ConvModule without the norm that it has."""

    def forward(self, x: Any) -> Any:
        return (self.part(x[-1], norm=False),)


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


class Retyped(Neck):
    """Without ``norm_cfg``, another module changes its type."""

    def __init__(self, channels: int, norm_cfg: Any = BN) -> None:
        super().__init__(channels, norm_cfg)
        self.last = torch.nn.Tanh() if norm_cfg is None else torch.nn.Sigmoid()

    def forward(self, x: Any) -> Any:
        return (self.last(super().forward(x)[0]),)


class Unreached(Neck):
    """Has a part that no forward pass of the model reaches, as auxiliary heads are."""

    def forward(self, x: Any) -> Any:
        return (x[-1],)


class UnreachedStandardised(Unreached):
    conv_cfg = dict(type='ConvWS')


class Pair(ConvModule):
    """Cannot run by itself."""

    def forward(self, x: Any, other: Any) -> Any:
        return super().forward(x + other)


class UnreachedPair(Unreached):
    kind = Pair


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


class Nested(BaseModule):
    def __init__(self, first: Any, other: Any) -> None:
        super().__init__()
        self.first, self.backbone = MODELS.build(first), MODELS.build(other['backbone'])


UNREACHED = (Unreached, UnreachedStandardised, UnreachedPair)


@pytest.fixture
def registered(monkeypatch):
    necks = (Standardised, Reaching, Unnormed, Mixed, Fixed, Retyped)
    for kind in (*necks, *UNREACHED, Several, Nested):
        monkeypatch.setitem(MODELS.module_dict, kind.__name__, kind)


def several(*necks: type[Neck]) -> str:
    items = ''.join(f"dict(type='{neck.__name__}', channels=64), " for neck in necks)
    return (
        f"{HEADER}default_scope = 'mmengine'\n"
        f"model = dict(type='Several', first=backbone, others=[backbone], necks=[{items}])\n"
    )


def test_several_backbones_and_folds_that_only_look_right(convert, registered):
    necks = (Standardised, Reaching, Unnormed, Mixed, Fixed, Retyped, *UNREACHED)
    report, model, deployed = convert(several(*necks))
    assert deployed.first.deploy
    assert deployed.others[0].deploy
    assert report['folded']['norms'] == ['necks.1.part.bn', 'necks.6.part.bn']
    assert report['folded']['config'] == [f'model.necks.{i}.norm_cfg=None' for i in (1, 6)]
    left = reasons(report)
    assert set(left) == {'necks.3.before', *(f'necks.{i}.part.bn' for i in (0, 2, 3, 4, 5, 7, 8))}
    assert left['necks.4.part.bn'] == 'stays, because no norm_cfg of the config removes it'
    # A refused part does not keep the others from folding, and the reason names the setting.
    assert left['necks.3.part.bn'] == (
        "stays, because with model.necks.3.norm_cfg=None 'necks.3.before' would also be "
        'removed, and it cannot be folded'
    )
    assert 'does not act directly on' in left['necks.0.part.bn']
    # Unused, it stays: what a caller does with it is not known to the config.
    assert 'does not act directly on' in left['necks.2.part.bn']
    assert left['necks.5.part.bn'] == (
        "stays, because with model.necks.5.norm_cfg=None 'necks.5.last' would become a Tanh"
    )
    assert type(deployed.necks[5].last) is torch.nn.Sigmoid
    # A part that no forward pass reaches runs by itself, and folds if random input shows no change.
    assert 'does not act directly on' in left['necks.7.part.bn']
    assert 'is not run by the proof, nor by itself (TypeError' in left['necks.8.part.bn']
    x = torch.rand(2, 64, 5, 5)
    with torch.no_grad():
        assert torch.allclose(deployed.necks[6].part(x), model.necks[6].part(x), atol=1e-5)


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
def test_an_error_in_an_unreached_unit_is_found(registered, tmp_path, dtype):
    """Both a folded part and a MobileOne unit behind the last output."""
    text = several(Unreached).replace('(0, 1, 2, 3)', '(2,)').replace('channels=64', 'channels=32')
    config, model = built(text, tmp_path)
    model.to(dtype)
    folding = build_deploy_form(config, model, foldable(model))
    folding.model.eval().to(dtype)
    forward, inputs = RawForward(model), [('x', torch.rand(1, 3, 64, 64))]
    folding.model.load_state_dict(deploy_state(model, folding.pairs))
    compare_models(forward, model, folding.model, inputs, 1e-4, folding.pairs)
    for name in ('necks.0.part.conv', 'first.stage4.1.branch_reparam'):
        folding.model.load_state_dict(deploy_state(model, folding.pairs))
        with torch.no_grad():
            folding.model.get_submodule(name).weight.mul_(1.01)
        with pytest.raises(ProofError, match=f'of {name.rpartition(".")[0]} on x'):
            compare_models(forward, model, folding.model, inputs, 1e-4, folding.pairs)


def test_another_backbone_is_left(tmp_path, registered):
    pytest.importorskip('mmpretrain')
    text = (
        f"{HEADER}default_scope = 'mmengine'\n"
        "other = dict(backbone=dict(type='mmpretrain.MobileNetV2', widen_factor=0.1))\n"
        "model = dict(type='Nested', first=backbone, other=other)\n"
    )
    config, model = built(text, tmp_path)
    plan = build_deploy_form(config, model, foldable(model))
    assert (plan.pairs, plan.without) == ([], ())
    assert set(plan.left.values()) == {'belongs to another backbone, which stays as it is'}
