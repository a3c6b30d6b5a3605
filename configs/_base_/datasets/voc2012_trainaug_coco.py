"""VOC 2012 with the masks of SBD, and COCO with the masks of ``tools/dataset_converters/coco_to_voc.py``."""

_base_ = ['./voc2012_train.py']

train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ConcatDataset',
        datasets=[
            dict(
                type='PascalVOCDataset',
                data_root='{{$VOC_ROOT:data/VOCdevkit/VOC2012}}',
                data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClass'),
                ann_file='ImageSets/Segmentation/train.txt',
                pipeline=[
                    dict(type='mobileone_mm.LoadImage'),
                    dict(type='LoadAnnotations'),
                    dict(
                        type='RandomResize',
                        scale=(2048, 512),
                        ratio_range=(0.5, 1.5),
                        keep_ratio=True,
                    ),
                    dict(type='RandomCrop', crop_size=(512, 512), cat_max_ratio=0.75),
                    dict(type='RandomFlip', prob=0.5),
                    dict(type='PackSegInputs'),
                ],
            ),
            dict(
                type='PascalVOCDataset',
                data_root='{{$VOC_ROOT:data/VOCdevkit/VOC2012}}',
                data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClassAug'),
                ann_file='ImageSets/Segmentation/aug.txt',
                pipeline=[
                    dict(type='mobileone_mm.LoadImage'),
                    dict(type='LoadAnnotations'),
                    dict(
                        type='RandomResize',
                        scale=(2048, 512),
                        ratio_range=(0.5, 1.5),
                        keep_ratio=True,
                    ),
                    dict(type='RandomCrop', crop_size=(512, 512), cat_max_ratio=0.75),
                    dict(type='RandomFlip', prob=0.5),
                    dict(type='PackSegInputs'),
                ],
            ),
            dict(
                type='PascalVOCDataset',
                data_root='{{$COCO_ROOT:data/coco/}}',
                data_prefix=dict(img_path='train2017', seg_map_path='voc21/train2017'),
                ann_file='voc21/train2017.txt',
                pipeline=[
                    dict(type='mobileone_mm.LoadImage'),
                    dict(type='LoadAnnotations'),
                    dict(
                        type='RandomResize',
                        scale=(2048, 512),
                        ratio_range=(0.5, 1.5),
                        keep_ratio=True,
                    ),
                    dict(type='RandomCrop', crop_size=(512, 512), cat_max_ratio=0.75),
                    dict(type='RandomFlip', prob=0.5),
                    dict(type='PackSegInputs'),
                ],
            ),
        ],
    ),
)
