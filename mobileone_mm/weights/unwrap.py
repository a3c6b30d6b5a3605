"""Find the weights in a checkpoint: out of containers, averages first, without wrapper prefixes."""

import logging
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, TypeVar

import torch
from mmengine.logging import print_log
from torch import Tensor

from ..errors import InputError
from .allowed import shown_name
from .names import form_of, places, scheme_of, to_classifier
from .published import local_file
from .reading import read_checkpoint

#: where training scripts store weights, in order of preference
CONTAINERS = (
    *('state_dict', 'model_state_dict', 'model_state', 'model', 'net', 'module'),
    *('checkpoint', 'weights', 'params', 'network'),
)
#: where they store averaged weights: ``model_ema``, ``modelEma``, ``EMA``, ``swa_model``, ``shadow``
_AVERAGE = re.compile(r'(?:^|_)(?:ema|swa|avg|averaged?|polyak|shadow)(?:_|$)')
_CAMEL_CASE = re.compile(r'(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])')
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
Source: TypeAlias = 'str | os.PathLike[str] | Mapping[str, Any] | Weights'
_MAX_NAME = 200
_MAX_DEPTH = 4
#: elements that a tensor of stride 0 may show beyond its data
_MAX_EXPANDED = 1 << 20


@dataclass(frozen=True)
class Weights:
    """One set of weights of a checkpoint."""

    name: str  # of the checkpoint, in messages
    #: the tensors in the naming and form of the file, without wrapper prefixes and counters of averaged
    #: models; the backbone of a model is ``backbone.``
    state: dict[str, Tensor]
    raw: dict[str, Tensor]  # the same tensors under the keys of the file
    scheme: str | None  # naming of the file (apple, ...); None if it holds no MobileOne
    form: str | None  # 'train' or 'deploy'; None if it holds no MobileOne
    entry: str  # where the file has them, such as 'ema.module'
    averaged: bool  # whether these are averaged weights (EMA, SWA)
    dropped: tuple[str, ...]  # the other entries of the file, which are not used
    meta: Mapping[str, Any]  # the entry ``meta`` of the file


def read_weights(source: Source, name: str | None = None) -> Weights:
    """Read the weights of a checkpoint; all code of the package that reads weights calls this.

    The source is a path, an address, ``mobileone_mm://NAME``, a checkpoint or state dict in memory, or
    the result of an earlier call; messages call it ``name``. Of raw and averaged weights, the averaged
    ones are returned, because they are what was evaluated; the log says so. A file that cannot be read
    or holds no weights is an InputError.
    """
    if isinstance(source, Weights):
        return source
    if isinstance(source, Mapping):
        return _chosen(source, f"checkpoint '{name}'" if name else 'checkpoint')
    content = read_checkpoint(local_file(source))
    return _chosen(content, f"checkpoint '{name or os.fspath(source)}'")


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
    dropped = {each.path for each in sets if each.path != chosen.path}
    if root in content:
        dropped |= {shown_name(key) for key in content if key not in (root, 'meta')}
    return Weights(
        name=name,
        state=state,
        raw=tensors,
        scheme=scheme_of(state),
        form=form,
        entry=chosen.path,
        averaged=chosen.averaged,
        dropped=tuple(sorted(dropped)),
        meta=_meta(content),
    )


def _preferred(sets: list[_Set], name: str) -> _Set:
    """Return the first averages that are complete, or the raw weights; log the choice."""
    plain = [each for each in sets if not each.averaged]
    raw = next(iter(plain), None)
    averages = [_named(each, raw) if raw else each for each in sets if each.averaged]
    reasons = {each.path: _why_not(raw, each) if raw else None for each in averages}
    good = [each for each in averages if not reasons[each.path]]
    chosen = (good or plain)[0]
    lines = [
        f"the averaged weights ('{path}') {reason}; '{chosen.path}' is used"
        for path, reason in reasons.items()
        if reason
    ]
    if len(good) > 1:
        paths = ', '.join(f"'{each.path}'" for each in good)
        lines.append(
            f"holds several averaged sets ({paths}); '{chosen.path}' is used; to use another one, save "
            'it alone in a file'
        )
    elif raw and chosen.averaged and _is_named(chosen):
        lines.append(
            f"holds raw weights ('{raw.path}') and averaged ones ('{chosen.path}'); the averaged ones "
            'are used'
        )
    for line in lines:
        level = logging.WARNING if len(good) != 1 else logging.INFO
        print_log(f'{name}: {line}', 'current', level)
    return chosen


