"""Train, test, convert and predict on drawn images, with the project's tools.

python -m demo det|cls|seg [--out-dir demo_output]
"""

import subprocess
from pathlib import Path

import mobileone_mm  # noqa: F401  (first: it installs the stand-ins)
from demo.jobs import JOBS, Demo
from mobileone_mm.cli.run import ToolParser, run_tool


def main(argv: list[str] | None = None) -> int:
    """Run one demo, and return the exit code of a tool that fails."""
    parser = ToolParser(description=__doc__)
    parser.add_argument('task', nargs='?', default='det', choices=JOBS, help='default: det')
    parser.add_argument('--out-dir', type=Path, default=Path('demo_output'), help='output folder')
    args = parser.parse_args(argv)
    try:
        Demo(args.task, args.out_dir / args.task).run()
    except subprocess.CalledProcessError as error:
        return error.returncode
    return 0


if __name__ == '__main__':
    run_tool(main)
