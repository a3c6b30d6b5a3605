"""The channels that neck and heads are set to, against those that MobileOne gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from ..errors import InputError
from . import MobileOne


def check_channels(model_cfg: Mapping[str, Any], model: nn.Module) -> None:
    """Check ``in_channels`` of what stands behind the backbone.

    A size changed without them builds in every host, and ends in torch's message about the shape
    of a weight when the first batch arrives.

    Args:
        model_cfg: The ``model`` of a config.
        model: What was built from it; one whose backbone is no MobileOne is left alone.

    Raises:
        InputError: Naming the setting and the channels that it needs.
    """
    backbone = getattr(model, 'backbone', None)
    if not isinstance(backbone, MobileOne):
        return
    given = backbone.out_channels
    for path, wanted, index in _settings(model_cfg):
        try:
            needed = _pick(given, index)
        except IndexError:
            raise InputError(
                f'{path}: its in_index is {index}, but the backbone has {len(given)} outputs; set '
                'in_index, or model.backbone.out_indices'
            ) from None
        if wanted != needed:
            arch = model_cfg['backbone'].get('arch', 's0')
            size = f" of size '{arch}'" if isinstance(arch, str) else ''
            raise InputError(
                f'{path}: got {wanted}, but the backbone{size} gives {needed}; set it to that, and '
                'what stands behind it, or take the config of this size'
            )


def _pick(given: Sequence[int], index: int | Sequence[int] | None) -> int | list[int]:
    if index is None:
        return list(given)
    return given[index] if isinstance(index, int) else [given[i] for i in index]


def _settings(model: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Path and value of each ``in_channels`` that meets the backbone, with the outputs it is for."""
    neck, path = model.get('neck'), 'model.neck'
    several = False
    if isinstance(neck, (list, tuple)) and neck:
        several, neck, path = True, neck[0], 'model.neck.0'
    if isinstance(neck, Mapping):
        wanted = neck.get('in_channels')
        if isinstance(wanted, (list, tuple)):
            yield f'{path}.in_channels', list(wanted), None
            return
        # mmpretrain's pooling keeps the channels, so its head meets the backbone's last output.
        if several or not str(neck.get('type')).endswith('Pooling'):
            return
    elif neck is not None:
        return
    for key in ('head', 'decode_head', 'auxiliary_head'):
        heads = model.get(key)
        several = isinstance(heads, (list, tuple))
        for place, head in enumerate(heads if isinstance(heads, (list, tuple)) else [heads]):
            path = f'model.{key}.{place}' if several else f'model.{key}'
            wanted = head.get('in_channels') if isinstance(head, Mapping) else None
            if isinstance(wanted, int):
                yield f'{path}.in_channels', wanted, head.get('in_index', -1)
            elif isinstance(wanted, (list, tuple)):
                yield f'{path}.in_channels', list(wanted), head.get('in_index')
