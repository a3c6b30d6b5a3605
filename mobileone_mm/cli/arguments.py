"""Command-line arguments that the tools share, with OpenMMLab's names."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..config.options import ConfigOptions
from ..training.launch import LAUNCHERS
from .run import ToolParser


def tool_parser(
    description: str | None, checkpoint: bool = True, device: str | None = None
) -> argparse.ArgumentParser:
    """Make a parser with CONFIG, CHECKPOINT, ``--cfg-options`` and ``--device``.

    Args:
        description: The docstring of the tool.
        checkpoint: Whether the tool has the argument CHECKPOINT.
        device: Default of ``--device``; None for the GPU if there is one.
    """
    parser = ToolParser(description=description)
    parser.add_argument('config', type=Path, metavar='CONFIG', help='path of the config')
    if checkpoint:
        parser.add_argument('checkpoint', metavar='CHECKPOINT', help='path of the weights')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=ConfigOptions,
        metavar='KEY=VALUE',
        help='override settings of the config: a.b.0.c=1, a.b="[1,2]"',
    )
    default = device or 'the GPU if there is one'
    parser.add_argument(
        '--device', default=device, help=f'cpu, cuda or cuda:N (default: {default})'
    )
    return parser


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of a Runner: ``--work-dir``, ``--launcher`` and what launchers append."""
    parser.add_argument(
        '--work-dir',
        help='folder of the run (default: work_dir of the config, or work_dirs/<config>)',
    )
    parser.add_argument(
        '--launcher', choices=LAUNCHERS, default='none', help='what starts the processes'
    )
    # torch.distributed.launch appends it; the environment has the same value.
    parser.add_argument('--local_rank', '--local-rank', type=int, help=argparse.SUPPRESS)
