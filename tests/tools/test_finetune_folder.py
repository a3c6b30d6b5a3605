"""Fine-tuning on a folder of classes, as docs/classification.md has it."""

import shutil
from itertools import product

import pytest
import torch

from helpers import ROOT, randomize_
from mobileone_mm import MobileOne, reparameterize_model
from mobileone_mm.weights.names import to_scheme
from mobileone_mm.weights.unwrap import read_weights

CONFIG = ROOT / 'configs' / 'mobileone_s0_finetune_folder.py'
SMALL = [
    'train_dataloader.dataset.pipeline.1.scale=64',
    'val_dataloader.dataset.pipeline.2.crop_size=64',
    *(f'{part}_dataloader.num_workers=0' for part in ('train', 'val')),
    'train_dataloader.batch_size=4',
    'train_cfg.max_epochs=1',
]


@pytest.fixture(scope='module')
def fused(tmp_path_factory):
    """A fused classifier of 1000 classes, as Apple publishes them."""
    model = reparameterize_model(randomize_(MobileOne('s0')).eval())
    state = {f'backbone.{key}': value for key, value in model.state_dict().items()}
    head = {'head.fc.weight': torch.zeros(1000, 1024), 'head.fc.bias': torch.zeros(1000)}
    file = tmp_path_factory.mktemp('fused') / 'apple.pth.tar'
    torch.save(to_scheme({**state, **head}, 'apple'), file)
    return state, file


@pytest.mark.parametrize('deploy', [True, False])
def test_start_from_public_weights(deploy, fused, tiny_imagenet, tool, tmp_path, monkeypatch):
    monkeypatch.setenv('FOLDER_ROOT', str(tiny_imagenet))
    state, file = fused
    classes, work = len(list((tiny_imagenet / 'train').iterdir())), tmp_path / 'run'
    options = [*SMALL, f'model.head.num_classes={classes}', f'model.backbone.deploy={deploy}']
    options += [f'model.backbone.init_cfg.checkpoint={file}', 'optim_wrapper.optimizer.lr=0']
    assert tool('train', CONFIG, '--work-dir', work, '--cfg-options', *options) == 0
    found = read_weights(work / 'epoch_1.pth').state
    assert found['head.fc.weight'].shape == (classes, 1024)
    if deploy:  # at the least rate of the schedule, these are the weights that it started from
        for key, value in state.items():
            torch.testing.assert_close(found[key], value, rtol=0, atol=1e-5)
    else:
        assert not any('reparam' in key for key in found)


def test_class_folders_without_an_image(
    tiny_imagenet, tool, refused, tmp_path, monkeypatch, capsys
):
    """One keeps its number, and the log names it; without any image there is no dataset."""
    root = tmp_path / 'own'
    shutil.copytree(tiny_imagenet, root, ignore=shutil.ignore_patterns('meta'))
    monkeypatch.setenv('FOLDER_ROOT', str(root))
    first, *others = sorted({path.name for path in root.glob('*/*')})
    for split, name in product(('train', 'val'), (first, *others)):
        (root / split / name).mkdir(exist_ok=True)
    shutil.rmtree(root / 'train' / first)
    (root / 'train' / first).mkdir()
    (root / 'train' / first / '.hidden.jpg').touch()
    options = [*SMALL, f'model.head.num_classes={1 + len(others)}', 'model.backbone.init_cfg=None']
    run = ('train', CONFIG, '--work-dir', tmp_path / 'run', '--cfg-options', *options)
    assert tool(*run) == 0
    line = f"class folders of '{root / 'train'}' without an image: '{first}'; they keep their"
    assert line in ''.join(capsys.readouterr())
    for image in (root / 'val').glob('*/*'):
        image.rename(image.with_suffix('.txt'))
    line = f"val_dataloader.dataset: the dataset is empty: no class folder of '{root / 'val'}' has"
    assert line in refused(*run)
