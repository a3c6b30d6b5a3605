"""Evaluate a classifier, detector or segmentor on the test set of its config.

python tools/test.py CONFIG CHECKPOINT [--out predictions.csv | .pkl | metrics.json]
"""

from mobileone_mm.cli.arguments import add_run_arguments, tool_parser
from mobileone_mm.cli.run import run_tool


def main(argv: list[str] | None = None) -> None:
    parser = tool_parser(__doc__)
    add_run_arguments(parser)
    add = parser.add_argument
    add('--out', metavar='FILE',
        help='write predictions (.pkl; .csv for a classifier) or metrics (.json)')  # fmt: skip
    add('--show-dir', metavar='DIR', help='draw the predictions into this folder')
    add('--score-thr', type=float, default=0.3, help='lowest score of a drawn box (default: 0.3)')
    add('--tta', action='store_true', help='test-time augmentation')
    args = vars(parser.parse_args(argv))
    args.pop('local_rank')

    from mobileone_mm.apis.test import evaluate

    evaluate(**args)


if __name__ == '__main__':
    run_tool(main)
