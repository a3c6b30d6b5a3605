"""The loader: bring a checkpoint into the names and the form of a model, and check that it fits.

mmengine loads with ``strict=False`` and logs what did not match, so a checkpoint of another size,
form or task "loads" and leaves most of the model at its random start.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from ..errors import InputError
from .forms import fuse_state, lift_state
from .layout import EPS
from .mismatch import Differences, common_problem, mismatch, shape_problem, value_problem
from .names import form_of, is_unit_key, places, scheme_of, some_keys, to_classifier
from .unwrap import WRAPPERS, Source, Weights, read_weights, shared_prefix, without_wrappers

Require = Literal['model', 'backbone', 'nothing']
#: what the log says, by the form of the model
_CHANGES_OF_FORM = {
    'deploy': 'is in training form; its units are fused for this model.',
    'train': 'is in deploy form; its units are written into branches for this model. Before training '
    'from there, measure the statistics of the branches: '
    "custom_hooks=[dict(type='mobileone_mm.RecalibrateHook')].",
}


@dataclass(frozen=True)
class FittedState(Weights):
    """The weights of a checkpoint under the names and in the form of a model.

    Here ``state`` replaces the state dict of the file. It also holds the tensors that the model has no
    place for, under their own names.
    """

    loaded: tuple[str, ...]  # keys of the model that the file has, in a shape that fits
    missing: tuple[str, ...]  # keys of the model that the file lacks
    unexpected: tuple[str, ...]  # keys of the file that the model has no place for

    @torch.no_grad()
    def load(self, model: nn.Module) -> None:
        """Set the tensors of the model that the file has."""
        state = {key: self.state[key] for key in self.loaded}
        _bare(model).load_state_dict(state, strict=False)


def checkpoint_for(
    model: nn.Module, source: Source, require: Require = 'model', prefix: str | None = None
) -> FittedState:
    """Read a checkpoint and fit it to a model; the model itself does not change.

    All code that loads weights calls this function, so one file means one network everywhere. It
    removes containers and wrapper prefixes, prefers averaged weights, renames them, and fuses or
    lifts them where file and model differ in form.

    Args:
        model: Any model with a :class:`~mobileone_mm.MobileOne`, or one itself, also in wrappers.
        source: As in :func:`~mobileone_mm.weights.unwrap.read_weights`.
        require: What the file must hold. ``'model'``: every tensor of the model, and of a whole model
            no others (a bare backbone takes its part of a classifier, detector or segmentor).
            ``'backbone'``: the MobileOne of the model; heads and necks may differ. ``'nothing'``: any
            tensors, in the shapes of the model.
        prefix: Take only the keys below this prefix of the file, without it, as in mmengine.

    Raises:
        InputError: The file cannot be read, or is of another size or task, or holds NaN.
    """
    weights = read_weights(source)
    model = _bare(model)
    target = model.state_dict()
    try:
        given = _part(weights, prefix) if prefix else weights.state
        form = form_of(given)
        as_it_is = not prefix and weights.raw.keys() <= target.keys()
        state = _in_form_of(model, target, weights.raw if as_it_is else _named_for(target, given))
        if require == 'backbone' or _is_bare(target):
            state = _without_se(model, target, state, weights.name)
        differences = Differences(target, state)
        if problem := _problem(differences, require):
            raise InputError(problem)
    except InputError as error:
        raise InputError(f'{weights.name}: {error}') from error
    own = form_of(target)
    if form and own and form != own:
        print_log(f'{weights.name}: {_CHANGES_OF_FORM[own]}', 'current')
    return FittedState(
        **{**vars(weights), 'state': state, 'scheme': scheme_of(given), 'form': form},
        loaded=tuple(key for key in differences.common if key not in differences.shapes),
        missing=tuple(differences.missing),
        unexpected=tuple(differences.unexpected),
    )


def load_weights(
    model: nn.Module, source: Source, strict: bool = True, prefix: str | None = None
) -> FittedState:
    """Load MobileOne weights of any known naming into a backbone, or a model that has one.

    A backbone takes its part of a classifier's, detector's or segmentor's file; the rest of the
    file is left out and reported as unexpected.

    Args:
        model: A :class:`~mobileone_mm.MobileOne`, or a host's model with it as ``backbone``.
        source: As in :func:`checkpoint_for`, for example ``mobileone_mm://s0-apple``.
        strict: Whether the file must hold every tensor of the model, and for a whole model no others.
            The shapes of what is loaded must agree in any case.
        prefix: As in :func:`checkpoint_for`.

    Raises:
        InputError: The file is broken, or of another size, form or task.
    """
    fitted = checkpoint_for(model, source, 'model' if strict else 'nothing', prefix)
    fitted.load(model)
    return fitted


def _bare(model: nn.Module) -> nn.Module:
    """Return the model without wrappers for several devices, torch.compile or TTA."""
    while len(names := [name for name, _ in model.named_children()]) == 1 and (
        names[0] in WRAPPERS - {'model'}
    ):
        model = getattr(model, names[0])
    return model


def _part(weights: Weights, prefix: str) -> dict[str, Tensor]:
    """Return the weights below a prefix of the file, or of the names of a host's classifier."""
    prefix = prefix.rstrip('.') + '.'
    for state in (weights.raw, weights.state):
        if below := _below(state, prefix):
            return without_wrappers(below)
    if weights.scheme is not None and (below := _below(to_classifier(weights.state), prefix)):
        return below
    raise InputError(f"has no key below '{prefix}' (its keys: {some_keys(weights.raw)})")


