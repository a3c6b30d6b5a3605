"""Write the annotations of a few images of a COCO-format file, for debugging.

  python tools/dataset_converters/coco_subset.py instances_train2017.json subset.json --num 32

Images without boxes are left out. Images, categories and ids do not change.
"""

import json
from pathlib import Path

from mobileone_mm.cli.run import ToolParser, run_tool
from mobileone_mm.data.coco import read_coco
from mobileone_mm.errors import InputError
from mobileone_mm.files import atomic_text


def subset(path: Path, num: int) -> dict:
    """Return the first ``num`` images of a COCO file that have boxes, with their annotations."""
    table = read_coco(path, 'annotations')
    table.check_references()
    with_boxes = {box['image_id'] for box in table['annotations'] if not box.get('iscrowd')}
    images = [image for image in table['images'] if image['id'] in with_boxes]
    if not 0 < num <= len(images):
        raise InputError(f'--num: got {num}; expected 1 to {len(images)} (images with boxes)')
    chosen = {image['id'] for image in images[:num]}
    kept = [box for box in table['annotations'] if box['image_id'] in chosen]
    return {**table, 'images': images[:num], 'annotations': kept}


def main(argv: list[str] | None = None) -> None:
    parser = ToolParser(description=__doc__)
    add = parser.add_argument
    add('annotations', type=Path, help='COCO-format file with boxes')
    add('out', type=Path, help='file to write')
    add('--num', type=int, default=32, help='images to keep (default: 32)')
    args = parser.parse_args(argv)
    if args.out.exists() and args.out.samefile(args.annotations):
        raise InputError(f"out: '{args.out}' is the input; choose another name")
    table = subset(args.annotations, args.num)
    atomic_text(args.out, json.dumps(table))
    print(f'{len(table["images"])} images, {len(table["annotations"])} boxes: {args.out}')


if __name__ == '__main__':
    run_tool(main)
