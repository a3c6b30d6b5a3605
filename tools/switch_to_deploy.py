#!/usr/bin/env python
"""Fuses the MobileOne of a trained classifier, detector or segmentor into plain convolutions.

Writes OUT (weights) and beside it, with the same name, a config (.py) and a report (.json), after a
proof on data that the function of the model is the same. Exit code 1: it is not, nothing is written.
"""

from __future__ import annotations

import argparse

from mobileone_mm.apis.cli import run_tool
from mobileone_mm.apis.config import ConfigOptions, load_config
from mobileone_mm.deploy import convert_to_deploy
from mobileone_mm.deploy.report import summary


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument('config', help='config that the model was trained by')
    parser.add_argument('checkpoint', help='its weights in training form')
    parser.add_argument('out', help='checkpoint to write (.pth)')
    parser.add_argument('--images', nargs='+', default=[], metavar='PATH',
                        help='pictures to compare on, besides random input')  # fmt: skip
    parser.add_argument('--tolerance', type=float,
                        help='greatest difference, relative to the scale of the output')  # fmt: skip
    parser.add_argument('--device', default='cpu', help='where to compare, such as cuda:0')
    parser.add_argument('--cfg-options', nargs='+', action=ConfigOptions, metavar='KEY=VALUE',
                        help='overrides of the config')  # fmt: skip
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Converts, and prints what the report says."""
    args = parse_args(argv)
    load_config(args.config, args.cfg_options)  # mistyped keys are errors, as in the other tools
    report = convert_to_deploy(
        args.config,
        args.checkpoint,
        args.out,
        cfg_options=args.cfg_options,
        images=args.images,
        tolerance=args.tolerance,
        device=args.device,
    )
    print(summary(report, args.out))


if __name__ == '__main__':
    run_tool(main)
