"""COCO 2017 boxes at 320x320 with SSD's augmentation; an epoch is five passes."""

train_dataloader = dict(
    batch_size=24,
    num_workers=4,
    persistent_workers=True,
    # The last map is 1x1: BN cannot normalize a last batch of one image.
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='RepeatDataset',
        times=5,
        dataset=dict(
            type='CocoDataset',
            data_root='{{$COCO_ROOT:data/coco/}}',
            ann_file='annotations/instances_train2017.json',
            data_prefix=dict(img='train2017/'),
            filter_cfg=dict(filter_empty_gt=True, min_size=32),
            pipeline=[
                dict(type='mobileone_mm.LoadImage'),
                dict(type='LoadAnnotations', with_bbox=True),
                dict(
                    type='Expand',
                    mean=[123.675, 116.28, 103.53],
                    to_rgb=True,
                    ratio_range=(1, 4),
                ),
                dict(
                    type='MinIoURandomCrop',
                    min_ious=(0.1, 0.3, 0.5, 0.7, 0.9),
                    min_crop_size=0.3,
                ),
                dict(type='Resize', scale=(320, 320), keep_ratio=False),
                dict(type='RandomFlip', prob=0.5),
                dict(
                    type='PhotoMetricDistortion',
                    brightness_delta=32,
                    contrast_range=(0.5, 1.5),
                    saturation_range=(0.5, 1.5),
                    hue_delta=18,
                ),
                dict(type='PackDetInputs'),
            ],
        ),
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=4,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CocoDataset',
        data_root='{{$COCO_ROOT:data/coco/}}',
        ann_file='annotations/instances_val2017.json',
        data_prefix=dict(img='val2017/'),
        test_mode=True,
        pipeline=[
            dict(type='mobileone_mm.LoadImage', on_error='blank'),
            dict(type='Resize', scale=(320, 320), keep_ratio=False),
            # After Resize: the metric compares boxes of the original image.
            dict(type='LoadAnnotations', with_bbox=True),
            dict(
                type='PackDetInputs',
                meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
            ),
        ],
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(
    type='CocoMetric',
    ann_file='{{$COCO_ROOT:data/coco/}}/annotations/instances_val2017.json',
    metric='bbox',
)
test_evaluator = val_evaluator
