"""Find the weights in a checkpoint: out of containers, averages first, without wrapper prefixes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import torch
from mmengine.logging import print_log
from torch import Tensor

from ..errors import InputError
from .allowed import shown_name
from .names import form_of, parse, places, scheme_of
from .published import read_any

#: where training scripts store weights, in order of preference
CONTAINERS = (
    *('state_dict', 'model_state_dict', 'model_state', 'model', 'net', 'module'),
    *('checkpoint', 'weights', 'params', 'network'),
)
#: where they store averaged weights: ``model_ema``, ``ema_state_dict``, ``swa_model``, ``shadow``
_AVERAGE = re.compile(r'(?:^|_)(?:ema|swa|avg|averaged?|shadow)(?:_|$)')
#: components that DataParallel, torch.compile and training frameworks put before a key
WRAPPERS = frozenset({'module', '_orig_mod', 'model'})
#: names of a backbone inside a model; segmentation_models.pytorch calls it ``encoder``
BACKBONES = frozenset({'backbone', 'encoder'})
#: counters of averaged models, beside the weights
COUNTERS = frozenset({'n_averaged', 'steps'})
_DTYPES = (
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64),
    *(torch.complex128, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool),
)
T = TypeVar('T')
_MAX_NAME = 200
_MAX_DEPTH = 4
#: elements that a tensor of stride 0 may show beyond its data
_MAX_EXPANDED = 1 << 20


@dataclass(frozen=True)
class Weights:
    """One set of weights of a checkpoint.

    Attributes:
        name: Name of the checkpoint in messages.
        state: The tensors in the naming and form of the file. The keys have no wrapper prefix, and
            the backbone of a model is ``backbone.``. Counters of averaged models are left out.
        raw: The same tensors under the keys of the file.
        scheme: Naming of the file (``apple``, ``mmpretrain``, ...); None if it holds no MobileOne.
        form: Form of the file, 'train' or 'deploy'; None if it holds no MobileOne.
        averaged: Whether these are averaged weights (EMA, SWA).
        dropped: The other entries of the file, which are not used: optimizer, raw weights.
        dtypes: Names of the floating-point types in the file.
        meta: The entry ``meta`` of the file, empty if there is none.
    """

    name: str
    state: dict[str, Tensor]
    raw: dict[str, Tensor]
    scheme: str | None
    form: str | None
    averaged: bool
    dropped: tuple[str, ...]
    dtypes: tuple[str, ...]
    meta: Mapping[str, Any]


def read_weights(
    source: str | os.PathLike[str] | Mapping[str, Any] | Weights, name: str | None = None
) -> Weights:
    """Read the weights of a checkpoint; all code of the package that reads weights calls this.

    Where a file holds raw and averaged weights, the averaged ones are returned, because they are
    what was evaluated; the log says so. mmengine's EMAHook stores the averaged weights as
    ``state_dict`` and the raw ones as ``ema_state_dict``; other programs do the opposite.

    Args:
        source: A path, an address, ``mobileone_mm://NAME``, a checkpoint or state dict in memory, or
            the result of an earlier call.
        name: Name of the checkpoint in messages; by default its path.

    Raises:
        InputError: The file cannot be read or holds no weights.
    """
    if isinstance(source, Weights):
        return source
    if isinstance(source, Mapping):
        return _chosen(source, f"checkpoint '{name}'" if name else 'checkpoint')
    return _chosen(read_any(source), f"checkpoint '{name or os.fspath(source)}'")


class _Set(NamedTuple):
    path: str
    tensors: dict[Any, Tensor]
    averaged: bool


def _chosen(content: Mapping[str, Any], name: str) -> Weights:
    sets = list(_sets(content))
    if not sets:
        shown = ', '.join(shown_name(key) for key in list(content)[:3]) or 'nothing'
        raise InputError(
            f'{name}: holds no weights (found: {shown}); expected a state dict, or a dict with one as '
            "'state_dict'"
        )
    chosen = _preferred(sets, name)
    try:
        tensors = _plain(chosen.tensors)
        state = without_wrappers(tensors)
        form = form_of(state)
    except InputError as error:
        raise InputError(f'{name}: {error}') from error
    root = chosen.path.partition('.')[0]
    dropped = {each.path for each in sets if each is not chosen}
    if root in content:
        dropped |= {shown_name(key) for key in content if key not in (root, 'meta')}
    dtypes = {
        str(v.dtype).removeprefix('torch.') for v in tensors.values() if v.is_floating_point()
    }
    return Weights(
        name=name,
        state=state,
        raw=tensors,
        scheme=scheme_of(state),
        form=form,
        averaged=chosen.averaged,
        dropped=tuple(sorted(dropped)),
        dtypes=tuple(sorted(dtypes)),
        meta=_meta(content),
    )


def _preferred(sets: list[_Set], name: str) -> _Set:
    """Return the averaged weights if there are any and they are complete; log the choice."""
    raw = next((each for each in sets if not each.averaged), sets[0])
    chosen = next((each for each in sets if each.averaged), raw)
    # mmengine's sets are whole.
    if chosen is not raw and _AVERAGE.search(chosen.path.replace('.', '_')):
        message = (
            f"{name}: holds raw weights ('{raw.path}') and averaged ones ('{chosen.path}'); the "
            'averaged ones are used'
        )
        if lacking := _lacking(raw, chosen):
            message = (
                f"{name}: the averaged weights ('{chosen.path}') lack {len(lacking)} of the raw "
                f"tensors ('{raw.path}'); the raw weights are used"
            )
            chosen = raw
        print_log(message, 'current')
    return chosen


def _sets(
    content: Mapping[str, Any], path: tuple[str, ...] = (), average: bool = False
) -> Iterator[_Set]:
    """Yield each set of weights in a checkpoint, wherever it is nested."""
    exchanged = is_of_mmengine(content)
    for key in (*filter(is_average, content), *CONTAINERS):
        inner = content.get(key)
        if isinstance(inner, Mapping) and len(path) < _MAX_DEPTH:
            averaged = key == 'state_dict' if exchanged else is_average(key)
            raw = exchanged and is_average(key)
            found = _sets(inner, (*path, key), average or averaged)
            yield from (each._replace(averaged=False) if raw else each for each in found)
    tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    if tensors.keys() - COUNTERS:
        averaged = average or bool(tensors.keys() & COUNTERS)
        yield _Set('.'.join(path) or 'the file', tensors, averaged)


def is_of_mmengine(content: Mapping[str, Any]) -> bool:
    """Tell if mmengine's EMAHook wrote it: it exchanges the two sets before a checkpoint is saved."""
    average = content.get('ema_state_dict')
    return isinstance(average, Mapping) and (
        'steps' in average or 'message_hub' in content or 'mmengine_version' in _meta(content)
    )


