"""Draws a small data set: make_dataset.py {coco,imagenet,voc,ade,pictures} ROOT."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from mobileone_mm.apis.cli import run_tool
from mobileone_mm.data import synthetic

_LAYOUTS: dict[str, Callable[..., Path]] = {
    'coco': synthetic.make_coco,
    'imagenet': synthetic.make_imagenet,
    'voc': synthetic.make_voc,
    'ade': synthetic.make_ade,
    'pictures': synthetic.make_pictures,
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f'error: {message}; see --help\n')


def _parse(argv: list[str] | None) -> dict[str, Any]:
    parser = _Parser(
        description='Draws a small data set with exact labels, the same for the same arguments. '
        'The layout "pictures" is a folder of unseen ones for predict.'
    )
    layouts = parser.add_subparsers(dest='layout', required=True, metavar='LAYOUT')
    for layout in _LAYOUTS:
        options = layouts.add_parser(layout, argument_default=argparse.SUPPRESS)
        options.add_argument('root', metavar='ROOT', help='new or empty folder')
        for name in ('num',) if layout == 'pictures' else ('num-train', 'num-val'):
            options.add_argument(f'--{name}', type=int, help='number of pictures')
        options.add_argument('--size', type=int, help='side of the square pictures in pixels')
        options.add_argument('--seed', type=int, help='other seeds give other pictures')
    return vars(parser.parse_args(argv))


def main(argv: list[str] | None = None) -> None:
    """Makes the data set, or finds that it is there already."""
    arguments = _parse(argv)
    make = _LAYOUTS[arguments.pop('layout')]
    print(f'{make(arguments.pop("root"), **arguments)}: ready')


if __name__ == '__main__':
    run_tool(main)
