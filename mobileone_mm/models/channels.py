"""Check the input channels of neck and heads against the outputs of MobileOne."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from ..errors import InputError
from . import MobileOne


def check_channels(model_cfg: Mapping[str, Any], model: nn.Module) -> None:
    """Check ``in_channels`` of the neck or the heads on a MobileOne, by the ``model`` of a config.

    A model with wrong channels builds in every host. The first batch then ends in torch's message
    about the shape of a weight. An InputError names the right channels.
    """
    backbone = getattr(model, 'backbone', None)
    if not isinstance(backbone, MobileOne):
        return
    given = backbone.out_channels
    for path, wanted, index in _settings(model_cfg):
        try:
            if index is None:
                needed: Any = list(given)
            else:
                needed = given[index] if isinstance(index, int) else [given[i] for i in index]
        except IndexError:
            raise InputError(
                f'{path}: its in_index is {index}, but the backbone has {len(given)} outputs; change '
                'in_index or model.backbone.out_indices'
            ) from None
        if wanted != needed:
            arch = model_cfg['backbone'].get('arch', 's0')
            size = f" of size '{arch}'" if isinstance(arch, str) else ''
            raise InputError(
                f'{path}: got {wanted}, but the backbone{size} gives {needed}; set it to {needed} and '
                'adapt the layers after it, or use the config of this size'
            )


def _settings(model: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield path and value of each ``in_channels`` on the backbone, and the index of its outputs."""
    path, neck = next(iter(_parts(model, 'neck')), ('', None))
    if isinstance(neck, Mapping):
        wanted = neck.get('in_channels')
        if isinstance(wanted, (list, tuple)):
            yield f'{path}.in_channels', list(wanted), None
            return
    # mmpretrain's pooling keeps the channels, so the head gets the backbone's last output.
    keeps = isinstance(neck, Mapping) and str(neck.get('type')).endswith('Pooling')
    if neck is not None and (path != 'model.neck' or not keeps):
        return
    for key in ('head', 'decode_head', 'auxiliary_head'):
        for path, head in _parts(model, key):
            wanted = head.get('in_channels') if isinstance(head, Mapping) else None
            if isinstance(wanted, int):
                yield f'{path}.in_channels', wanted, head.get('in_index', -1)
            elif isinstance(wanted, (list, tuple)):
                yield f'{path}.in_channels', list(wanted), head.get('in_index')


def _parts(model: Mapping[str, Any], key: str) -> list[tuple[str, Any]]:
    """Return a part of the model with its path, or the parts of a list of them."""
    part = model.get(key)
    if isinstance(part, (list, tuple)):
        return [(f'model.{key}.{place}', item) for place, item in enumerate(part)]
    return [(f'model.{key}', part)]
