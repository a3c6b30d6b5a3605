"""Cut the objects out of a COCO-format dataset, as a dataset for a classifier.

  python tools/dataset_converters/coco_crops.py instances_train2017.json train2017 OUT/train

Writes a folder of images for each class. Images that cannot be read are left out and named at the end.
"""

from pathlib import Path

from mobileone_mm.cli.run import ToolParser, run_tool


def main(argv: list[str] | None = None) -> None:
    parser = ToolParser(description=__doc__)
    add = parser.add_argument
    add('annotations', type=Path, help='COCO-format file with boxes')
    add('images', type=Path, help='folder of its images')
    add('out', type=Path, help='folder to write')
    add('--by', default='category', help='category (default) or supercategory')
    add('--min-size', type=int, default=48, help='of a box in pixels (default: 48)')
    add('--margin', type=float, default=0.1, help='around a box (default: 0.1)')
    add('--classes', nargs='+', default=[], metavar='NAME', help='keep these only')
    args = vars(parser.parse_args(argv))
    args['classes'] = tuple(args['classes'])

    from mobileone_mm.data.convert.coco_crops import cut_objects

    crops = cut_objects(**args)
    print(crops)
    print(f'{sum(crops.counts.values())} images: {args["out"]}')


if __name__ == '__main__':
    run_tool(main)
