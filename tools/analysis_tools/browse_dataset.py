#!/usr/bin/env python
"""Show training images as the pipeline outputs them, with labels, boxes and masks.

python tools/analysis_tools/browse_dataset.py CONFIG --out-dir DIR [--num 16] [--mode concat]
"""

from mobileone_mm.cli.arguments import tool_parser
from mobileone_mm.cli.run import run_tool


def main(argv: list[str] | None = None) -> None:
    parser = tool_parser(__doc__, checkpoint=False, device=False)
    add = parser.add_argument
    add('--out-dir', required=True, metavar='DIR', help='folder of the sheets')
    add('--num', type=int, default=16, help='images per sheet (default: 16)')
    add('--mode', default='transformed',
        help='transformed, or concat for the original next to it (default: transformed)')  # fmt: skip
    add('--seed', type=int, default=0, help='seed of the augmentation (default: 0)')
    args = vars(parser.parse_args(argv))

    from mobileone_mm.apis.browse import browse

    for path in browse(**args):
        print(f'written: {path}')


if __name__ == '__main__':
    run_tool(main)
