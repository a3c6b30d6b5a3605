"""Pascal VOC 2012 with the downloaded masks (SegmentationClass), crops of 512 px."""

train_dataloader = dict(
    batch_size=8,
    num_workers=4,
    persistent_workers=True,
    # BN behind the global pooling of ASPP cannot normalize a last batch of one image.
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='PascalVOCDataset',
        data_root='{{$VOC_ROOT:data/VOCdevkit/VOC2012}}',
        data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClass'),
        ann_file='ImageSets/Segmentation/train.txt',
        pipeline=[
            dict(type='mobileone_mm.LoadImage'),
            dict(type='LoadAnnotations'),
            dict(type='RandomResize', scale=(2048, 512), ratio_range=(0.5, 1.5), keep_ratio=True),
            dict(type='RandomCrop', crop_size=(512, 512), cat_max_ratio=0.75),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackSegInputs'),
        ],
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='PascalVOCDataset',
        data_root='{{$VOC_ROOT:data/VOCdevkit/VOC2012}}',
        data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClass'),
        ann_file='ImageSets/Segmentation/val.txt',
        pipeline=[
            dict(type='mobileone_mm.LoadImage', on_error='blank'),
            dict(type='Resize', scale=(2048, 512), keep_ratio=True),
            # After Resize: the metric compares masks of the original size.
            dict(type='LoadAnnotations'),
            dict(type='PackSegInputs'),
        ],
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
