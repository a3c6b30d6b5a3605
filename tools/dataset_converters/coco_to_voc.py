"""Paint masks of VOC's 21 classes from COCO's instances, as more data for VOC segmentation.

  python tools/dataset_converters/coco_to_voc.py \\
      COCO/annotations/instances_train2017.json COCO/voc21/train2017
  VOC_TRAIN=trainaug_coco python tools/train.py configs/deeplabv3_mobileone_s0_voc.py

Writes COCO/voc21/train2017/NAME.png, and at the end the list COCO/voc21/train2017.txt.
"""

from pathlib import Path

from mobileone_mm.cli.run import ToolParser, run_tool


def main(argv: list[str] | None = None) -> None:
    from mobileone_mm.data.convert.coco_to_voc import write_voc_masks

    parser = ToolParser(description=__doc__)
    add = parser.add_argument
    add('annotations', type=Path, help='COCO-format file with segmentations')
    add('folder', type=Path, help='folder of the masks')
    add('--min-pixels', type=int, default=1000, help='leave out images with no more pixels of '
        "VOC's classes (default: %(default)s)")  # fmt: skip
    args = parser.parse_args(argv)
    written, total = write_voc_masks(args.annotations, args.folder, args.min_pixels)
    print(f'{written} of {total} images: {args.folder}, {args.folder}.txt')


if __name__ == '__main__':
    run_tool(main)
