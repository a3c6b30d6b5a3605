#!/usr/bin/env python
"""Find the micro models (our reconstruction, the paper's widths are not public) again.

Prints every family of three that satisfies the criteria, the chosen one first. Exit code 1 if that
is not the one in the size table; with other criteria than the default ones nothing is compared.
"""

import argparse

from mobileone_mm.cli.run import ToolParser, run_tool
from mobileone_mm.errors import ProofError
from mobileone_mm.models.sizes import ARCHS
from mobileone_mm.models.count import count
from mobileone_mm.models.micro_search import Criteria, Family, deviations, search


def show(family: Family) -> str:
    blocks = ', '.join(map(str, family.num_blocks))
    lines = [f'depths ({blocks}), worst deviation {family.worst_error:.2%}']
    for name, arch in family.archs.items():
        counts, (of_parameters, of_macs) = count(arch), deviations(name, arch)
        lines.append(
            f'  {name}: multipliers {arch.width_factor}, channels {arch.stem_channels} / '
            f'{" / ".join(map(str, arch.channels))}, k {arch.num_conv_branches[0]}, '
            f'parameters {counts.parameters_fused:,} ({of_parameters:.2%} off; unfused '
            f'{counts.parameters_unfused:,}), MACs {counts.macs:,} ({of_macs:.2%} off)'
        )
    return '\n'.join(lines)


def main(argv: list[str] | None = None) -> None:
    default = Criteria()
    parser = ToolParser(description=__doc__)
    add = parser.add_argument
    add('--step', type=float, default=default.step, help='step of the multipliers')
    add('--min-growth', type=float, default=default.min_growth,
        help='least widening from stage to stage')  # fmt: skip
    add('--rounded', action=argparse.BooleanOptionalAction, default=True,
        help='ask that the figures round to those printed')  # fmt: skip
    args = parser.parse_args(argv)
    criteria = Criteria(args.step, args.min_growth, as_printed=args.rounded)
    families = search(criteria)
    patterns = len({family.num_blocks for family in families})
    print(f'{len(families)} families, {patterns} depth patterns')
    print('\n'.join(show(family) for family in families[:10]))
    if criteria == default:
        table = {name: arch for name, arch in ARCHS.items() if name.startswith('mu')}
        if not families or families[0].archs != table:
            raise ProofError('the size table holds other micro models than the search finds')


if __name__ == '__main__':
    run_tool(main)
