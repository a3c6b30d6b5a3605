"""Loading weights with a check: what does not fit is an error that names the likely cause.

mmengine loads with ``strict=False`` and logs what did not match, so a checkpoint of another size,
form or task "loads" and leaves most of the net at its random start.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from ..errors import InputError
from .forms import EPS, fuse_state, lift_state
from .mismatch import (
    STAGE_KEY,
    Differences,
    common_problem,
    mismatch,
    shape_problem,
    some_keys,
    stage_widths,
    width_problem,
)
from .names import form_of, scheme_of, to_classifier
from .numbers import unit_problem, value_problem
from .published import read_any
from .reading import first_line, state_dict_of


@dataclass(frozen=True)
class LoadReport:
    """What :func:`load_weights` did.

    Attributes:
        scheme: Naming of the file (``apple``, ``mmpretrain``, ...), None if it is no MobileOne.
        form: 'train' or 'deploy'; None if it is no MobileOne.
        loaded: Keys of the model that were set.
        missing: Keys of the model that the file lacks.
        unexpected: Keys of the file that the model has no place for.
    """

    scheme: str | None
    form: str | None
    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]


@torch.no_grad()
def load_weights(
    model: nn.Module,
    source: str | os.PathLike[str] | Mapping[str, Any],
    strict: bool = True,
    prefix: str | None = None,
) -> LoadReport:
    """Load MobileOne weights of any known naming into a backbone, or a model that has one.

    A backbone takes its part of a classifier's, detector's or segmentor's file; the rest of the
    file is left out and reported as unexpected.

    Args:
        model: A :class:`~mobileone_mm.MobileOne`, or a host's model with it as ``backbone``.
        source: A local file, an address, a name such as ``mobileone_mm://s0-apple``, or a checkpoint
            or state dict in memory.
        strict: Whether every tensor of the model must be in the file, and the file of a whole model
            must hold no others. The shapes of what is loaded must agree in any case.
        prefix: Take only the keys below this prefix of the file, without it; as in mmengine.

    Raises:
        InputError: The file is broken, or of another size, form or task.
    """
    name = 'checkpoint' if isinstance(source, Mapping) else f"checkpoint '{os.fspath(source)}'"
    checkpoint = source if isinstance(source, Mapping) else read_any(source)
    state = state_dict_of(checkpoint, name)
    scheme = scheme_of(state)
    if prefix:
        state = _below(state, prefix.rstrip('.') + '.', name)
    model = _unwrap(model)
    form = form_of(state)
    state = _without_se(model, fit_state(model, state, name), name)
    target = model.state_dict()
    differences = Differences.between(target, state)
    is_backbone = any(key.startswith('stage0.') for key in target)
    problem = mismatch(target, state, differences, allow_other=is_backbone) if strict else None
    problem = (
        problem
        or shape_problem(target, state, differences.shapes)
        or common_problem(target, state, differences.common)
        or value_problem(target, state)
    )
    if problem:
        raise InputError(f'{name}: {problem}')
    model.load_state_dict({key: state[key] for key in differences.common}, strict=False)
    return LoadReport(
        scheme,
        form,
        tuple(differences.common),
        tuple(differences.missing),
        tuple(differences.unexpected),
    )


def check_matches(
    model: nn.Module,
    checkpoint: Mapping[str, Any],
    source: str,
    allow_missing: Sequence[str] = (),
) -> None:
    """Raise unless the checkpoint is one of this model.

    For tools, before they hand the file to mmengine, which would only log what does not fit.

    Args:
        model: The model that shall take the weights.
        checkpoint: As :func:`~mobileone_mm.weights.reading.read_checkpoint` gives it; foreign names
            are understood.
        source: What to call the checkpoint in the message, usually its path.
        allow_missing: Beginnings of keys that the file need not have, such as ``bbox_head.`` when a
            detector starts from a classifier. If there are any, the file may also hold parts that the
            model has no place for.

    Raises:
        InputError: It is of another size, form or task, or its weights are not finite.
    """
    name = f"checkpoint '{source}'"
    model = _unwrap(model)
    target = model.state_dict()
    state = fit_state(model, state_dict_of(checkpoint, name), name)
    allowed = tuple(allow_missing)
    if allowed:
        state = _without_se(model, state, name)
    differences = Differences.between(target, state, allowed)
    problem = mismatch(target, state, differences, allow_other=bool(allowed))
    if problem is None:
        problem = value_problem(target, state)
    if problem:
        raise InputError(f'{name}: {problem}')


def backbone_weights(backbone: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The part of a state dict that a bare backbone takes, under the backbone's names.

    Raises:
        InputError: The file's backbone is of another size or form, or there is none.
    """
    target = backbone.state_dict()
    name = 'checkpoint for the backbone'
    own = {k: v for k, v in fit_state(backbone, state, name).items() if STAGE_KEY.match(k)}
    own = _without_se(backbone, own, name)
    differences = Differences.between(target, own)
    problem = mismatch(target, own or state, differences, allow_other=True)
    problem = problem or value_problem(target, own)
    if problem:
        raise InputError(f'{name}: {problem}')
    return {key: own[key] for key in differences.common}


