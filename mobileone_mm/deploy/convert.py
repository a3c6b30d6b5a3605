"""From the config and checkpoint of a trained model to a deploy pair."""

import copy
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch
from mmengine.config import Config
from torch import Tensor, nn

from ..config.read import load_config
from ..errors import InputError, ProofError, one_line
from ..reparam import Reparameterizable
from ..reparam.conv_norm import Found
from ..reparam.surgery import unfused_blocks
from ..weights.fit import FittedState, load_weights
from ..weights.unwrap import read_weights
from . import config as configs
from . import prove
from .fold import Folding, build_deploy_form, foldable
from .forward import RawForward
from .pair import Conversion, output_paths, pair_meta
from .report import describe
from .samples import proof_inputs

PathLike: TypeAlias = str | os.PathLike[str]


def convert_to_deploy(
    config: PathLike,
    checkpoint: PathLike,
    out: PathLike,
    cfg_options: Mapping[str, Any] | None = None,
    images: Sequence[PathLike] = (),
    tolerance: float | None = None,
    device: str = 'cpu',
    backbone_only: bool = False,
) -> dict[str, Any]:
    """Fuse a trained classifier, detector or segmentor, prove that it is the same, and write it.

    Every MobileOne of the model is fused. Every BN of necks and heads that follows a convolution is
    folded into it, as far as a config can express that to an unmodified host. The raw outputs of the
    original are compared with those of the model that the *written* config builds, at the test size of
    the config and at a second, non-square one, in the model's dtype and in float64. Three files are
    written together or not at all: the checkpoint ``out``, and with the same name the config (``.py``)
    and the report (``.json``).

    Args:
        checkpoint: Weights in training form, in any known naming.
        out: The checkpoint to write, a ``.pth``, ``.pt`` or ``.safetensors`` file. The last format
            holds weights only; classes and palette are in the report.
        cfg_options: Overrides of the config, by dotted key.
        images: Images to compare on, besides structured random input.
        tolerance: Greatest difference in the model's dtype, relative to the scale of the output;
            default: 1000 times the machine epsilon of the dtype.
        device: Device of the comparison.
        backbone_only: Leave necks and heads unchanged.

    Returns:
        The report.

    Raises:
        InputError: Config, checkpoint or images cannot be used, or ``out`` cannot be written.
        ProofError: The two forms differ by more than the tolerance; nothing is written.
    """
    cfg = load_config(Path(config), cfg_options)
    conversion = prepare_conversion(cfg, checkpoint, out, images, tolerance, device, backbone_only)
    conversion.write()
    return conversion.report


def prepare_conversion(
    config: Config,
    checkpoint: PathLike,
    out: PathLike,
    images: Sequence[PathLike],
    tolerance: float | None,
    device: str,
    backbone_only: bool,
    dataset_meta: Mapping[str, Any] | None = None,
) -> Conversion:
    """Do what :func:`convert_to_deploy` does, except for the writing.

    The config is as it was read, without the changes of a run. ``dataset_meta`` gives classes and
    palette for a checkpoint that has none.
    """
    sources = [path for path in (config.filename, checkpoint, *images) if path is not None]
    paths = output_paths(out, sources)
    try:
        target = torch.device(device)
        torch.empty(1, device=target).item()  # fails on 'meta', which has no values
    except (RuntimeError, AssertionError, ValueError) as error:
        raise InputError(
            f"device: got '{device}', which torch cannot use ({one_line(error)[:100]}); use cpu"
        ) from error
    if tolerance is not None and not 0 < tolerance < 1:
        raise InputError(f'tolerance: got {tolerance}; expected a number between 0 and 1')
    config = configs.student_form(config)
    source = Path(checkpoint).expanduser()
    model, fitted = _trained_model(config, checkpoint)
    model.to(target)
    forward = RawForward(model)
    inputs = proof_inputs(config, forward, model, images, target)

    folding, exact = _deploy_form(config, forward, model, inputs, backbone_only)
    dtype = next(model.parameters()).dtype
    allowed = prove.OWN_TOLERANCE_EPS * torch.finfo(dtype).eps if tolerance is None else tolerance
    own = prove.compare_models(forward, model, folding.model, inputs, allowed, folding.pairs)

    proofs = [(prove.FLOAT64_TOLERANCE, exact), (allowed, own)]
    report = describe(source, fitted, forward, model, folding, inputs[0][1], backbone_only, proofs)
    meta = pair_meta(fitted.meta, config, folding.text, report['source'], dataset_meta)
    state = {key: value.detach().cpu() for key, value in folding.model.state_dict().items()}
    return Conversion(paths, folding.text, state, meta, report)


def _trained_model(config: Config, checkpoint: PathLike) -> tuple[nn.Module, FittedState]:
    """Build the model of the config, load the weights of the checkpoint and set eval mode."""
    weights = read_weights(checkpoint)
    model = configs.build_model(config)
    if not any(isinstance(module, Reparameterizable) for module in model.modules()):
        raise InputError(
            'config: its model has no MobileOne of this package; set '
            "type='mobileone_mm.MobileOne' in the backbone (weights of mmpretrain's class fit)"
        )
    if weights.form == 'deploy':
        raise InputError(f'{weights.name}: is in deploy form already; there is nothing to fuse')
    if next(unfused_blocks(model), None) is None:
        raise InputError(
            'config: builds the backbone in deploy form (deploy=True) already; give the config that '
            'the checkpoint was trained with'
        )
    fitted = load_weights(model, weights)
    # A statement of its own: the eval() of mmdet's distillers returns None.
    model.eval()
    return model, fitted


def _deploy_form(
    config: Config,
    forward: RawForward,
    model: nn.Module,
    inputs: list[tuple[str, Tensor]],
    backbone_only: bool,
) -> tuple[Folding, list[prove.Difference]]:
    """Build the deploy form with its weights, and prove it in float64."""
    target = next(model.parameters()).device
    device = torch.device('cpu') if target.type == 'mps' else target  # MPS has no float64
    exact = copy.deepcopy(model).to(device).double()
    inputs = [(name, tensor.to(device).double()) for name, tensor in inputs]
    found = Found([], {}) if backbone_only else foldable(exact)
    refused = prove.failing_folds(forward, exact, found.pairs, inputs[0][1])
    pairs = [pair for pair in found.pairs if pair.norm not in refused]
    folding = build_deploy_form(config, model, Found(pairs, {**found.left, **refused}))
    try:
        state = prove.deploy_state(exact, folding.pairs)
    except ValueError as error:
        raise InputError(f'checkpoint: {one_line(error)}') from error
    try:
        folding.model.load_state_dict(state)
    except RuntimeError as error:
        raise ProofError(
            f'the written config builds another model ({one_line(error)[:200]}); nothing was written'
        ) from error
    folding.model.to(target).eval()
    deployed = copy.deepcopy(folding.model).to(device).double()
    deployed.load_state_dict(state)
    return folding, prove.compare_models(
        forward, exact, deployed, inputs, prove.FLOAT64_TOLERANCE, folding.pairs
    )
