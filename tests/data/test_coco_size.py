"""The checks of a file as large as COCO's training file: 118,287 images, 860,001 boxes."""

import json
import time

import numpy as np
import pytest
from mmdet.datasets import CocoDataset

from mobileone_mm.data.checks.coco_file import check_coco
from mobileone_mm.data.coco import forget_coco_files, use_coco_reader
from mobileone_mm.data.datasets import DatasetConfig

IMAGES, BOXES, CLASSES = 118_287, 860_001, 80

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def settings(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp('coco'), np.random.default_rng(0)
    boxes = (rng.random((BOXES, 4)) * [300, 300, 120, 120] + [0, 0, 2, 2]).round(2).tolist()
    outline = (
        rng.random((BOXES // 50, 46)).round(2).tolist()
    )  # COCO's polygons have 45 numbers or so
    images, labels = (rng.integers(1, n + 1, BOXES).tolist() for n in (IMAGES, CLASSES))
    table = dict(
        images=[
            dict(license=1, file_name=f'{i:012d}.jpg', coco_url=f'http://x/{i:012d}.jpg', height=427,
                 width=640, date_captured='2013-11-14 11:18:45', id=i)
            for i in range(1, IMAGES + 1)
        ],
        annotations=[
            dict(segmentation=[outline[i % len(outline)]], area=round(box[2] * box[3], 2), iscrowd=0,
                 image_id=images[i], bbox=box, category_id=labels[i], id=i + 1)
            for i, box in enumerate(boxes)
        ],
        categories=[dict(id=i, name=f'class {i}') for i in range(1, CLASSES + 1)],
    )  # fmt: skip
    (folder / 'train.json').write_text(json.dumps(table))
    names = tuple(row['name'] for row in table['categories'])
    remote = [dict(type='LoadImageFromFile', backend_args=dict(backend='petrel'))]
    return dict(
        data_root=str(folder), ann_file='train.json', pipeline=remote, metainfo=dict(classes=names)
    )


def test_the_checks_are_fast_and_the_host_reads_nothing_again(settings):
    from pycocotools.coco import COCO

    seconds = {}

    def timed(name, call, *args):
        start = time.process_time()
        found = call(*args)
        seconds[name] = time.process_time() - start
        return found

    dataset = DatasetConfig('train_dataloader.dataset', settings, CocoDataset)
    file = dataset.joined('train.json')
    timed('json.loads alone', json.loads, file.read_bytes())
    forget_coco_files()
    timed('reading and checks', check_coco, dataset)
    timed('checks alone', check_coco, dataset)
    use_coco_reader()
    assert len(timed('pycocotools', COCO, str(file)).anns) == BOXES
    forget_coco_files()
    print('\n', ', '.join(f'{name} {value:.1f} s' for name, value in seconds.items()))
    assert seconds['checks alone'] < 0.5 * seconds['json.loads alone']
    assert seconds['pycocotools'] < 0.5 * seconds['json.loads alone']
