"""Pascal VOC 2012 with the extra masks of SBD, as mmseg's ``voc_aug.py`` writes them."""

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
        ],
    ),
)
