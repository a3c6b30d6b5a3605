"""An image that cannot be read, in the middle of a run."""

import csv

import numpy as np
import pytest
from PIL import Image

TRAINING = {'cls': 'train/*/*.JPEG', 'det': 'train2017/*.jpg', 'seg': 'JPEGImages/*train*.jpg'}
EVALUATION = {'cls': 'val/*/*.JPEG', 'det': 'val2017/*.jpg', 'seg': 'JPEGImages/*val*.jpg'}


@pytest.fixture
def break_one(own_data):
    """Cut an image of the training or evaluation part in half, and return its name."""

    def change(task, where):
        file = sorted(own_data(task).glob(where[task]))[1]
        file.write_bytes(file.read_bytes()[:700])
        return str(file)

    return change


@pytest.mark.parametrize('task', ['cls', 'det', pytest.param('seg', marks=pytest.mark.slow)])
def test_run_goes_on(task, break_one, tiny_config, tool, tmp_path):
    """Training leaves the image out, evaluation counts a grey one; each is named once."""
    names = break_one(task, TRAINING), break_one(task, EVALUATION)
    config = tiny_config(task, 'train_dataloader.update(num_workers=2, batch_size=3)\n')
    options = ('--cfg-options', 'train_cfg.max_epochs=2')
    assert tool('train', config, '--work-dir', tmp_path / 'run', *options) == 0
    log = next((tmp_path / 'run').glob('*/*.log')).read_text()
    for name in names:
        assert sum(name in line and 'WARNING' in line for line in log.splitlines()) == 1
    assert '2 files could not be read' in log
    assert (tmp_path / 'run' / 'epoch_2.pth').exists()


def test_run_ends_if_asked(break_one, tiny_config, refused, tmp_path):
    """By a flag, with an error that comes out of a worker, or in the config."""
    name = break_one('cls', TRAINING)
    loader = "dict(type='mobileone_mm.LoadImage', on_error='raise')"
    asking = f"train_dataloader['dataset']['pipeline'][0] = {loader}\n"
    workers = 'train_dataloader.update(num_workers=1)\n'
    for extra, flags in ((workers, ['--stop-at-broken-images']), (asking, [])):
        run = ('train', tiny_config('cls', extra), '--no-validate', *flags)
        assert name in refused(*run, got_somewhere=True)
        assert not list(tmp_path.rglob('*.pth'))


def test_evaluation_counts_the_image(trained_run, break_one, tiny_config, tool, tmp_path):
    """The broken image is one of eight, not replaced by another one."""
    checkpoint, name = trained_run('cls') / 'epoch_1.pth', break_one('cls', EVALUATION)
    out = tmp_path / 'predictions.csv'
    run = ('test', tiny_config('cls'), checkpoint, '--work-dir', tmp_path / 'test')
    assert tool(*run, '--out', out, '--show-dir', tmp_path / 'shown') == 0
    with out.open() as file:
        files = [row['file'] for row in csv.DictReader(file)]
    assert len(set(files)) == len(files) == 8
    assert any(name.endswith(file) for file in files)
    assert len(list((tmp_path / 'shown').iterdir())) == 7


@pytest.fixture
def change_mask(own_data):
    """Overwrite the first mask of the training or evaluation part, and return its name."""

    def change(part, content):
        mask = sorted((own_data('seg') / 'SegmentationClass').glob(f'*{part}*.png'))[0]
        if isinstance(content, bytes):
            mask.write_bytes(content)
        else:
            Image.fromarray(content).save(mask)
        return str(mask)

    return change


def test_broken_mask(change_mask, tiny_config, tool, tmp_path):
    """Training leaves its image out, evaluation counts none of its pixels."""
    names = change_mask('train', b'no mask'), change_mask('val', b'')
    config = tiny_config('seg', 'train_dataloader.update(num_workers=2)\n')
    options = ('--cfg-options', 'train_cfg.max_epochs=2')
    assert tool('train', config, '--work-dir', tmp_path / 'run', *options) == 0
    log = next((tmp_path / 'run').glob('*/*.log')).read_text()
    said = ('its image is skipped', 'all its pixels are ignored')
    for name, then in zip(names, said, strict=True):
        assert sum(name in line and then in line for line in log.splitlines()) == 1
    assert '2 files could not be read' in log


@pytest.mark.parametrize('part', ['train', 'val'])
def test_mask_that_does_not_fit(part, change_mask, trained_run, tiny_config, refused):
    run = ('train',) if part == 'train' else ('test', trained_run('seg') / 'epoch_1.pth')
    for content, said in (
        (np.full((96, 96), 21, np.uint8), 'has the class number 21, but the model has 21 classes'),
        (np.zeros((96, 96, 3), np.uint8), 'has 3 channels'),
        (np.zeros((96, 80), np.uint8), 'has 80 x 96 pixels, its image 96 x 96'),
    ):
        name = change_mask(part, content)
        line = refused(run[0], tiny_config('seg'), *run[1:], got_somewhere=True)
        assert said in line
        assert name in line


def test_every_image_broken(own_data, tiny_config, refused):
    for file in (own_data('det') / 'train2017').iterdir():
        file.write_bytes(b'no image')
    options = ('--cfg-options', 'train_dataloader.dataset.dataset.max_refetch=20')
    line = refused('train', tiny_config('det'), '--no-validate', *options, got_somewhere=True)
    assert 'no sample of many could be loaded' in line
