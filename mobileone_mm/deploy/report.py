"""What a conversion did: as a dict for the JSON file, and as lines to read."""

import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from .._version import __version__
from ..benchmark.timer import interleaved
from ..files import sha256_of
from ..models.count import count_macs
from ..reparam.surgery import unfused_blocks
from ..weights.fit import FittedState
from .config import absolute_paths
from .fold import Folding
from .forward import RawForward
from .prove import Difference

#: duration of the measurement of latencies; at least three turns are measured
LATENCY_SECONDS = 1.0


@torch.no_grad()
def describe(
    checkpoint: Path,
    fitted: FittedState,
    forward: RawForward,
    model: nn.Module,
    folding: Folding,
    inputs: Tensor,
    backbone_only: bool,
    proofs: Sequence[tuple[float, list[Difference]]],
) -> dict[str, Any]:
    """Return the report; latencies and MACs are those of the inputs, ``proofs`` have tolerances."""
    models = {'before': model, 'after': folding.model}
    runs = {name: partial(forward, one, inputs) for name, one in models.items()}
    return {
        'mobileone_mm': __version__,
        'source': {'file': checkpoint.name, 'sha256': sha256_of(checkpoint)},
        'checkpoint_bytes': {'before': checkpoint.stat().st_size},
        'fused_units': sum(1 for _ in unfused_blocks(model)),
        'ema': fitted.averaged,
        'entry': fitted.entry,
        'parameters': {
            name: sum(p.numel() for p in one.parameters()) for name, one in models.items()
        },
        'macs': {
            'input': list(inputs.shape),
            **{name: count_macs(run) for name, run in runs.items()},
        },
        'latency': _latency(runs, inputs),
        'dropped': list(fitted.dropped),
        'folded': {
            'backbone_only': backbone_only,
            'norms': [pair.norm for pair in folding.pairs],
            'config': ['.'.join(map(str, ('model', *p))) + '=None' for p in folding.without],
            'left': [{'norm': name, 'reason': reason} for name, reason in folding.left.items()],
        },
        'absolute_paths_in_config': absolute_paths(folding.text),
        'proof': _proof(inputs.device, proofs),
    }


def _latency(runs: Mapping[str, Callable[[], Any]], inputs: Tensor) -> dict[str, Any]:
    # In turns, because the speed of a machine drifts: only the ratio is reliable.
    times = interleaved(runs, repeats=50, budget=LATENCY_SECONDS, device=inputs.device)
    before, after = (median(times[name]) * 1e3 for name in runs)
    return {
        'input': list(inputs.shape),
        'device': str(inputs.device),
        'threads': torch.get_num_threads(),
        'median_ms_before': round(before, 3),
        'median_ms_after': round(after, 3),
        'ratio': round(before / after, 3),
    }


def _proof(
    device: torch.device, proofs: Sequence[tuple[float, list[Difference]]]
) -> dict[str, Any]:
    greatest = {
        found[0].dtype: {
            'tolerance': tolerance,
            'greatest_relative': max(d.relative for d in found),
            'greatest_absolute': max(d.absolute for d in found),
        }
        for tolerance, found in proofs
    }
    differences = [asdict(d) for _, found in proofs for d in found]
    return {'device': str(device), **greatest, 'differences': differences}


def summary(report: Mapping[str, Any], out: str | os.PathLike[str]) -> str:
    """Return the report as lines to read."""
    parameters, size, latency = (report[k] for k in ('parameters', 'checkpoint_bytes', 'latency'))
    macs, folded = report['macs'], report['folded']
    shape = ' x '.join(map(str, latency['input']))
    rows = {
        'units fused': report['fused_units'],
        'BN folded': 'none (backbone only)' if folded['backbone_only'] else len(folded['norms']),
        'parameters': f'{parameters["before"]:,} -> {parameters["after"]:,}',
        'MACs': f'{macs["before"] / 1e6:,.1f} M -> {macs["after"] / 1e6:,.1f} M ({shape})',
        'checkpoint': f'{size["before"] / 1e6:.1f} MB -> {size["after"] / 1e6:.1f} MB',
        'latency': (
            f'{latency["median_ms_before"]:.1f} ms -> {latency["median_ms_after"]:.1f} ms '
            f'({latency["ratio"]:.2f} x, {shape}, {latency["device"]})'
        ),
    }
    for dtype, proof in report['proof'].items():
        if isinstance(proof, Mapping):
            rows[f'difference, {dtype}'] = (
                f'{proof["greatest_relative"]:.1e} of the scale of the output (allowed '
                f'{proof["tolerance"]:.1e}), {proof["greatest_absolute"]:.1e} absolute'
            )
    for name, (before, after) in report.get('metric', {}).get('values', {}).items():
        rows[name] = f'{before:.4f} -> {after:.4f}'
    kind = 'averaged (EMA or SWA)' if report['ema'] else 'as stored'
    rows['weights'] = f"{kind}, from '{report['entry']}'"
    if report['dropped']:
        rows['left out'] = ', '.join(report['dropped'])
    lines = [f'{name + ":":<24}{value}' for name, value in rows.items()]
    reasons = defaultdict(list)
    for entry in folded['left']:
        reasons[entry['reason']].append(entry['norm'])
    for reason, (norm, *others) in reasons.items():
        lines.append(f'left: {norm}{f" and {len(others)} more" if others else ""}: {reason}')
    if report['absolute_paths_in_config']:
        lines.append(f'paths in the config: {", ".join(report["absolute_paths_in_config"])}')
    files = ', '.join(str(Path(out).with_suffix(s)) for s in (Path(out).suffix, '.py', '.json'))
    return '\n'.join([*lines, f'written: {files}'])
