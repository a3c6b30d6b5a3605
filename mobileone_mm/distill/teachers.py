"""Frozen classifiers whose averaged probabilities are soft labels."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InputError
from ..reparam.surgery import reparameterize_model, unfused_blocks
from ..training.seeding import seeded
from ..weights.fit import checkpoint_for
from ..weights.reading import first_line
from ..weights.unwrap import read_weights
from .normalization import Normalization, check_normalization

#: exactly one of these says which net
SOURCES = ('model', 'config', 'timm')
KEYS = (*SOURCES, 'checkpoint', 'pretrained', 'data_preprocessor', 'input_size')
_LISTS = 'on the command line "model.teachers=[dict(timm=\'resnet50\',pretrained=True)]"'


class Teacher:
    """One frozen classifier: in eval mode, without gradients, outside of any other module.

    Args:
        spec: Which net: one of ``model`` (config of a classifier of mmpretrain, ``TimmClassifier``
            included), ``config`` (path of a config file) and ``timm`` (a name of timm's). Its weights:
            ``checkpoint`` (a path, an address, or a name such as ``mobileone_mm://s4-apple``; of any
            form that fits), or ``pretrained=True`` for timm's own. ``data_preprocessor`` (``mean``,
            ``std``, ``to_rgb``): what it was trained with; what is not given is that of its config,
            that of timm's table, else the student's. ``input_size``: side in pixels to which the
            images are resized for it; by default the student's, or timm's where the net takes one
            size alone.
        student: Normalisation of the batches that it will get.
        num_classes: Of the student.

    Raises:
        InputError: It cannot be built or loaded, or has another number of classes.
    """

    def __init__(self, spec: Mapping[str, Any], student: Normalization, num_classes: int) -> None:
        self.name = name_of(spec)
        self._student = student
        model, preprocessor = _build(spec, self.name, num_classes)
        published = _timm_table(model)
        self.model = model.requires_grad_(False).eval()
        _load(self.model, spec, self.name, published)
        default = _published_normalization(self.name, preprocessor, published) or student
        self.normalization = default.changed(spec.get('data_preprocessor') or {})
        self.input_size = spec.get('input_size')
        if self.input_size is None and published and published.get('fixed_input_size'):
            self.input_size = published['input_size'][-1]
        found = _classes_of(self.model)
        if found is not None and found != num_classes:
            raise InputError(
                f'{self.name}: has {found} classes, the student (model.head.num_classes) '
                f'{num_classes}; both must have the same'
            )

    def logits(self, inputs: Tensor) -> Tensor:
        """N x classes, for a batch as the student gets it."""
        own = next(self.model.parameters())
        if own.device != inputs.device:
            self.model.to(inputs.device)
        inputs = self._student.renormalized(inputs.to(own.dtype), self.normalization)
        size = self.input_size
        if size is not None and tuple(inputs.shape[-2:]) != (size, size):
            inputs = F.interpolate(inputs, (size, size), mode='bilinear', antialias=True)
        logits = self.model(inputs)
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            raise InputError(f'{self.name}: gives no logits of shape images x classes')
        return logits

    def fingerprint(self) -> str:
        """SHA-256 over what it says about an image: tensors, their names, normalisation and size."""
        digest = hashlib.sha256(f'{self.normalization} {self.input_size}'.encode())
        for key, value in sorted(self.model.state_dict().items()):
            digest.update(f'{key} {value.dtype} {tuple(value.shape)}'.encode())
            data = value.detach().cpu().contiguous().view(-1).view(torch.uint8)
            digest.update(data.numpy().tobytes())
        return digest.hexdigest()


class Teachers:
    """Several teachers, whose probabilities are averaged (MEAL V2, arXiv 2009.08453, section 3).

    It is no module and is shared by copies of what holds it, so that nothing that goes through a
    model (optimizer, average, ``train()``, state dict) finds it.

    Args:
        specs: One for each :class:`Teacher`.
        student: Normalisation of the batches.
        num_classes: Of the student.

    Raises:
        InputError: See :class:`Teacher`.
    """

    def __init__(
        self, specs: Sequence[Mapping[str, Any]], student: Normalization, num_classes: int
    ) -> None:
        self.members = [Teacher(spec, student, num_classes) for spec in specs]

    def __deepcopy__(self, memo: dict[int, Any]) -> Teachers:
        return self

    @property
    def names(self) -> list[str]:
        return [teacher.name for teacher in self.members]

    @torch.no_grad()
    def scores(self, inputs: Tensor, temperature: float = 1.0) -> Tensor:
        """Soft labels of a batch: N x classes, float32 (float64 for such teachers), rows of sum 1."""
        total: Any = 0
        for teacher in self.members:
            logits = teacher.logits(inputs)
            logits = logits.float() if logits.dtype.itemsize < 4 else logits
            total = total + F.softmax(logits / temperature, dim=1)
        return total / len(self.members)


def fingerprints_at_hand(
    specs: Sequence[Mapping[str, Any]], student: Normalization, num_classes: int
) -> list[str | None]:
    """Fingerprints of the teachers whose files are on this machine; None for the others.

    Args:
        specs: Descriptions of the teachers.
        student: Normalisation of the batches.
        num_classes: Of the student.

    Raises:
        InputError: A file is there, and the teacher cannot be made of it.
    """
    found: list[str | None] = []
    for spec in specs:
        fingerprint = None
        files = [spec[key] for key in ('checkpoint', 'config') if spec.get(key)]
        if not _is_pretrained(spec) and all(os.path.isfile(file) for file in files):
            try:
                with seeded(0):  # a net begins at random, and the run shall not notice
                    fingerprint = Teacher(spec, student, num_classes).fingerprint()
            except InputError as error:
                if not isinstance(error.__cause__, ImportError):
                    raise
        found.append(fingerprint)
    return found


def check_specs(specs: Any) -> list[dict[str, Any]]:
    """The descriptions of teachers as plain dicts, after a look at their keys.

    Raises:
        InputError: Naming the key.
    """
    if not isinstance(specs, (list, tuple)) or not specs:
        raise InputError(
            f'model.teachers: got {specs!r}; a list of at least one dict is needed ({_LISTS})'
        )
    for index, spec in enumerate(specs):
        _check_spec(f'model.teachers.{index}', spec)
    return [dict(spec) for spec in specs]


def describe(spec: Mapping[str, Any]) -> dict[str, Any]:
    """What identifies a teacher's description on another machine: without folders.

    Addresses and names of public weights are the same everywhere and stay whole.
    """
    plain = json.loads(json.dumps(spec, sort_keys=True, default=_plain))
    for key in ('checkpoint', 'config'):
        if plain.get(key) and '://' not in plain[key]:
            plain[key] = plain[key].rpartition('/')[2]
    return {key: value for key, value in plain.items() if value is not None}


def name_of(spec: Mapping[str, Any]) -> str:
    """A teacher's name in messages."""
    if spec.get('timm'):
        return f"teacher '{spec['timm']}' of timm"
    if spec.get('config'):
        return f"teacher of '{spec['config']}'"
    model = spec['model']
    kind = (model.get('backbone') or {}).get('type') or model.get('model_name') or model.get('type')
    return f"teacher '{kind if isinstance(kind, str) else getattr(kind, '__name__', kind)}'"


