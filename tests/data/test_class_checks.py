"""A number means the same class in all datasets of a run, or the run is refused in one line."""

import pytest
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope

from helpers import write_files
from mobileone_mm.data.checks.loaders import check_data
from mobileone_mm.data.packed.write import Item, write_pack
from mobileone_mm.errors import InputError

BOTH = ('train_dataloader', 'val_dataloader')
FOLDERS, PACKED = 'CustomDataset', 'mobileone_mm.PackedDataset'
ABC, OTHER, WORDS = ('ant', 'bee', 'fly'), ('ant', 'bug', 'fly'), ('Ameise', 'Biene', 'Fliege')
NUMBERS = tuple(map(str, range(11)))
WNIDS = tuple(f'n{number:08}' for number in range(1000))


@pytest.fixture
def data(tmp_path, fresh_mmengine):
    """Make folders of classes, or packs of their names; return the config of both loaders."""
    init_default_scope('mmpretrain')

    def make(train, val, kind='CustomDataset', heads=None, **more):
        cfg = {}
        for split, names in (('train', train), ('val', val)):
            folder = tmp_path / split
            settings = dict(type=kind, data_root=str(tmp_path), data_prefix=split, **more)
            if kind == PACKED:
                pack(folder, names, range(len(names)))
            else:
                write_files(folder, {f'{name}/a.jpg': '' for name in names})
            cfg[f'{split}_dataloader'] = dict(dataset=settings)
        if heads is not None:
            cfg['model'] = dict(head=dict(num_classes=heads))
        return Config(cfg)

    return make


def pack(folder, names, labels=range(3)):
    image = folder.with_name(f'{folder.name}.jpg')
    image.write_bytes(b'x')
    items = [Item(str(image), f'{label}/a.jpg', label) for label in labels]
    write_pack(items, folder, 'shards', names)


def refused(cfg, line, loaders=BOTH):
    with pytest.raises(InputError, match=line) as caught:
        check_data(cfg, loaders)
    assert '\n' not in str(caught.value)


def listed(names):
    return dict(metainfo=dict(classes=names))


@pytest.mark.parametrize(
    ('kind', 'train', 'val', 'more', 'line'),
    [
        *((kind, ABC, ABC, dict(heads=3, **more), None)
          for kind in (FOLDERS, PACKED) for more in ({}, listed(ABC), listed(WORDS))),
        *((kind, ABC, OTHER, dict(heads=3),
           r"^val_dataloader.dataset: its labels differ from those of train.*: 'bee' is only in "
           r"train_dataloader.dataset \('[^']*/train[^']*'\), 'bug' is only in "
           r"val_dataloader.dataset \('[^']*/val[^']*'\)") for kind in (FOLDERS, PACKED)),
        *((kind, ABC, ABC[::2], dict(heads=3), r"'bee' is only in train_dataloader.dataset \(")
          for kind in (FOLDERS, PACKED)),
        *((kind, ABC, ABC, listed(('ant', 'fly', 'bee')),
           r"metainfo.classes: class 1 is 'fly', but .* where it is 'bee'")
          for kind in (FOLDERS, PACKED)),
        # other case
        (FOLDERS, ABC, ABC, listed(('Ant', 'Fly', 'Bee')), r"class 1 is 'Fly', .* where it is 'bee'"),
        (FOLDERS, ABC, ABC, listed(('Ant', 'BEE', 'Fly')), None),
        # mmpretrain's older argument
        (FOLDERS, ABC, ABC, dict(classes=('fly', 'ant', 'bee')), r'^train\S+dataset.classes: class 0'),
        # sorted as words, 10 comes before 2
        (FOLDERS, NUMBERS, NUMBERS, listed(NUMBERS), r"class 2 is '2', but .* where it is '10'"),
        # folders are wnids, the class list has readable names
        ('ImageNet', WNIDS, WNIDS, dict(heads=1000), None),
        # a pack of ImageNet's folders has wnids, one of its dataset readable names
        (PACKED, ABC, WORDS, dict(heads=3), None),
        (PACKED, ABC, ('ant', 'fly', 'bee'), dict(heads=3),
         r"class 1 is 'bee' in train\S+ \('.*classes.txt'\), 'fly' in val"),
    ],
)  # fmt: skip
def test_numbers_of_two_splits(kind, train, val, more, line, data):
    cfg = data(train, val, kind, **more)
    if line is None:
        check_data(cfg, BOTH)
    else:
        refused(cfg, line)
        if train == val and 'classes' not in more:  # also where it is the only dataset of the run
            refused(cfg, line, ('val_dataloader',))


