"""Train variants of one config with the same seeds and compare them.

python tools/analysis_tools/ablate.py configs/studies/s0_scratch{,_variants}.py --seeds 0 1 2 3 4

VARIANTS is a file with a dict `variants`: options by dotted key for each name. Each variant is
compared with the first. A second call skips the runs that are done. Writes a table and a plot.
"""

from pathlib import Path

from mobileone_mm.cli.arguments import tool_parser
from mobileone_mm.cli.run import run_tool

ROOT = Path(__file__).resolve().parents[2]


def main(argv: list[str] | None = None) -> None:
    parser = tool_parser(__doc__, checkpoint=False)
    add = parser.add_argument
    add('variants', metavar='VARIANTS', help='file with a dict `variants`')
    add('--seeds', nargs='+', type=int, default=[0, 1, 2], metavar='N', help='(default: 0 1 2)')
    add('--only', nargs='+', metavar='NAME', help='these variants and the first')
    add('--metric', help='(default: save_best of the config)')
    add('--jobs', type=int, default=1, metavar='N', help='runs at the same time (default: 1)')
    add('--keep-checkpoints', action='store_true', help='keep the weights of all runs')
    add('--work-dir', help='folder of all runs (default: work_dirs/<variants>)')
    args = parser.parse_args(argv)

    from mobileone_mm.apis.ablate import ablate

    ablate(root=ROOT, **vars(args))


if __name__ == '__main__':
    run_tool(main)