def fit_state(
    model: nn.Module, state: Mapping[str, Tensor], source: str = 'weights'
) -> dict[str, Tensor]:
    """A state dict of any known naming and form with the names and in the form of this model.

    Units in training form are fused for a model in deploy form, fused ones are written into the
    branches of a model in training form; the log says so.

    Args:
        model: The model that shall take the weights.
        state: The weights.
        source: What to call them in a message.

    Raises:
        InputError: The weights cannot be brought into the other form: a part is missing, of another
            shape or type, or not finite.
    """
    try:
        return _fit(model, state)
    except InputError as error:
        raise InputError(f'{source}: {error}') from error


def _fit(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    fitted = fit_names(model, state)
    target = model.state_dict()
    forms = form_of(fitted), form_of(target)
    eps = float(next((m.norm_eps for m in model.modules() if hasattr(m, 'norm_eps')), EPS))  # type: ignore[arg-type]
    if None not in forms and forms[0] != forms[1]:
        problem = unit_problem(fitted) or width_problem(stage_widths(fitted), stage_widths(target))
        if problem:
            raise InputError(problem)
    if forms == ('train', 'deploy'):
        print_log('The weights are in training form: they are fused for this model.', 'current')
        return _converted(lambda: fuse_state(fitted, eps))
    if forms == ('deploy', 'train'):
        print_log(
            'The weights are in deploy form: they are written into the branches of this model. '
            'Before training from there, measure the statistics of the branches: '
            "custom_hooks=[dict(type='mobileone_mm.RecalibrateHook')].",
            'current',
        )
        return _converted(lambda: lift_state(fitted, target, eps))
    return fitted


def _converted(convert: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    try:
        return convert()
    except (
        KeyError,
        IndexError,
        TypeError,
        RuntimeError,
    ) as error:  # any shape or part is possible
        raise InputError(
            f'its units cannot be brought into the other form ({type(error).__name__}: '
            f'{first_line(str(error))}); the file is damaged or no MobileOne'
        ) from error


def fit_names(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of any known naming under the names of this model.

    Foreign names become those of a host's classifier; for a bare backbone, its prefix in the file is
    taken off.
    """
    scheme = scheme_of(state)
    fitted = dict(state)
    # A net of timm's own takes timm's names.
    if scheme not in (None, 'mmpretrain', scheme_of(model.state_dict())):
        fitted = to_classifier(state)
    if scheme == 'corenet':
        print_log(
            "CoreNet's weights expect RGB from 0 to 1: set mean=[0, 0, 0] and std=[255, 255, 255] in "
            'the data preprocessor.',
            'current',
            logging.WARNING,
        )
    target = model.state_dict().keys()
    bare_target = any(key.startswith('stage0.') for key in target)
    bare_file = any(key.startswith('stage0.') for key in fitted)
    if bare_target and not bare_file:
        fitted = {key.removeprefix('backbone.'): value for key, value in fitted.items()}
    elif bare_file and any(key.startswith('backbone.stage0.') for key in target):
        fitted = {
            f'backbone.{key}' if key.startswith('stage') else key: value
            for key, value in fitted.items()
        }
    return fitted


def _without_se(model: nn.Module, state: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """The weights without squeeze-and-excitation, for a bare backbone built with use_se=False."""
    if getattr(model, 'use_se', True):
        return state
    target = model.state_dict()
    left = {k for k in state if '.se.' in k and STAGE_KEY.match(k) and k not in target}
    if left:
        print_log(
            f'{source}: its squeeze-and-excitation is left out ({len(left)} tensors), because the '
            'model has use_se=False; the function is another one: train before you use it.',
            'current',
            logging.WARNING,
        )
    return {key: value for key, value in state.items() if key not in left}


def _unwrap(model: nn.Module) -> nn.Module:
    """The model inside wrappers for several devices or test-time augmentation."""
    while [name for name, _ in model.named_children()] == ['module']:
        model = model.module  # type: ignore[assignment]
    return model


def _below(state: Mapping[str, Tensor], prefix: str, name: str) -> dict[str, Tensor]:
    below = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    if not below:
        raise InputError(f"{name}: has no key below '{prefix}' (its keys: {some_keys(state)})")
    return below
