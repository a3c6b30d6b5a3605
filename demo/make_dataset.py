"""Draw a small dataset: python -m demo.make_dataset {coco,imagenet,voc,ade,images} ROOT."""

import argparse

from demo.generator import LAYOUTS, make
from mobileone_mm.cli.run import ToolParser, run_tool


def main(argv: list[str] | None = None) -> None:
    """Make the dataset, unless it exists already."""
    parser = ToolParser(
        description='Draw a small dataset with exact labels, the same for the same arguments.'
    )
    layouts = parser.add_subparsers(dest='layout', required=True, metavar='LAYOUT')
    for name, layout in LAYOUTS.items():
        options = layouts.add_parser(name, argument_default=argparse.SUPPRESS, help=layout.about)
        options.add_argument('root', metavar='ROOT', help='new or empty folder')
        for count in layout.counts:
            options.add_argument(f'--{count.replace("_", "-")}', type=int, help='number of images')
        options.add_argument('--size', type=int, help='side of the square images in pixels')
        options.add_argument('--seed', type=int, help='other seeds give other images')
    print(f'{make(**vars(parser.parse_args(argv)))}: ready')


if __name__ == '__main__':
    run_tool(main)
