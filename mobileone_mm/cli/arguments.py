"""Command-line arguments that the tools share, with OpenMMLab's names."""

import argparse
from pathlib import Path
from typing import Literal

from ..config.options import ConfigOptions
from ..training.launch import LAUNCHERS
from .run import ToolParser


def tool_parser(
    description: str | None, checkpoint: bool = True, device: str | Literal[False] | None = None
) -> ToolParser:
    """Make a parser with CONFIG, CHECKPOINT (if the tool has it), ``--cfg-options`` and ``--device``.

    ``description`` is the docstring of the tool; ``device`` is the default of ``--device``, None for
    the GPU if there is one, False for a tool without it.
    """
    parser = ToolParser(description=description)
    add = parser.add_argument
    add('config', type=Path, metavar='CONFIG', help='path of the config')
    if checkpoint:
        add('checkpoint', metavar='CHECKPOINT', help='path of the weights')
    add('--cfg-options', nargs='+', action=ConfigOptions, metavar='KEY=VALUE',
        help='override settings of the config: a.b.0.c=1, a.b="[1,2]"')  # fmt: skip
    if device is not False:
        default = device or 'the GPU if there is one'
        add('--device', default=device, help=f'cpu, cuda or cuda:N (default: {default})')
    return parser


def add_run_arguments(parser: ToolParser) -> None:
    """Add the arguments of a Runner: ``--work-dir``, ``--launcher`` and what launchers append."""
    add = parser.add_argument
    add('--work-dir', help='(default: work_dir of the config, or work_dirs/<config>)')
    add('--launcher', choices=LAUNCHERS, default='none', help='what starts the processes')
    # torch.distributed.launch appends it; the environment has the same value.
    add('--local_rank', '--local-rank', type=int, help=argparse.SUPPRESS)