def test_class_list_in_a_file(data, tmp_path):
    (tmp_path / 'names.txt').write_text('ant\nfly\nbee\n')
    cfg = data(ABC, ABC, heads=3, **listed(str(tmp_path / 'names.txt')))
    refused(cfg, r"metainfo.classes: class 1 is 'fly', but .* where it is 'bee'")


def test_class_lists_that_the_hosts_read_wrong(data, tmp_path):
    (tmp_path / 'names.txt').write_text('ant\nbee\n\nfly\n')
    where = r'^train_dataloader\.dataset'
    for names, line in (
        (str(tmp_path / 'names.txt'), 'names.txt., line 3: the line is empty'),
        ('person', "one class is a tuple, too: .'person',"),
        (('ant', 'bee', 'bee'), 'classes 1 and 2 have the same name'),
    ):
        refused(data(ABC, ABC, heads=3, **listed(names)), rf'{where}\.metainfo\.classes: .*{line}')
        refused(data(ABC, ABC, heads=3, classes=names), rf'{where}\.classes: .*{line}')
    older = dict(metainfo=dict(CLASSES=ABC))
    refused(data(ABC, ABC, **older), rf"{where}\.metainfo: nothing reads 'CLASSES'; rename it")


@pytest.mark.parametrize(
    ('scope', 'settings', 'file'),
    [
        ('mmpretrain', dict(type='CustomDataset', ann_file='a.txt'), 'a.txt'),
        ('mmpretrain', dict(type=PACKED, data_prefix='pack'), 'pack/classes.txt'),
        ('mmpretrain', dict(type=PACKED, data_prefix='pack'), 'pack/labels.txt'),
        ('mmseg', dict(type='PascalVOCDataset', ann_file='a.txt', data_prefix=dict(img_path='pack')),
         'a.txt'),
        ('mmdet', dict(type='VOCDataset', ann_file='a.txt', data_prefix=dict(sub_data_root='')),
         'a.txt'),
    ],
)  # fmt: skip
def test_lists_with_a_mark_or_an_empty_line(scope, settings, file, tmp_path, fresh_mmengine):
    init_default_scope(scope)
    pack(tmp_path / 'pack', ABC)
    cfg = Config(dict(val_dataloader=dict(dataset=dict(settings, data_root=str(tmp_path)))))
    for content, said in (
        ('\ufeffant 0\n', 'begins with a byte order mark'),
        ('ant 0\n\nbee 1\n', 'line 2: the line is empty'),
    ):
        (tmp_path / file).write_text(content)
        refused(cfg, rf"^val_dataloader\.dataset.*{file}'.*{said}", ('val_dataloader',))


def test_annotation_files_of_voc(tmp_path, fresh_mmengine):
    init_default_scope('mmdet')
    dataset = dict(type='VOCDataset', data_root=str(tmp_path), ann_file='a.txt',
                   data_prefix=dict(sub_data_root='VOC2007/'))  # fmt: skip
    cfg = Config(dict(val_dataloader=dict(dataset=dataset)))
    write_files(tmp_path, {'a.txt': '01\n02\n', 'VOC2007/Annotations/01.xml': ''})
    refused(cfg, "annotation file '.*/VOC2007/Annotations/02.xml', which .* does not exist",
            ('val_dataloader',))  # fmt: skip
    write_files(tmp_path, {'VOC2007/Annotations/02.xml': ''})
    check_data(cfg, ('val_dataloader',))


def logged(cfg, loaders, name, capsys):
    MMLogger.get_instance(name, logger_name=name)
    check_data(cfg, loaders)
    return ''.join(capsys.readouterr())


