"""Convert a trained model to a deploy pair, if wanted with the metric before and after."""

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
from ..reparam.compare import value_difference
from ..runs.prepare import READ, TEST, Prepared, prepare
from ..runs.running import running
from ..training.launch import select_device
from ..weights.published import local_file

#: greatest difference of a metric, relative to its value or to 1
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
    """Convert a model as :func:`~mobileone_mm.convert_to_deploy` does, and return the report.

    ``images`` are files, folders and patterns. With ``data``, the original and the result are also
    evaluated on the test set of the config; each metric must agree within :data:`METRIC_TOLERANCE`.

    Raises:
        InputError: Anything that the user gave cannot be used; nothing is written.
        ProofError: The two forms differ; nothing is written.
    """
    checkpoint = local_file(checkpoint)
    if data:
        select_device(device)  # the config pass asks for the device
    with tempfile.TemporaryDirectory() as folder:
        flags = dict(work_dir=f'{folder}/before', checkpoint=checkpoint) if data else {}
        prepared = prepare(Path(config), cfg_options, TEST if data else READ, **flags)
        conversion = prepare_conversion(
            prepared.written,
            checkpoint,
            out,
            find_images([str(image) for image in images], argument='--images'),
            tolerance,
            device,
            backbone_only,
            data_meta(prepared.written, {}),
        )
        if data:
            conversion.report['metric'] = compare_metrics(conversion, prepared, folder)
    conversion.write()
    return conversion.report


def compare_metrics(conversion: Conversion, original: Prepared, folder: str) -> dict[str, Any]:
    """Evaluate the original, which is prepared for a test, and the files of the pair, in a folder.

    Returns the tolerance, and for each metric the values before and after; raises a ProofError if a
    metric differs.
    """
    before = _metrics(original)
    paths = conversion.write(f'{folder}/pair')
    flags = dict(work_dir=f'{folder}/after', checkpoint=paths['checkpoint'])
    after = _metrics(prepare(paths['config'], None, TEST, **flags))
    values = {name: [float(before[name]), float(after[name])] for name in before if name in after}
    if not values:
        raise InputError('--data: the test evaluator of the config gives no metric')
    for name, (one, other) in values.items():
        allowed = METRIC_TOLERANCE * max(1.0, abs(one))
        if not value_difference(one, other) <= allowed:
            raise ProofError(
                f'{name}: {one:.6g} before and {other:.6g} after the conversion (allowed difference: '
                f'{allowed:.2g}); nothing was written'
            )
    return {'tolerance': METRIC_TOLERANCE, 'values': values}


def _metrics(prepared: Prepared) -> dict[str, float]:
    with running(prepared) as runner:
        return dict(runner.test())