def _plain(value: Any) -> Any:
    return getattr(value, '__name__', None) or str(value)


def _check_spec(path: str, spec: Any) -> None:
    if not isinstance(spec, Mapping):
        raise InputError(
            f'{path}: got {spec!r}; a dict with one of {", ".join(SOURCES)} is needed ({_LISTS})'
        )
    for key in spec:
        if key not in KEYS:
            raise InputError(f"{path}: has no '{key}'; {', '.join(KEYS)} are allowed")
    given = [key for key in SOURCES if spec.get(key)]
    if len(given) != 1:
        raise InputError(
            f'{path}: got {", ".join(given) or "none"} of {", ".join(SOURCES)}; exactly one is needed'
        )
    kind = Mapping if given[0] == 'model' else (str, os.PathLike)
    if not isinstance(spec[given[0]], kind):  # type: ignore[arg-type]
        needed = 'the config of a classifier' if given[0] == 'model' else 'a text'
        raise InputError(f'{path}.{given[0]}: got {spec[given[0]]!r}; {needed} is needed')
    if not isinstance(spec.get('checkpoint'), (str, os.PathLike, type(None))):
        raise InputError(f'{path}.checkpoint: got {spec["checkpoint"]!r}; a text is needed')
    own = _is_pretrained(spec)
    if bool(spec.get('checkpoint')) == own:
        problem = (
            'two sources of weights' if own else 'no weights, and a random teacher teaches noise'
        )
        raise InputError(
            f"{path}: {problem}; set either checkpoint, or for timm's own weights pretrained=True"
        )
    size = spec.get('input_size')
    if size is not None and not (type(size) is int and size > 0):
        raise InputError(f'{path}.input_size: got {size!r}; a number of pixels is needed')
    if spec.get('data_preprocessor') is not None:
        check_normalization(f'{path}.data_preprocessor', spec['data_preprocessor'])


