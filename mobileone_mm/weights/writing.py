"""What a checkpoint file holds, as bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..errors import InputError
from ..files import torch_bytes


def weight_bytes(state: Mapping[str, Tensor], meta: Mapping[str, Any], suffix: str) -> bytes:
    """The content of a checkpoint with ``meta`` and ``state_dict``, or of a safetensors file.

    Raises:
        InputError: The library for safetensors is missing.
    """
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
    return save(
        {key: value.contiguous() for key, value in state.items()}, {'format': 'pt', **texts}
    )
