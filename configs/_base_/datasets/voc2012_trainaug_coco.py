"""Pascal VOC 2012 with the masks of SBD, and COCO with the masks of ``coco_to_voc.py``."""

_base_ = ['./voc2012_train.py']

train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ConcatDataset',
        datasets=[
            {{_base_.train_dataloader.dataset}},
            dict(
                type='PascalVOCDataset',
                data_root='{{$VOC_ROOT:data/VOCdevkit/VOC2012}}',
                data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClassAug'),
                ann_file='ImageSets/Segmentation/aug.txt',
                pipeline={{_base_.train_dataloader.dataset.pipeline}},
            ),
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
