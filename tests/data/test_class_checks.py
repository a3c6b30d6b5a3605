"""A number means the same class in all datasets of a run, or the run is refused in one line."""

from __future__ import annotations

import re

import pytest
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope

from mobileone_mm.data.checks.loaders import check_data
from mobileone_mm.errors import InputError

BOTH = ('train_dataloader', 'val_dataloader')


@pytest.fixture
def data(tmp_path, fresh_mmengine):
    """Make folders of classes, or packs of their names; return the config of both loaders."""
    init_default_scope('mmpretrain')

    def make(train, val, kind='CustomDataset', heads=None, **more):
        cfg = {}
        for split, names in (('train', train), ('val', val)):
            folder = tmp_path / split
            settings = dict(type=kind, data_root=str(tmp_path), data_prefix=split, **more)
            if kind == 'mobileone_mm.PackedDataset':
                pack(folder, names)
            else:
                for name in names:
                    (folder / name).mkdir(parents=True)
                    (folder / name / 'a.jpg').touch()
            cfg[f'{split}_dataloader'] = dict(dataset=settings)
        if heads is not None:
            cfg['model'] = dict(head=dict(num_classes=heads))
        return cfg

    return make


def pack(folder, names, labels=None):
    from mobileone_mm.data.packed.sources import Item
    from mobileone_mm.data.packed.write import write_pack

    sources = folder.with_name(f'{folder.name}_files')
    items = []
    for label in range(len(names)) if labels is None else labels:
        (sources / str(label)).mkdir(parents=True)
        image = sources / str(label) / 'a.jpg'
        image.write_bytes(b'x')
        items.append(Item(str(image), f'{label}/a.jpg', label))
    write_pack(items, folder, 'shards', names)


def refused(cfg, line, loaders=BOTH):
    with pytest.raises(InputError, match=line) as caught:
        check_data(cfg, loaders)
    assert '\n' not in str(caught.value)
    return str(caught.value)


ABC, OTHER = ('ant', 'bee', 'fly'), ('ant', 'bug', 'fly')


@pytest.mark.parametrize('kind', ['CustomDataset', 'mobileone_mm.PackedDataset'])
def test_splits_with_other_classes(kind, data):
    line = refused(data(ABC, OTHER, kind, heads=3), r'^val_dataloader.dataset: its labels differ')
    assert re.search(r"'bee' is only in train_dataloader.dataset \('[^']*/train[^']*'\)", line)
    assert re.search(r"'bug' is only in val_dataloader.dataset \('[^']*/val[^']*'\)", line)


@pytest.mark.parametrize('kind', ['CustomDataset', 'mobileone_mm.PackedDataset'])
def test_a_class_that_one_split_lacks(kind, data):
    refused(data(ABC, ABC[::2], kind, heads=3), r"'bee' is only in train_dataloader.dataset \(")


@pytest.mark.parametrize('kind', ['CustomDataset', 'mobileone_mm.PackedDataset'])
@pytest.mark.parametrize('classes', [None, ABC, ('Ameise', 'Biene', 'Fliege')])
def test_the_same_classes(kind, classes, data):
    more = {} if classes is None else dict(metainfo=dict(classes=classes))
    check_data(data(ABC, ABC, kind, heads=3, **more), BOTH)


@pytest.mark.parametrize('kind', ['CustomDataset', 'mobileone_mm.PackedDataset'])
def test_class_list_in_another_order(kind, data):
    """Also where the dataset is the only one of the run."""
    cfg = data(ABC, ABC, kind, metainfo=dict(classes=('ant', 'fly', 'bee')))
    line = refused(cfg, r"metainfo.classes: class 1 is 'fly', but", ('val_dataloader',))
    assert "where it is 'bee'" in line


def test_older_way_of_giving_the_classes(data):
    refused(data(ABC, ABC, classes=('fly', 'ant', 'bee')), r'^train\S+dataset.classes: class 0 is')


def test_numbers_as_names(data):
    """Sorted as words, 10 comes before 2."""
    numbers = tuple(map(str, range(11)))
    cfg = data(numbers, numbers, metainfo=dict(classes=numbers))
    refused(cfg, r"class 2 is '2', but .* where it is '10'")


