"""Frozen classifiers whose averaged probabilities are soft labels."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config.read import load_config
from ..config.tree import mapping
from ..errors import NON_FINITE, InputError
from ..reparam.compare import fingerprint
from ..reparam.surgery import reparameterize_model, unfused_blocks
from ..training.seeding import seeded
from ..weights.fit import checkpoint_for
from ..weights.reading import first_line
from ..weights.unwrap import read_weights
from .normalization import Normalization

#: exactly one of these selects the network
SOURCES = ('model', 'config', 'timm')
KEYS = (*SOURCES, 'checkpoint', 'pretrained', 'data_preprocessor', 'input_size')
_STRING = (str, os.PathLike), 'a string'
_KINDS: dict[str, tuple[Any, str]] = {
    'model': (Mapping, 'the config of a classifier'),
    **dict.fromkeys(('config', 'timm', 'checkpoint'), _STRING),
    'input_size': (int, 'a number of pixels above 0'),
}


class Teacher:
    """A frozen classifier in evaluation mode, outside of any other module.

    Args:
        spec: One of ``model`` (config of a classifier of mmpretrain, also ``TimmClassifier``),
            ``config`` (path of a config) and ``timm`` (name in timm) selects the network. Weights:
            ``checkpoint`` (a path, an address, or a name such as ``mobileone_mm://s4-apple``), or
            ``pretrained=True`` for those of timm. ``data_preprocessor`` (``mean``, ``std``,
            ``to_rgb``): missing keys come from its config, from timm's table, else from the student.
            ``input_size``: side in pixels to which its images are resized; by default the
            student's, or timm's where the network takes a single size.
        student: Normalisation of the batches.
        num_classes: Classes of the student. A teacher of other classes is an InputError, like one
            that cannot be built or loaded.
    """

    def __init__(self, spec: Mapping[str, Any], student: Normalization, num_classes: int) -> None:
        self.name, self._student = _name_of(spec), student
        try:
            self._prepare(spec, num_classes)
        except InputError as error:
            raise InputError(f'{self.name}: {error}') from error.__cause__

    def _prepare(self, spec: Mapping[str, Any], num_classes: int) -> None:
        model, preprocessor = _build(spec, num_classes)
        # What timm publishes about a network: normalisation, sizes, classes.
        published = getattr(getattr(model, 'model', None), 'pretrained_cfg', None)
        self.model = model.requires_grad_(False).eval()
        parts = (getattr(model, part, None) for part in ('head', 'model'))
        numbers = (getattr(part, 'num_classes', None) for part in parts)
        found = next((number for number in numbers if isinstance(number, int)), None)
        if spec.get('checkpoint'):
            weights = read_weights(spec['checkpoint'])
            if weights.form == 'deploy' and next(unfused_blocks(model), None) is not None:
                reparameterize_model(model, inplace=True)  # it takes part in no training
            checkpoint_for(model, weights).load(model)
        elif published and published.get('num_classes') != found:
            raise InputError(
                f'its own weights have {published.get("num_classes")} classes, so its classifier '
                'would be random; leave num_classes out'
            )
        if found not in (None, num_classes):
            raise InputError(
                f'has {found} classes, the student (model.head.num_classes) {num_classes}; both must '
                'have the same'
            )
        if preprocessor is None and published:
            scaled = {key: [255 * number for number in published[key]] for key in ('mean', 'std')}
            preprocessor = {**scaled, 'to_rgb': True}
        default = self._student if preprocessor is None else Normalization.of(preprocessor)
        self.normalization = Normalization.of(spec.get('data_preprocessor') or {}, default)
        self.input_size = spec.get('input_size')
        if self.input_size is None and published and published.get('fixed_input_size'):
            self.input_size = published['input_size'][-1]

    def logits(self, inputs: Tensor) -> Tensor:
        """Compute logits, N x classes, for a batch of the student."""
        dtype = next(self.model.to(inputs.device).parameters()).dtype
        inputs = self._student.renormalized(inputs.to(dtype), self.normalization)
        size = self.input_size
        if size is not None and tuple(inputs.shape[-2:]) != (size, size):
            inputs = F.interpolate(inputs, (size, size), mode='bilinear', antialias=True)
        logits = self.model(inputs)
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            raise InputError(f'{self.name}: gives no logits of shape images x classes')
        return logits

    def fingerprint(self) -> str:
        """Hash the tensors with their names, the normalisation and the input size (SHA-256)."""
        parts = f'{fingerprint(self.model)} {self.normalization} {self.input_size}'
        return hashlib.sha256(parts.encode()).hexdigest()


class Teachers:
    """Teachers whose probabilities are averaged (MEAL V2, arXiv 2009.08453, section 3).

    This is not a module and copies share it, so that optimizers, averages, ``train()`` and state
    dicts of the student do not reach it. Arguments and errors are those of :class:`Teacher`.
    """

    def __init__(
        self, specs: Sequence[Mapping[str, Any]], student: Normalization, num_classes: int
    ) -> None:
        self.members = [Teacher(spec, student, num_classes) for spec in specs]

    def __deepcopy__(self, memo: dict[int, Any]) -> Teachers:
        return self

    @torch.no_grad()
    def scores(self, inputs: Tensor, temperature: float = 1.0) -> Tensor:
        """Compute soft labels: N x classes, rows of sum 1, float32 (float64 for such teachers).

        InputError if a teacher gives NaN or Inf; the losses would not say that it is the cause.
        """
        total: Any = 0
        for teacher in self.members:
            logits = teacher.logits(inputs)
            if not logits.isfinite().all():
                raise InputError(f'{teacher.name}: predicts {NON_FINITE}')
            dtype = torch.promote_types(logits.dtype, torch.float32)
            total = total + F.softmax(logits.to(dtype) / temperature, dim=1)
        return total / len(self.members)


def fingerprint_at_hand(
    spec: Mapping[str, Any], student: Normalization, num_classes: int
) -> str | None:
    """Fingerprint a teacher; None if its files are not on this machine, or its library is missing."""
    files = [spec[key] for key in ('checkpoint', 'config') if spec.get(key)]
    if _is_pretrained(spec) or not all(os.path.isfile(file) for file in files):
        return None
    try:
        with seeded(0):  # a network starts at random, and the run must not change
            return Teacher(spec, student, num_classes).fingerprint()
    except InputError as error:
        if isinstance(error.__cause__, ImportError):
            return None
        raise


def check_specs(specs: Any) -> list[dict[str, Any]]:
    """Check the descriptions of teachers (InputError) and return them as plain dicts."""
    listed = isinstance(specs, (list, tuple)) and all(isinstance(spec, Mapping) for spec in specs)
    if not listed or not specs:
        raise InputError(
            f'model.teachers: got {specs!r}; expected a list of at least one dict with one of '
            f'{", ".join(SOURCES)} (on the command line '
            '"model.teachers=[dict(timm=\'resnet50\',pretrained=True)]")'
        )
    for index, spec in enumerate(specs):
        _check(f'model.teachers.{index}', spec)
    return [dict(spec) for spec in specs]


def _check(path: str, spec: Mapping[str, Any]) -> None:
    _check_keys(path, spec, KEYS)
    given = [key for key in SOURCES if spec.get(key)]
    if len(given) != 1:
        raise InputError(
            f'{path}: got {", ".join(given) or "none"} of {", ".join(SOURCES)}; expected exactly one'
        )
    for key, (kind, expected) in _KINDS.items():
        value = spec.get(key)
        wrong = type(value) is bool or not isinstance(value, kind) or (kind is int and value <= 0)
        if value is not None and wrong:
            raise InputError(f'{path}.{key}: got {value!r}; expected {expected}')
    own = _is_pretrained(spec)
    if bool(spec.get('checkpoint')) == own:
        problem = 'two sources of weights' if own else 'no weights: a random teacher teaches noise'
        raise InputError(
            f"{path}: {problem}; set either checkpoint, or pretrained=True for timm's own weights"
        )
    if spec.get('data_preprocessor') is not None:
        Normalization.of(spec['data_preprocessor'], path=f'{path}.data_preprocessor')
        _check_keys(f'{path}.data_preprocessor', spec['data_preprocessor'], Normalization.KEYS)


def _check_keys(path: str, given: Mapping[str, Any], known: Sequence[str]) -> None:
    for key in given:
        if key not in known:
            raise InputError(f"{path}: has no '{key}'; {', '.join(known)} are allowed")


def _is_pretrained(spec: Mapping[str, Any]) -> bool:
    return bool(spec.get('pretrained')) or mapping(spec.get('model')).get('pretrained') is True


def _name_of(spec: Mapping[str, Any]) -> str:
    """Return the name of a teacher for messages."""
    if spec.get('timm'):
        return f"teacher '{spec['timm']}' of timm"
    if spec.get('config'):
        return f"teacher of '{spec['config']}'"
    model = spec['model']
    kind = (model.get('backbone') or {}).get('type') or model.get('model_name') or model.get('type')
    return f"teacher '{getattr(kind, '__name__', kind)}'"


def _build(spec: Mapping[str, Any], num_classes: int) -> tuple[nn.Module, Any]:
    """Build the network; return it with the config of its data preprocessor."""
    from mmpretrain.registry import MODELS

    settings: Any = spec.get('model')
    preprocessor = None
    try:
        if spec.get('timm'):
            # With its own weights, timm replaces a classifier of another size by a random one.
            own = dict(pretrained=True) if spec.get('pretrained') else dict(num_classes=num_classes)
            settings = dict(type='TimmClassifier', model_name=spec['timm'], **own)
        elif spec.get('config'):
            config = load_config(spec['config'])
            settings, preprocessor = config.model, config.get('data_preprocessor')
        preprocessor = settings.get('data_preprocessor') or preprocessor
        return MODELS.build({'_scope_': 'mmpretrain', **settings}), preprocessor
    except InputError:
        raise
    except Exception as error:  # constructors and downloads of a library can raise anything
        reason = f'{type(error).__name__}: {first_line(str(error))}'
        raise InputError(f'cannot be built ({reason})') from error
