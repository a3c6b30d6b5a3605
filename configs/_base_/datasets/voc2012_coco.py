"""COCO with the masks of ``coco_to_voc.py``, for pre-training; evaluation is on VOC 2012."""

_base_ = ['./voc2012_train.py']

train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ConcatDataset',
        datasets=[
            dict(
                type='PascalVOCDataset',
                data_root='{{$COCO_ROOT:data/coco/}}',
                data_prefix=dict(img_path='train2017', seg_map_path='voc21/train2017'),
                ann_file='voc21/train2017.txt',
                pipeline={{_base_.train_dataloader.dataset.pipeline}},
            ),
        ],
    ),
)
