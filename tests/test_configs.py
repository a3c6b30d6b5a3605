"""Every config: it is declarative, its data load, it trains a step, predicts, and fuses exactly."""

import ast
import re
import shutil

import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.runner import Runner

from helpers import ROOT, randomize_, save_teacher
from mobileone_mm.config.tree import datasets, walk
from mobileone_mm.reparam import reparameterize_model
from mobileone_mm.reparam.compare import max_difference
from mobileone_mm.reparam.surgery import unfused_blocks
from mobileone_mm.weights.mmengine_loader import use_safe_loader
from mobileone_mm.weights.published import NAMED, PREFIX

CONFIGS = ROOT / 'configs'
SIZES = ('s0', 's1', 's2', 's3', 's4')
LEAVES = [
    *(f'mobileone_{size}_in1k' for size in (*SIZES, 'mu0', 'mu1', 'mu2')),
    *(f'mobileone_{size}_meal_in1k' for size in SIZES),
    *(f'ssdlite_mobileone_{size}_coco' for size in SIZES),
    *(f'deeplabv3_mobileone_{size}_{data}' for size in SIZES for data in ('voc', 'ade20k')),
    *(f'rtmdet_mobileone_{size}_coco' for size in SIZES[:3]),
    *(f'deeplabv3plus_mobileone_{size}_{data}' for size in SIZES[:3] for data in ('voc', 'ade20k')),
]
#: one leaf of each dataset
DATA = (
    'mobileone_s0_in1k', 'mobileone_s2_in1k', 'ssdlite_mobileone_s0_coco',
    'deeplabv3_mobileone_s0_voc', 'deeplabv3_mobileone_s0_ade20k',
)  # fmt: skip
#: one leaf of each structure: family, squeeze-and-excitation, distillation, neck
STRUCTURES = (
    'mobileone_s0_in1k', 'mobileone_s4_in1k', 'mobileone_mu0_in1k', 'mobileone_s0_meal_in1k',
    'ssdlite_mobileone_s0_coco', 'deeplabv3_mobileone_s0_voc',
    'deeplabv3_mobileone_s4_ade20k', 'rtmdet_mobileone_s0_coco', 'rtmdet_mobileone_s1_coco',
    'deeplabv3plus_mobileone_s0_ade20k',
)  # fmt: skip
#: smallest images that leave each net something to do
SIDES = {'mmpretrain': 64, 'mmdet': 160, 'mmseg': 64}
FULL_SIDES = {'mmpretrain': 224, 'mmdet': 320, 'mmseg': 512}


@pytest.fixture(scope='module')
def voc(tiny_voc, tmp_path_factory):
    """VOC with the masks that SBD would add."""
    root = shutil.copytree(tiny_voc, tmp_path_factory.mktemp('vocaug') / 'VOC2012')
    shutil.copytree(root / 'SegmentationClass', root / 'SegmentationClassAug')
    lists = root / 'ImageSets' / 'Segmentation'
    shutil.copy(lists / 'train.txt', lists / 'aug.txt')
    return root


@pytest.fixture(scope='module')
def teacher(tmp_path_factory):
    return save_teacher(tmp_path_factory.mktemp('teacher') / 'teacher.pth')


@pytest.fixture
def load(roots, voc, teacher, own_scope, monkeypatch):
    """A config by name, with tiny data, in its own default scope, without worker processes."""
    monkeypatch.setenv('VOC_ROOT', str(voc))

    def _load(name):
        cfg = Config.fromfile(CONFIGS / f'{name}.py')
        init_default_scope(cfg.default_scope)
        for key in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
            cfg[key].update(num_workers=0, persistent_workers=False, batch_size=2)
        if 'init_cfg' in cfg.model.get('backbone', {}):  # weights that would be downloaded
            cfg.model.backbone.init_cfg = dict(type='mobileone_mm.NearIdentityInit')
        if 'teachers' in cfg.model:
            cfg.model.teachers = [teacher]
        return cfg

    return _load


def shrink(cfg):
    """Smaller images: the only change to what a config says about its model and data."""
    side = SIDES[cfg.default_scope]
    square = (side, side)
    change = {
        'RandomResizedCrop': dict(scale=side), 'ResizeEdge': dict(scale=side + 8),
        'CenterCrop': dict(crop_size=side), 'RandomCrop': dict(crop_size=square),
        'RandomResize': dict(scale=square), 'Resize': dict(scale=square),
    }  # fmt: skip
    for part in ('train', 'val', 'test'):
        for _, step in walk(cfg[f'{part}_dataloader']):
            step.update(change.get(step.get('type'), {}))
    if 'size' in cfg.model.data_preprocessor:
        cfg.model.data_preprocessor.size = square
    return cfg