def _named_for(target: Mapping[str, Any], state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the state to the names of the target, with the MobileOne at the same place."""
    scheme, own = scheme_of(state), scheme_of(target) or 'mmpretrain'
    if scheme not in (None, 'mmpretrain', own):  # a model of timm's own keeps timm's names
        state = to_classifier(state, keep_others=True)
    if scheme == 'corenet':
        print_log(
            "CoreNet's weights expect RGB from 0 to 1: set mean=[0, 0, 0] and std=[255, 255, 255] in "
            'the data preprocessor.',
            'current',
            logging.WARNING,
        )
    lead = shared_prefix(target)
    there, here = _backbone_place(target), _backbone_place(state, own)
    if there is None or here not in ('', 'backbone.'):
        return {lead + key: value for key, value in state.items()}
    return {
        there + key.removeprefix(here)
        if key.startswith(here) and (here or is_unit_key(key, own))
        else lead + key: value
        for key, value in state.items()
    }


def _backbone_place(keys: Mapping[str, Any], scheme: str | None = None) -> str | None:
    """Return the prefix of the MobileOne, of several that of the backbone; None if unclear."""
    found = places(keys, scheme)
    return 'backbone.' if 'backbone.' in found else found.pop() if len(found) == 1 else None


def _in_form_of(
    model: nn.Module, target: Mapping[str, Tensor], state: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Return the state in the form of the target."""
    form, own = form_of(state), form_of(target)
    if None in (form, own) or form == own:
        return state
    eps = float(next((m.norm_eps for m in model.modules() if hasattr(m, 'norm_eps')), EPS))  # type: ignore[arg-type]
    return fuse_state(state, eps) if form == 'train' else lift_state(state, target, eps)


def _is_bare(target: Mapping[str, Any]) -> bool:
    return any(key.startswith('stage0.') for key in target)


def _problem(found: Differences, require: Require) -> str | None:
    """Return the most likely reason why the file does not fit the model, or None if it does."""
    problem, place = None, _backbone_place(found.target)
    if require == 'model':
        problem = mismatch(found, allow_other=_is_bare(found.target))
    elif require == 'backbone' and place is not None:
        own, given = _below(found.target, place), _below(found.state, place)
        problem = mismatch(Differences(own, given or found.state), allow_other=True)
    if require != 'backbone':
        problem = problem or shape_problem(found) or common_problem(found)
    return problem or value_problem(found.target, found.state)


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def _without_se(
    model: nn.Module, target: Mapping[str, Tensor], state: dict[str, Tensor], name: str
) -> dict[str, Tensor]:
    """Drop squeeze-and-excitation from the weights, for a backbone built with use_se=False."""
    if all(getattr(module, 'use_se', True) for module in model.modules()):
        return state
    place = _backbone_place(target) or ''
    own = _below(state, place)
    left = {place + key for key in own if '.se.' in key and is_unit_key(key, 'mmpretrain')}
    left -= target.keys()
    if left:
        print_log(
            f'{name}: its squeeze-and-excitation is left out ({len(left)} tensors), because the '
            'model has use_se=False; the function is another one: train before you use it.',
            'current',
            logging.WARNING,
        )
    return {key: value for key, value in state.items() if key not in left}