def test_some_names_are_other_words(data, capsys):
    MMLogger.get_instance('of_the_run', logger_name='of_the_run')
    check_data(data(ABC, ABC, metainfo=dict(classes=('ant', 'honey bee', 'fly'))), BOTH)
    assert "'bee' is called 'honey bee'; the other names agree" in ''.join(capsys.readouterr())


def test_imagenet(data):
    """Folders are wnids, the class list has readable names; lists of labels count alone."""
    wnids = tuple(f'n{number:08}' for number in range(1000))
    cfg = data(wnids, wnids, 'ImageNet', heads=1000)
    check_data(cfg, BOTH)


def test_lists_of_labels(data, tmp_path):
    cfg = data(ABC, OTHER, heads=3, metainfo=dict(classes=('fly', 'ant', 'bee')))
    for split, names in (('train', ABC), ('val', OTHER)):
        lines = [f'{name}/a.jpg {number}' for number, name in enumerate(names)]
        (tmp_path / f'{split}.txt').write_text('\n'.join(lines))
        cfg[f'{split}_dataloader']['dataset']['ann_file'] = f'{split}.txt'
    check_data(cfg, BOTH)


def test_packs_of_other_words(data):
    """A pack of ImageNet's folders has wnids, one of its dataset readable names."""
    cfg = data(ABC, ('Ameise', 'Biene', 'Fliege'), 'mobileone_mm.PackedDataset', heads=3)
    check_data(cfg, BOTH)


def test_packs_in_another_order(data):
    cfg = data(ABC, ('ant', 'fly', 'bee'), 'mobileone_mm.PackedDataset', heads=3)
    refused(cfg, r"class 1 is 'bee' in train\S+ \('.*classes.txt'\), 'fly' in val")


def test_packed_and_folders(data, tmp_path):
    cfg = data(ABC, ABC, heads=3)
    pack(tmp_path / 'packed', OTHER)
    cfg['train_dataloader']['dataset'].update(
        type='mobileone_mm.PackedDataset', data_prefix='packed'
    )
    refused(cfg, r"'bug' is only in train\S+ \(.*, 'bee' is only in val")


@pytest.mark.parametrize(
    ('names', 'labels', 'heads', 'line'),
    [
        (ABC, None, 20, r"classes.txt' names 3 classes, 20 classes are set"),
        (ABC, range(2), 2, r"classes.txt' names 3 classes, 2 classes are set"),
        (ABC[:2], range(3), 3, r"classes.txt' names 2 classes, but there is an image of class 2"),
        (ABC, None, 2, r'has an image of class 2, but there are 2 classes'),
    ],
)
def test_packed_classes_and_the_head(names, labels, heads, line, tmp_path, fresh_mmengine):
    init_default_scope('mmpretrain')
    pack(tmp_path / 'train', names, labels)
    dataset = dict(type='mobileone_mm.PackedDataset', data_root=str(tmp_path / 'train'))
    cfg = dict(model=dict(head=dict(num_classes=heads)), train_dataloader=dict(dataset=dataset))
    refused(cfg, rf'^train_dataloader.dataset: .*{line}')


def test_a_test_beside_other_training_data(data, capsys):
    """The checkpoint may come from another training, so the tool logs a line and continues."""
    cfg = data(ABC, OTHER, heads=3)
    cfg['test_dataloader'] = cfg.pop('val_dataloader')
    MMLogger.get_instance('of_the_test', logger_name='of_the_test')
    check_data(cfg, ('test_dataloader',))
    shown = ''.join(capsys.readouterr())
    assert (
        'test_dataloader.dataset: its labels differ from those of train_dataloader.dataset' in shown
    )


def test_a_folder_that_is_no_class(data, tmp_path):
    """Hidden folders count, and come first."""
    cfg = data(ABC, ABC, heads=3)
    (tmp_path / 'train' / '.ipynb_checkpoints').mkdir()
    refused(cfg, r'has 4 class folders, 3 classes .* these folders: .ipynb_checkpoints, ant, bee')


def test_class_list_that_is_no_text(data, tmp_path):
    cfg = data(ABC, ABC, 'mobileone_mm.PackedDataset', heads=3)
    (tmp_path / 'train' / 'classes.txt').write_bytes(b'\xff\xfe\xff')
    refused(cfg, r"^train_dataloader.dataset: '.*classes.txt' is not a readable list")