def batch_of(dataloader, count=2):
    dataset = DATASETS.build(dataloader.dataset)
    return pseudo_collate([dataset[index] for index in range(count)])


def predictions(samples):
    """What an image's prediction consists of, as tensors."""
    for sample in samples:
        if 'pred_instances' in sample:
            found = sample.pred_instances
            yield from (found.bboxes, found.scores, found.labels.double())
        elif 'seg_logits' in sample:
            yield from (sample.seg_logits.data, sample.pred_sem_seg.data.double())
        else:
            yield from (sample.pred_score, sample.pred_label.double())


def check_prediction(cfg, sample):
    if cfg.default_scope == 'mmdet':
        found = sample.pred_instances
        assert len(found) <= cfg.model.test_cfg.max_per_img
        assert ((found.labels >= 0) & (found.labels < 80)).all()
        height, width = sample.ori_shape
        assert (found.bboxes >= 0).all()
        assert (found.bboxes <= torch.tensor([width, height, width, height]) + 1e-3).all()
    elif cfg.default_scope == 'mmseg':
        assert sample.pred_sem_seg.data.shape == (1, *sample.ori_shape)
        assert sample.seg_logits.data.shape[0] == cfg.model.decode_head.num_classes
    else:
        assert sample.pred_score.shape == (1000,)
        assert abs(float(sample.pred_score.sum()) - 1) < 1e-4


def test_the_promised_leaves():
    own = {'mobileone_s0_finetune_folder'}  # in deploy form: tests/tools/test_finetune_folder.py
    assert {path.stem for path in CONFIGS.glob('*.py')} == set(LEAVES) | own


def test_declarative():
    """Assignments of literals, ``dict(...)`` and base values only; leaves of at most 40 lines."""
    for path in CONFIGS.rglob('*.py'):
        text = path.read_text()
        body = ast.parse(re.sub(r'\{\{_base_\.[\w.]+\}\}', "''", text)).body
        if isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
            body = body[1:]
        allowed = (
            ast.Assign, ast.Name, ast.Load, ast.Store, ast.Constant, ast.Call, ast.keyword, ast.List,
            ast.Tuple, ast.UnaryOp, ast.USub,
        )  # fmt: skip
        if path.stem.endswith('_variants'):  # of a study: options by dotted key
            allowed += (ast.Dict,)
        for node in (inner for statement in body for inner in ast.walk(statement)):
            assert isinstance(node, allowed), f'{path}, line {node.lineno}: {ast.dump(node)}'
            if isinstance(node, ast.Call):
                assert node.func.id == 'dict', path
                assert not node.args, path
        assert '::' not in text, path
        assert path.parent != CONFIGS or len(text.splitlines()) <= 40, path


@pytest.mark.parametrize('name', DATA)
def test_loads_its_data(name, load):
    """Both pipelines at their real sizes, from files in the layout of the original dataset."""
    cfg = load(name)
    preprocess = MODELS.build(cfg.model.data_preprocessor)
    side = FULL_SIDES[cfg.default_scope]
    train = preprocess(batch_of(cfg.train_dataloader), training=True)
    val = preprocess(batch_of(cfg.val_dataloader), training=False)
    assert train['inputs'].shape == val['inputs'].shape == (2, 3, side, side)
    assert train['inputs'].abs().max() < 6  # normalised
    first = train['data_samples'][0]
    if cfg.default_scope == 'mmdet':
        assert len(first.gt_instances)
        assert int(first.gt_instances.labels.max()) < 80
    elif cfg.default_scope == 'mmseg':
        assert first.gt_sem_seg.data.shape == (1, side, side)
        labels = set(first.gt_sem_seg.data.unique().tolist())
        assert labels <= {*range(cfg.model.decode_head.num_classes), 255}
        assert labels - {255}
    else:
        assert 0 <= int(first.gt_label) < 1000
    # ImageNet's mean color, in the order BGR of a loaded image, becomes zero.
    image = torch.tensor([104, 116, 124], dtype=torch.uint8).view(3, 1, 1).expand(3, 64, 64)
    data = dict(inputs=[image.contiguous()], data_samples=val['data_samples'][:1])
    assert preprocess(data, training=False)['inputs'].abs().max() < 0.02