def _meta(content: Mapping[str, Any]) -> Mapping[str, Any]:
    meta = content.get('meta')
    return meta if isinstance(meta, Mapping) else {}


def is_average(key: Any) -> bool:
    """Return whether training scripts store averaged weights under this key of a checkpoint."""
    return isinstance(key, str) and _AVERAGE.search(key) is not None


def _lacking(raw: _Set, averaged: _Set) -> set[Any]:
    """Return what the averaged weights lack of the raw ones, whatever their prefixes and naming.

    Two sets in different forms have the same units, but not the same tensors.
    """
    keys = [_plain_keys(each.tensors) for each in (raw, averaged)]
    try:
        same_form = len({form_of(each) for each in keys}) == 1
    except InputError:
        same_form = True
    one, other = (_common_names(each, same_form) for each in keys)
    return one - other


def _plain_keys(tensors: Mapping[Any, Tensor]) -> list[str]:
    # Old files lack the counter of BN.
    keys = [key for key in tensors if isinstance(key, str) and key not in COUNTERS]
    keys = [key for key in keys if not key.endswith('num_batches_tracked')]
    try:
        return list(without_wrappers(dict.fromkeys(keys)))
    except InputError:
        return keys


def _common_names(keys: list[str], same_form: bool) -> set[Any]:
    scheme, names = scheme_of(keys), set[Any]()
    for key in keys:
        name = parse(key, scheme) if scheme else None
        if name is None or name.prefix not in ('', 'backbone.'):
            names.add(key)
        elif same_form or name.stage is None:
            names.add(replace(name, prefix=''))
        else:
            names.add((name.stage, name.unit))
    return names


def shared_prefix(keys: Any) -> str:
    """Return the wrapper components that all keys begin with, such as ``module._orig_mod.``."""
    prefix, first = '', next(iter(keys), '')
    while (component := first[len(prefix) :].partition('.')[0]) in WRAPPERS:
        longer = f'{prefix}{component}.'
        if not all(key.startswith(longer) and len(key) > len(longer) for key in keys):
            break
        prefix = longer
    return prefix


def without_wrappers(state: Mapping[str, T]) -> dict[str, T]:
    """Remove the prefixes of wrappers; the only MobileOne becomes bare or ``backbone.``.

    Raises:
        InputError: Two keys differ only in their prefixes.
    """
    shared = len(shared_prefix(state))
    found = places(key[shared:] for key in state)
    place = found.pop() if len(found) == 1 else ''
    if not set(place.split('.')[:-1]) <= WRAPPERS | BACKBONES:
        place = ''
    renamed = {_canonical(key[shared:], place): value for key, value in state.items()}
    if len(renamed) < len(state):
        raise InputError('holds a weight twice, under two prefixes; the file is damaged')
    return renamed


def _canonical(key: str, place: str) -> str:
    """Return the key of a model whose only MobileOne is below the prefix ``place``."""
    parts = place.split('.')[:-1]
    cut = next((index for index, part in enumerate(parts) if part in BACKBONES), len(parts))
    if key.startswith(place):
        return ('backbone.' if cut < len(parts) else '') + key[len(place) :]
    return key.removeprefix(''.join(f'{part}.' for part in parts[:cut]))


def _plain(tensors: Mapping[Any, Tensor]) -> dict[str, Tensor]:
    """Return the tensors without history and attributes; raise for what no model can take."""
    plain: dict[str, Tensor] = {}
    for key, value in tensors.items():
        if not isinstance(key, str) or not key.isprintable() or len(key) > _MAX_NAME:
            raise InputError(
                f"holds a weight under '{shown_name(key)}', which is no name of a layer; the file is "
                'damaged or no checkpoint'
            )
        problem = None
        if value.layout != torch.strided or value.is_meta or value.dtype not in _DTYPES:
            problem = 'without data' if value.is_meta else f'{value.dtype}, {value.layout}'
        elif value.numel() > value.untyped_storage().nbytes() + _MAX_EXPANDED:  # stride 0
            problem = f'{list(value.shape)[:6]} of {value.untyped_storage().nbytes()} bytes'
        if problem:
            raise InputError(
                f"'{shown_name(key)}' is a tensor that no model here can take ({problem}); expected "
                'plain floating-point weights'
            )
        if key not in COUNTERS:
            plain[key] = Tensor.detach(value)
    return plain
