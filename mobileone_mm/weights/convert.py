"""Convert a weight file to the names of another code base, or to the other form."""

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
from .names import SCHEMES, places, to_classifier, to_scheme
from .published import PREFIX, local_file
from .unwrap import Weights, read_weights

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
        to: A key of :data:`~mobileone_mm.weights.names.SCHEMES`.
        form: ``train``, ``deploy``, or None for that of the source.

    Return ``scheme`` and ``form`` of the source and of the output, ``arch`` if a public size has these
    shapes, and the number of ``tensors``. An argument that does not fit, and a source that is no sound
    classifier or backbone, are an InputError.
    """
    for name, value, allowed in (('form', form, (None, *FORMS)), ('to', to, tuple(SCHEMES))):
        if value not in allowed:
            names = ', '.join(filter(None, allowed))
            raise InputError(f"{name}: got '{value}'; {names} are allowed")
    target = Path(out).expanduser()
    if target.suffix not in SUFFIXES:
        raise InputError(f"out: got '{out}'; a name that ends in {', '.join(SUFFIXES)} is allowed")
    file = local_file(source)
    if os.path.realpath(target) == os.path.realpath(file.expanduser()):
        raise InputError(f"out: '{out}' is the input; choose another name")
    weights = read_weights(file, str(source))
    try:
        result, arch = _converted(weights, to, form or weights.form)
    except InputError as error:
        raise InputError(f"checkpoint '{source}': {error}") from error
    if to == 'mmpretrain' or target.suffix == '.safetensors':
        name = str(source) if str(source).startswith(PREFIX) else Path(source).name
        data = weight_bytes(result, {'mobileone_mm': __version__, 'source': name}, target.suffix)
    else:
        data = torch_bytes(result)
    atomic_write(target, data)
    return {
        'scheme': {'before': weights.scheme, 'after': to},
        'form': {'before': weights.form, 'after': form or weights.form},
        'arch': arch,
        'tensors': len(result),
    }


def _converted(weights: Weights, to: str, form: str | None) -> tuple[dict[str, Tensor], str | None]:
    """Return the weights in a naming and a form, and their public size."""
    state = to_classifier(weights.state)
    if (found := places(state, 'mmpretrain')) != {'backbone.'}:
        raise InputError(
            f'holds a MobileOne below {", ".join(map(repr, sorted(found)))}; expected one '
            "MobileOne, bare or below 'backbone.'"
        )
    arch = check_whole(state)
    if form != weights.form and form == 'deploy':
        state = fuse_state(state)
    elif form != weights.form:
        if arch is None:
            raise InputError(
                'its shapes are those of no public size, so its branches are unknown; load it into a '
                'model of its config instead (load_from, which lifts as well)'
            )
        with torch.device('meta'):
            layout = MobileOne(arch).state_dict()
        state = lift_state(state, {f'backbone.{key}': value for key, value in layout.items()})
    return to_scheme(state, to), arch


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
