#!/usr/bin/env python
"""Fuse a trained classifier, detector or segmentor into plain convolutions.

python tools/switch_to_deploy.py CONFIG CHECKPOINT OUT.pth [--images PATH ...] [--data]

Proves on data that the fused model is the same function, then writes OUT (weights, .pth, .pt or
.safetensors) and, with the same name, a config (.py) and a report (.json). Exit code 1: the proof
failed, nothing is written.
"""

from mobileone_mm.cli.arguments import tool_parser
from mobileone_mm.cli.run import run_tool


def main(argv: list[str] | None = None) -> None:
    parser = tool_parser(__doc__, device='cpu')
    add = parser.add_argument
    add('out', metavar='OUT', help='checkpoint to write (.pth, .pt or .safetensors)')
    add('--images', nargs='+', default=[], metavar='PATH',
        help='images to compare on, besides random input')  # fmt: skip
    add('--tolerance', type=float, help="greatest difference in the model's dtype, relative to the "
        'scale of the output (default: 1000 times the machine epsilon)')  # fmt: skip
    add('--backbone-only', action='store_true', help='do not fold the BNs of necks and heads')
    add('--data', action='store_true', help='also compare the metric on the test set of the config')
    args = vars(parser.parse_args(argv))

    from mobileone_mm.apis.switch_to_deploy import switch_to_deploy
    from mobileone_mm.deploy.report import summary

    print(summary(switch_to_deploy(**args), args['out']))


if __name__ == '__main__':
    run_tool(main)