def test_some_names_are_other_words(data, capsys):
    cfg = data(ABC, ABC, **listed(('ant', 'honey bee', 'fly')))
    line = "'bee' is called 'honey bee'; the other names agree"
    assert line in logged(cfg, BOTH, 'of_the_run', capsys)


def in_lists(cfg, root, **labels):
    """Let a split read a list of the labels of its folders."""
    for split, numbers in labels.items():
        lines = [f'{name}/a.jpg {number}\n' for name, number in numbers.items()]
        write_files(root, {f'{split}.txt': ''.join(lines)})
        cfg[f'{split}_dataloader']['dataset']['ann_file'] = f'{split}.txt'
    return cfg


IN_ORDER, TURNED = dict(ant=0, bee=1, fly=2), dict(ant=0, bee=2, fly=1)
MOVED = r"^val_dataloader.dataset: its labels differ .*: 'fly' is class 1 in .* class 2 in .*"


@pytest.mark.parametrize(
    ('train', 'val', 'more', 'line'),
    [
        (TURNED, None, {}, rf"{MOVED}/val'"),
        (TURNED, IN_ORDER, {}, rf"{MOVED}/val.txt'"),
        (IN_ORDER, None, {}, None),
        (TURNED, TURNED, {}, None),
        (IN_ORDER, dict(bee=1, fly=2), {}, None),  # no image of the first class
        (dict(ant=0, fly=2), None, {}, None),
        (dict(TURNED, fly=2), None, {}, None),  # two folders of one class
        (IN_ORDER, dict(ant=1, bee=1, fly=1), {}, None),  # the folders are no classes
        (IN_ORDER, IN_ORDER, listed(ABC[::-1]),
         "metainfo.classes: class 0 is 'fly', but .*train.txt', where it is 'ant'"),
        (IN_ORDER, dict(ant=0, fly=2), listed(WORDS), None),
    ],
)  # fmt: skip
def test_lists_of_labels(train, val, more, line, data, tmp_path, capsys):
    lists = dict(train=train) if val is None else dict(train=train, val=val)
    cfg = in_lists(data(ABC, ABC, heads=3, **more), tmp_path, **lists)
    if line:
        refused(cfg, line)
    else:
        assert 'WARNING' not in logged(cfg, BOTH, 'lists', capsys)


def test_one_image_with_two_labels(data, tmp_path):
    cfg = in_lists(data(ABC, ABC, heads=3), tmp_path, train=IN_ORDER)
    for line, said in (
        ('ant/a.jpg 1', r"line 4: 'ant/a.jpg' has label 1, but label 0 in an earlier line"),
        ('ant/b.jpg \u00b2', 'line 4: got .*; expected FILE LABEL'),
        ('ant/b.jpg\t1', r"got 'ant/b.jpg\\t1'; expected FILE LABEL, with one space"),
    ):
        in_lists(cfg, tmp_path, train=IN_ORDER)
        with (tmp_path / 'train.txt').open('a', encoding='utf-8') as file:
            file.write(line)
        refused(cfg, said)


def test_one_class_teaches_nothing(data, tmp_path):
    said = '^train_dataloader.dataset: all images of .*train.* have the class 0'
    refused(data(ABC[:1], ABC[:1], heads=1), said)
    refused(in_lists(data(ABC, ABC, heads=3), tmp_path, train=dict.fromkeys(ABC, 0)), said)
    cfg = data(ABC, ABC, heads=3)
    check_data(in_lists(cfg, tmp_path, val=dict.fromkeys(ABC, 0)), BOTH)
    for name in ABC[1:]:  # they stay as empty folders
        (tmp_path / 'train' / name / 'a.jpg').unlink()
    refused(data(ABC[:1], ABC, heads=3), said)
    (tmp_path / 'pack').mkdir()
    pack(tmp_path / 'pack/train', ABC, [0])
    dataset = dict(type=PACKED, data_root=str(tmp_path / 'pack/train'))
    cfg = dict(model=dict(head=dict(num_classes=3)), train_dataloader=dict(dataset=dataset))
    refused(Config(cfg), said, ('train_dataloader',))
    parts = [dict(dataset, metainfo=dict(classes=ABC)) for _ in range(2)]
    pack(tmp_path / 'pack/other', ABC, [1])
    parts[1]['data_root'] = str(tmp_path / 'pack/other')
    cfg['train_dataloader'] = dict(dataset=dict(type='ConcatDataset', datasets=parts))
    check_data(Config(cfg), ('train_dataloader',))


