"""Evaluate how robust an image classifier is.

  python tools/analysis_tools/test_robustness.py CONFIG CHECKPOINT              # own test set
  python tools/analysis_tools/test_robustness.py CONFIG CHECKPOINT --root data  # published sets

Without --root and --sets, the 15 corruptions of ImageNet-C are generated on the test set of the
config. Prints a table, and writes robustness.json and robustness.png. A second call continues an
interrupted one.
"""

from mobileone_mm.cli.arguments import tool_parser
from mobileone_mm.cli.run import run_tool


def main(argv: list[str] | None = None) -> None:
    parser = tool_parser(__doc__)
    add = parser.add_argument
    add('--root', metavar='DIR', help='folder that holds imagenet-c, imagenet-a, ...')
    add('--sets', nargs='+', metavar='SET', help='clean, generated; c, a, r, sketch, v2, or c=FOLDER '
        '(default: those below --root)')  # fmt: skip
    add('--corruptions', nargs='+', metavar='NAME', help='(default: all 15)')
    add('--severities', nargs='+', type=int, metavar='N', help='(default: 1 to 5)')
    add('--seed', type=int, default=0, help='seed of generated corruptions (default: 0)')
    add('--batch-size', type=int, help='replaces the one of the config')
    add('--work-dir', help='folder of the results (default: work_dirs/<config>)')
    add('--out', metavar='FILE', help='(default: robustness.json in the work dir)')
    add('--fresh', action='store_true', help='evaluate everything again')
    args = parser.parse_args(argv)

    from mobileone_mm.apis.test_robustness import evaluate_robustness

    evaluate_robustness(**vars(args))


if __name__ == '__main__':
    run_tool(main)