def _is_pretrained(spec: Mapping[str, Any]) -> bool:
    model = spec.get('model')
    inner = isinstance(model, Mapping) and model.get('pretrained') is True
    return bool(spec.get('pretrained')) or inner


def _build(
    spec: Mapping[str, Any], name: str, num_classes: int
) -> tuple[nn.Module, Mapping[str, Any] | None]:
    """The net, and the config of its data preprocessor if it has one."""
    from mmpretrain.registry import MODELS

    if spec.get('timm'):
        settings: dict[str, Any] = dict(type='TimmClassifier', model_name=spec['timm'])
        # With its own weights timm would replace a classifier of another size by a random one.
        settings.update(dict(pretrained=True) if spec.get('pretrained') else
                        dict(num_classes=num_classes))  # fmt: skip
        preprocessor = None
    else:
        settings, preprocessor = _settings(spec, name)
    try:
        return MODELS.build({'_scope_': 'mmpretrain', **settings}), preprocessor
    except InputError:
        raise
    except Exception as error:  # constructors and downloads of any library raise anything
        raise InputError(
            f'{name}: cannot be built ({type(error).__name__}: {first_line(str(error))})'
        ) from error


def _settings(spec: Mapping[str, Any], name: str) -> tuple[dict[str, Any], Any]:
    settings, preprocessor = spec.get('model'), None
    if settings is None:
        try:
            config = Config.fromfile(spec['config'])
        except Exception as error:  # a config is a program, anything can go wrong in it
            raise InputError(
                f'{name}: the config cannot be read ({type(error).__name__}: {first_line(str(error))})'
            ) from error
        settings, preprocessor = config.get('model'), config.get('data_preprocessor')
        if not isinstance(settings, Mapping):
            raise InputError(f'{name}: the config has no model; give that of a classifier')
    settings = dict(settings)
    return settings, settings.get('data_preprocessor') or preprocessor


def _load(
    model: nn.Module, spec: Mapping[str, Any], name: str, published: Mapping[str, Any] | None
) -> None:
    if spec.get('checkpoint'):
        try:
            weights = read_weights(spec['checkpoint'])
            if weights.form == 'deploy' and next(unfused_blocks(model), None) is not None:
                reparameterize_model(model, inplace=True)  # it takes part in no training
            checkpoint_for(model, weights).load(model)
        except InputError as error:
            raise InputError(f'{name}: {error}') from error
    elif published and published.get('num_classes') != _classes_of(model):
        raise InputError(
            f'{name}: its own weights have {published.get("num_classes")} classes, so its classifier '
            'would be random; leave num_classes out'
        )


def _published_normalization(
    name: str, preprocessor: Mapping[str, Any] | None, published: Mapping[str, Any] | None
) -> Normalization | None:
    """That of a teacher's own config, else of timm's table, if there is one."""
    if preprocessor is not None:
        check_normalization(f'{name}: data_preprocessor', preprocessor, open_ended=True)
        return Normalization.of(preprocessor)
    if published is None:
        return None
    scaled = {key: [255 * number for number in published[key]] for key in ('mean', 'std')}
    return Normalization.of({**scaled, 'to_rgb': True})


def _timm_table(model: nn.Module) -> Mapping[str, Any] | None:
    """What timm publishes about a net: normalisation, sizes, classes."""
    return getattr(getattr(model, 'model', None), 'pretrained_cfg', None)


def _classes_of(model: nn.Module) -> int | None:
    for part in (getattr(model, 'head', None), getattr(model, 'model', None)):
        number = getattr(part, 'num_classes', None)
        if isinstance(number, int):
            return number
    return None