def test_all_leaves_are_like_those_that_the_tests_run(load):
    """Data as in ``DATA``; a forward of the deploy form, without numbers, shows that channels fit.

    The index that mim reads has the parameters of each.
    """
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    files = [yaml.safe_load((ROOT / path).read_text()) for path in index['Import']]
    parameters = {m['Name']: m['Metadata']['Parameters'] for file in files for m in file['Models']}
    tested = [data_of(load(name)) for name in DATA]
    for name in LEAVES:
        cfg = load(name)
        assert data_of(cfg) in tested, name
        cfg.model.backbone.deploy = True
        with torch.device('meta'):
            model = revert_sync_batchnorm(MODELS.build(cfg.model)).eval()
            model(torch.empty(1, 3, *2 * [SIDES[cfg.default_scope]]), mode='tensor')
        assert parameters[name] == sum(parameter.numel() for parameter in model.parameters()), name


def data_of(cfg):
    """Return what decides how images reach the model."""
    return [
        cfg.model.data_preprocessor.to_dict(),
        *(cfg[f'{part}_dataloader'].dataset.to_dict() for part in ('train', 'val', 'test')),
    ]


@pytest.mark.parametrize('size', SIZES)
def test_distilling_leaves_name_public_weights(size):
    timm = pytest.importorskip('timm')
    cfg = Config.fromfile(CONFIGS / f'mobileone_{size}_meal_in1k.py')
    for spec in cfg.model.teachers:
        assert spec.timm in timm.list_pretrained()
        table = timm.get_pretrained_cfg(spec.timm)
        assert table.num_classes == cfg.model.head.num_classes
    weights = NAMED[cfg.load_from.removeprefix(PREFIX)]
    assert weights.form == 'train'
    assert f'mobileone-{size}_' in weights.url


@pytest.mark.parametrize(
    'name', [n if n in STRUCTURES else pytest.param(n, marks=pytest.mark.slow) for n in LEAVES]
)
def test_trains_predicts_and_fuses(name, load):
    cfg = shrink(load(name))
    torch.manual_seed(0)
    model = revert_sync_batchnorm(MODELS.build(cfg.model))
    model.init_weights()
    _train_step(cfg, model)
    batch = batch_of(cfg.val_dataloader)
    model.eval()
    with torch.no_grad():
        for sample in model.val_step(batch):
            check_prediction(cfg, sample)
        _fuses_exactly(model, batch)
    assert not list(unfused_blocks(model))


def _train_step(cfg, model):
    optim = build_optim_wrapper(model, cfg.optim_wrapper)
    data = model.data_preprocessor(batch_of(cfg.train_dataloader), training=True)
    loss, _ = model.parse_losses(model(**data, mode='loss'))
    assert torch.isfinite(loss)
    stem = model.backbone.stage0.branch_conv_list[0].conv.weight
    before = stem.detach().clone()
    optim.backward(loss)
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key
    optim.step()
    optim.zero_grad()
    assert not torch.equal(before, stem)


def _fuses_exactly(model, batch):
    """Float64, random weights and statistics: raw outputs and finished predictions agree."""
    randomize_(model.double(), seed=3)
    data = model.data_preprocessor(batch, training=False)
    inputs, samples = data['inputs'].double(), data['data_samples']

    def run():
        finished = list(predictions(model(inputs, samples, mode='predict')))
        # A segmentor's prediction holds its logits; the others' raw outputs are compared as well.
        return finished if 'seg_logits' in samples[0] else (finished, model(inputs, mode='tensor'))

    expected = run()
    assert list(unfused_blocks(model))
    reparameterize_model(model, inplace=True)
    assert max_difference(expected, run())[1] < 1e-9


@pytest.mark.parametrize('name', [DATA[0], *DATA[2:4], 'rtmdet_mobileone_s0_coco'])
def test_runs_an_epoch(name, load, tmp_path):
    """The Runner with all hooks of a config trains, validates, keeps the best; its test agrees."""
    cfg = shrink(load(name))
    cfg.work_dir = str(tmp_path)
    cfg.train_cfg.max_epochs = 1
    if 'times' in cfg.train_dataloader.dataset:
        cfg.train_dataloader.dataset.times = 1
    parts = list(datasets(cfg, 'train_dataloader'))
    for _, dataset in parts:
        dataset.indices = 4 // len(parts)  # two iterations
    runner = Runner.from_cfg(cfg)
    runner.train()
    metric = cfg.default_hooks.checkpoint.save_best
    (best,) = tmp_path.glob(f'best_{metric.replace("/", "_")}*.pth')
    assert (tmp_path / 'epoch_1.pth').is_file()
    score = float(runner.message_hub.get_info('best_score'))
    assert 0 <= score <= 100
    cfg.load_from = str(best)
    use_safe_loader()
    assert Runner.from_cfg(cfg).test()[metric] == pytest.approx(score, abs=1e-6)