def _sets(
    content: Mapping[str, Any], path: tuple[str, ...] = (), average: bool = False
) -> Iterator[_Set]:
    """Yield each set of weights in a checkpoint, wherever it is nested."""
    raw_key = _raw_key(content)
    for key in dict.fromkeys((*filter(is_average, content), *CONTAINERS, raw_key or '')):
        inner = content.get(key)
        if is_average(key) and isinstance(inner, (list, tuple)):
            inner = dict(enumerate(inner))
        if isinstance(inner, Mapping) and len(path) < _MAX_DEPTH:
            averaged = key == 'state_dict' if raw_key else is_average(key)
            found = _sets(inner, (*path, key), average or averaged)
            yield from (each._replace(averaged=False) if key == raw_key else each for each in found)
    callbacks = content.get('callbacks')  # of Lightning, with one state for each callback
    for name, state in callbacks.items() if isinstance(callbacks, Mapping) else ():
        if isinstance(state, Mapping) and len(path) < _MAX_DEPTH:
            found = _sets(state, (*path, 'callbacks', shown_name(name)))
            yield from (each for each in found if each.averaged)
    tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    if tensors.keys() - COUNTERS:
        averaged = average or bool(tensors.keys() & COUNTERS)
        yield _Set('.'.join(path) or 'the file', tensors, averaged)


def _raw_key(content: Mapping[str, Any]) -> str | None:
    """Return the entry of the raw weights if the averaged ones are in ``state_dict``."""
    if is_of_mmengine(content):
        return 'ema_state_dict'
    # Lightning's WeightAveraging
    return 'current_model_state' if 'averaging_state' in content else None


def is_of_mmengine(content: Mapping[str, Any]) -> bool:
    """Return whether mmengine's Runner wrote a checkpoint with raw weights in ``ema_state_dict``.

    Its EMAHook exchanges raw and averaged weights before the Runner saves them.
    """
    by_runner = 'message_hub' in content or 'mmengine_version' in _meta(content)
    sets = content.get('ema_state_dict'), content.get('state_dict')
    return by_runner and all(isinstance(each, Mapping) for each in sets)


def _meta(content: Mapping[str, Any]) -> Mapping[str, Any]:
    meta = content.get('meta')
    return meta if isinstance(meta, Mapping) else {}


def dataset_meta(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``classes`` and ``palette`` of the data of a checkpoint, from its ``meta``.

    Runners of mmcv 1 stored them in ``meta`` itself. Their keys had capital letters for a long time.
    """
    stored = meta.get('dataset_meta')
    own = stored if isinstance(stored, Mapping) else {}
    older = {key: meta[key] for key in ('CLASSES', 'PALETTE') if key in meta}
    return {str(key).lower(): value for key, value in {**older, **own}.items()}


def is_average(key: Any) -> bool:
    """Return whether training scripts store averaged weights under this key of a checkpoint."""
    return isinstance(key, str) and bool(_AVERAGE.search(_CAMEL_CASE.sub('_', key).lower()))


def _named(average: _Set, raw: _Set) -> _Set:
    """Name the tensors of a list, as NeMo's EMA callback for Lightning stores it."""
    shapes = [[value.shape for value in each.tensors.values()] for each in (average, raw)]
    if all(isinstance(key, str) for key in average.tensors) or shapes[0] != shapes[1]:
        return average
    return average._replace(tensors=dict(zip(raw.tensors, average.tensors.values(), strict=True)))


def _is_named(average: _Set) -> bool:
    """Tell averages by their name from those that a program stores as ``state_dict``."""
    return is_average(average.path.replace('.', '_'))


def _why_not(raw: _Set, average: _Set) -> str | None:
    """Return why averages are no network, compared with the raw weights of the file, or None."""
    if average.path.endswith('.average_model_state'):  # Lightning's StochasticWeightAveraging
        return 'have BN statistics from the start of the training'
    if not _is_named(average):
        return None
    names = []
    for each in (raw, average):
        # Old files lack the counter of BN.
        keys = [str(k) for k in each.tensors if not str(k).endswith('num_batches_tracked')]
        try:
            plain = without_wrappers({key: key for key in keys if key not in COUNTERS})
            form = form_of(plain)
            names.append((form, to_classifier(plain, keep_others=True) if form else plain))
        except InputError:  # damaged: refused if it is chosen
            return None
    (form, one), (other_form, other) = names
    # Two forms have other tensors; loading checks that each is complete.
    lacking = len(one.keys() - other.keys()) if form == other_form or not other_form else 0
    return f"lack {lacking} tensors of '{raw.path}'" if lacking else None


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

    Two keys that differ only in their prefixes are an InputError.
    """
    shared = len(shared_prefix(state))
    below = [key[shared:] for key in state]
    found = places(below)
    place = found.pop() if len(found) == 1 else ''
    parts = place.split('.')[:-1]
    if not set(parts) <= WRAPPERS | BACKBONES:
        place, parts = '', []
    cut = next((index for index, part in enumerate(parts) if part in BACKBONES), len(parts))
    inner, outer = 'backbone.' * (cut < len(parts)), ''.join(f'{part}.' for part in parts[:cut])
    names = [
        inner + key[len(place) :] if key.startswith(place) else key.removeprefix(outer)
        for key in below
    ]
    renamed = dict(zip(names, state.values(), strict=True))
    if len(renamed) < len(state):
        raise InputError('holds a weight twice, under two prefixes; the file is damaged')
    return renamed


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
