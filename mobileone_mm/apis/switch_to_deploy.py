"""Converting a trained model, with the metric of its dataset before and after."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..deploy.convert import prepare_conversion
from ..deploy.pair import Conversion
from ..errors import InputError, ProofError
from ..inference.images import find_images
from ..inference.model import data_meta
from ..runs.prepare import READ, TEST, Purpose, prepare
from ..weights.published import local_file
from .test import evaluate

#: greatest difference of a metric, relative to it or to 1: what rounding moves across a threshold
METRIC_TOLERANCE = 1e-3


def switch_to_deploy(
    config: str | os.PathLike[str],
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str],
    cfg_options: Mapping[str, Any] | None = None,
    images: Sequence[str | os.PathLike[str]] = (),
    tolerance: float | None = None,
    device: str = 'cpu',
    backbone_only: bool = False,
    data: bool = False,
) -> dict[str, Any]:
    """Convert, as :func:`~mobileone_mm.deploy.convert_to_deploy` does, after stricter checks.

    Args:
        images: Files, folders and patterns.
        data: Evaluate the original and the result on the test set of the config, too, and require
            that each metric agrees within :data:`METRIC_TOLERANCE`. The other arguments are those of
            ``convert_to_deploy``.

    Returns:
        The report, as it is written.

    Raises:
        InputError: Anything that the user gave does not fit, mistyped keys of the config included.
        ProofError: The two forms differ; nothing is written.
    """
    cfg = prepare(Path(config), cfg_options, Purpose(needs=TEST.needs) if data else READ).cfg
    checkpoint = local_file(checkpoint)
    conversion = prepare_conversion(
        config,
        checkpoint,
        out,
        cfg_options,
        find_images([str(image) for image in images], argument='--images'),
        tolerance,
        device,
        backbone_only,
        data_meta(cfg, {}),
    )
    if data:
        conversion.report['metric'] = compare_metrics(
            conversion, config, checkpoint, cfg_options, device
        )
    conversion.write()
    return conversion.report


def compare_metrics(
    conversion: Conversion,
    config: str | os.PathLike[str],
    checkpoint: str | os.PathLike[str],
    cfg_options: Mapping[str, Any] | None,
    device: str,
) -> dict[str, Any]:
    """Evaluate the original, and the pair as its files would be.

    Returns:
        The tolerance, and of each metric the values before and after.

    Raises:
        ProofError: A metric differs.
        InputError: The config's test cannot be run.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = conversion.write(folder)
        before = evaluate(
            Path(config),
            Path(checkpoint),
            f'{folder}/before',
            cfg_options=cfg_options,
            device=device,
        )
        after = evaluate(paths['config'], paths['checkpoint'], f'{folder}/after', device=device)
    values = {name: (float(before[name]), float(after[name])) for name in before if name in after}
    if not values:
        raise InputError('--data: the test evaluator of the config gives no metric')
    for name, (one, other) in values.items():
        same = one == other or (math.isnan(one) and math.isnan(other))
        if not same and not abs(one - other) <= METRIC_TOLERANCE * max(1.0, abs(one)):
            raise ProofError(
                f'{name}: {one:.6g} before and {other:.6g} after the conversion (allowed difference: '
                f'{METRIC_TOLERANCE * max(1.0, abs(one)):.2g}); nothing was written'
            )
    return {
        'tolerance': METRIC_TOLERANCE,
        'values': {name: list(pair) for name, pair in values.items()},
    }
