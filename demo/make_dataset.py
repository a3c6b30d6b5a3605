"""Draws a small dataset: make_dataset.py {coco,imagenet,voc,ade,images} ROOT."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from demo import generator as synthetic
from mobileone_mm.cli.run import ToolParser, run_tool

_LAYOUTS: dict[str, Callable[..., Path]] = {
    'coco': synthetic.make_coco,
    'imagenet': synthetic.make_imagenet,
    'voc': synthetic.make_voc,
    'ade': synthetic.make_ade,
    'images': synthetic.make_images,
}
_ABOUT = {
    'coco': 'boxes and polygons, for detection',
    'imagenet': 'folders of classes, for classification',
    'voc': 'palette masks, for segmentation',
    'ade': "masks in the challenge's layout",
    'images': 'a folder of unseen images, for predict',
}


def _parse(argv: list[str] | None) -> dict[str, Any]:
    parser = ToolParser(
        description='Draws a small dataset with exact labels, the same for the same arguments.'
    )
    layouts = parser.add_subparsers(dest='layout', required=True, metavar='LAYOUT')
    for layout, about in _ABOUT.items():
        options = layouts.add_parser(layout, argument_default=argparse.SUPPRESS, help=about)
        options.add_argument('root', metavar='ROOT', help='new or empty folder')
        for name in ('num',) if layout == 'images' else ('num-train', 'num-val'):
            options.add_argument(f'--{name}', type=int, help='number of images')
        options.add_argument('--size', type=int, help='side of the square images in pixels')
        options.add_argument('--seed', type=int, help='other seeds give other images')
    return vars(parser.parse_args(argv))


def main(argv: list[str] | None = None) -> None:
    """Makes the dataset, or finds that it is there already."""
    arguments = _parse(argv)
    make = _LAYOUTS[arguments.pop('layout')]
    print(f'{make(arguments.pop("root"), **arguments)}: ready')


if __name__ == '__main__':
    run_tool(main)
