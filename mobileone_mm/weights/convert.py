"""Convert a weight file to the names of another code base, or to the other form."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._version import __version__
from ..errors import InputError
from ..files import atomic_write, torch_bytes
from ..models import MobileOne
from .forms import fuse_state, lift_state
from .layout import check_whole
from .names import SCHEMES, form_of, places, scheme_of, to_classifier, to_scheme
from .published import PREFIX, local_file
from .unwrap import read_weights

SUFFIXES = ('.pth', '.pt', '.tar', '.safetensors')
FORMS = ('train', 'deploy')


def convert_weights(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    to: str = 'mmpretrain',
    form: str | None = None,
) -> dict[str, Any]:
    """Write the weights of a MobileOne classifier or backbone under other names, or in the other form.

    Renaming changes no bit. ``form='deploy'`` fuses; ``form='train'`` writes fused kernels into the
    branches of their size (see :func:`~mobileone_mm.weights.forms.lift_state`).

    Args:
        source: A file of any known naming, an address, or ``mobileone_mm://NAME``.
        out: ``.pth``, ``.pt``, ``.pth.tar`` or ``.safetensors``. For ``mmpretrain`` a dict with
            ``meta`` and ``state_dict``, else (and in safetensors) the bare state dict.
        to: ``mmpretrain``, ``apple``, ``timm`` or ``corenet``.
        form: ``train``, ``deploy``, or None for that of the source.

    Returns:
        ``scheme`` and ``form`` of the source and of the output, ``arch`` if a public size has these
        shapes, and the number of ``tensors``.

    Raises:
        InputError: An argument does not fit, or the source is no MobileOne classifier or backbone, is
            incomplete, or holds NaN.
    """
    if form not in (None, *FORMS):
        raise InputError(f"form: got '{form}'; {', '.join(FORMS)} are allowed")
    if to not in SCHEMES:
        raise InputError(f"to: got '{to}'; {', '.join(SCHEMES)} are allowed")
    target = Path(out).expanduser()
    if target.suffix not in SUFFIXES:
        raise InputError(f"out: got '{out}'; a name that ends in {', '.join(SUFFIXES)} is allowed")
    file = local_file(source)
    if os.path.realpath(target) == os.path.realpath(file.expanduser()):
        raise InputError(f"out: '{out}' is the input; choose another name")
    state = read_weights(file, str(source)).state
    try:
        before = scheme_of(state), form_of(state)
        renamed = to_classifier(state)
        if (found := places(renamed, 'mmpretrain')) != {'backbone.'}:
            raise InputError(
                f'holds a MobileOne below {", ".join(map(repr, sorted(found)))}; expected one '
                "MobileOne, bare or below 'backbone.'"
            )
        arch = check_whole(renamed)
        if form is not None and form != before[1]:
            renamed = fuse_state(renamed) if form == 'deploy' else _lifted(renamed, arch)
        result = to_scheme(renamed, to)
    except InputError as error:
        raise InputError(f"checkpoint '{source}': {error}") from error
    if to == 'mmpretrain' or target.suffix == '.safetensors':
        name = str(source) if str(source).startswith(PREFIX) else Path(source).name
        data = weight_bytes(result, {'mobileone_mm': __version__, 'source': name}, target.suffix)
    else:
        data = torch_bytes(result)
    atomic_write(target, data)
    return {
        'scheme': {'before': before[0], 'after': to},
        'form': {'before': before[1], 'after': form or before[1]},
        'arch': arch,
        'tensors': len(result),
    }


def _lifted(state: Mapping[str, Tensor], arch: str | None) -> dict[str, Tensor]:
    if arch is None:
        raise InputError(
            'its shapes are those of no public size, so its branches are unknown; load it into a model '
            'of its config instead (load_from, which lifts as well)'
        )
    with torch.device('meta'):
        layout = MobileOne(arch).state_dict()
    return lift_state(state, {f'backbone.{key}': value for key, value in layout.items()})


def weight_bytes(state: Mapping[str, Tensor], meta: Mapping[str, Any], suffix: str) -> bytes:
    """Return the content of a checkpoint with ``meta`` and ``state_dict``, or of a safetensors file."""
    if suffix != '.safetensors':
        return torch_bytes({'meta': dict(meta), 'state_dict': dict(state)})
    try:
        from safetensors.torch import save
    except ImportError:
        raise InputError(
            'out: writing safetensors needs a library; run `pip install safetensors`'
        ) from None
    # The format takes strings only; hosts ask for 'format'.
    texts = {key: value for key, value in meta.items() if isinstance(value, str) and key != 'cfg'}
    contiguous = {key: value.contiguous() for key, value in state.items()}
    return save(contiguous, {'format': 'pt', **texts})