@pytest.mark.parametrize(
    ('stray', 'line'),
    [
        ('.ipynb_checkpoints', r"^train\S+: '.*' has the folders '.ipynb_checkpoints', which"),
        ('__MACOSX', r"has the folders '__MACOSX', which .*; remove them"),
        ('new', "'new' is only in .*; remove the empty folders 'new', or give both the same"),
    ],
)
def test_folders_that_are_no_classes(stray, line, data, tmp_path):
    cfg = data(ABC, ABC, heads=3)
    (tmp_path / 'train' / stray).mkdir()
    if stray == 'new':
        refused(cfg, "remove the empty folders 'new', or set 4, or label")
        cfg.model = {}
    refused(cfg, line)


def test_packed_and_folders(data, tmp_path):
    cfg = data(ABC, ABC, heads=3)
    pack(tmp_path / 'packed', OTHER)
    cfg['train_dataloader']['dataset'].update(type=PACKED, data_prefix='packed')
    refused(cfg, r"'bug' is only in train\S+ \(.*, 'bee' is only in val")


@pytest.mark.parametrize(
    ('names', 'labels', 'heads', 'line'),
    [
        (ABC, range(3), 20, r"classes.txt' has the classes 'ant', 'bee', 'fly', but 20 classes are"),
        (ABC, range(2), 2, r"classes.txt' has .*, but 2 classes are set .* set 3, or pack all"),
        (ABC[:2], range(3), 3, 'has an image of class 2, but there are 2 classes'),
        (ABC, range(3), 2, 'has an image of class 2, but there are 2 classes'),
    ],
)  # fmt: skip
def test_packed_classes_and_the_head(names, labels, heads, line, tmp_path, fresh_mmengine):
    init_default_scope('mmpretrain')
    pack(tmp_path / 'train', names, labels)
    dataset = dict(type=PACKED, data_root=str(tmp_path / 'train'))
    cfg = dict(model=dict(head=dict(num_classes=heads)), train_dataloader=dict(dataset=dataset))
    refused(Config(cfg), rf'^train_dataloader.dataset: .*{line}')


def test_a_test_beside_other_training_data(data, capsys):
    """The checkpoint may come from another training, so the tool logs a line and continues."""
    cfg = data(ABC, OTHER, heads=3)
    cfg['test_dataloader'] = cfg.pop('val_dataloader')
    line = 'test_dataloader.dataset: its labels differ from those of train_dataloader.dataset'
    assert line in logged(cfg, ('test_dataloader',), 'of_the_test', capsys)


def test_a_class_list_of_a_pack_that_is_no_text(data, tmp_path):
    cfg = data(ABC, ABC, heads=3)
    pack(tmp_path / 'packed', ABC)
    cfg['train_dataloader']['dataset'].update(type=PACKED, data_prefix='packed')
    (tmp_path / 'packed' / 'classes.txt').write_bytes(b'\xff\xfe\xff')
    refused(cfg, r"^train_dataloader.dataset: '.*classes.txt' is not UTF-8; save it as UTF-8")


def test_the_variable_of_a_data_root_is_named_if_the_config_reads_it(data):
    cfg = data(ABC, ABC)
    cfg.train_dataloader.dataset.data_root = '/nope'
    refused(cfg, 'data_root: ./nope. is not a folder; set it to the folder of the data')
    cfg = Config(cfg.to_dict(), cfg_text="data_root = '{{$FOLDER_ROOT:data}}'")
    refused(cfg, 'is not a folder; set FOLDER_ROOT in the environment, or train_dataloader')
