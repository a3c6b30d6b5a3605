"""From config and checkpoint of a trained model to the files of its deploy form."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor, nn

from ..errors import InputError
from ..reparam import Reparameterizable
from ..reparam.surgery import unfused_blocks
from ..weights.fit import FittedState, checkpoint_for
from ..weights.unwrap import read_weights
from . import config as configs
from .exact import give_back
from .fold import FoldPlan, plan_folding
from .forward import RawForward
from .pair import Conversion, output_paths, pair_meta, sha256_of
from .prove import Difference, compare_models, own_tolerance, prove_algebra
from .report import describe, describe_folding, describe_proof
from .samples import image_inputs, round_up, second_sizes, structured_input, test_size
from .units import deploy_state, fill

Path_ = str | os.PathLike[str]


def convert_to_deploy(
    config: Path_,
    checkpoint: Path_,
    out: Path_,
    cfg_options: Mapping[str, Any] | None = None,
    images: Sequence[Path_] = (),
    tolerance: float | None = None,
    device: str = 'cpu',
    backbone_only: bool = False,
) -> dict[str, Any]:
    """Fuse a trained classifier, detector or segmentor, prove it, write the result.

    Every MobileOne of the model is fused, wherever it stands, and every BN of necks and heads that
    follows a convolution is folded into it, as far as a config can say so to an unmodified host; the
    report lists what stays and why.

    Three files appear together or not at all: the checkpoint ``out`` (weights, classes, palette), and
    beside it, with the same name, the config (``.py``) and a report (``.json``). The raw outputs of
    the original are compared with those of the model that the *written* config and weights make, at
    the test size of the config and at a second, non-square one, in the model's dtype and in float64.

    A checkpoint of mmengine's Runner with EMA holds the averaged weights as ``state_dict``; these are
    converted. Optimizer, schedulers, message hub and raw weights are left out.

    Args:
        config: The config that the model was trained by.
        checkpoint: Its weights in training form, of any known naming.
        out: The checkpoint to write, a ``.pth``, ``.pt`` or ``.safetensors`` file; the last holds
            weights only, and classes and the like stand in the report.
        cfg_options: Overrides of the config, by dotted key.
        images: Images to compare on, besides structured random input.
        tolerance: Greatest difference in the model's dtype, relative to the scale of the output; 1000
            times the dtype's machine epsilon if not given.
        device: Where the comparison runs.
        backbone_only: Leave necks and heads as they are.

    Returns:
        The report, as it is written.

    Raises:
        InputError: Config, checkpoint or images cannot be used, or ``out`` cannot be written.
        ProofError: The two forms differ by more than the tolerance; nothing is written.
    """
    conversion = prepare_conversion(
        config, checkpoint, out, cfg_options, images, tolerance, device, backbone_only
    )
    conversion.write()
    return conversion.report


def prepare_conversion(
    config: Path_,
    checkpoint: Path_,
    out: Path_,
    cfg_options: Mapping[str, Any] | None = None,
    images: Sequence[Path_] = (),
    tolerance: float | None = None,
    device: str = 'cpu',
    backbone_only: bool = False,
    dataset_meta: Mapping[str, Any] | None = None,
) -> Conversion:
    """What :func:`convert_to_deploy` does, up to but without the writing.

    Args:
        dataset_meta: Classes and palette, if the checkpoint has none; the other arguments are those
            of :func:`convert_to_deploy`.
    """
    paths = output_paths(out, [config, checkpoint, *images])
    target = _device(device)
    if tolerance is not None and not 0 < tolerance < 1:
        raise InputError(f'tolerance: got {tolerance}; a number between 0 and 1 is needed')
    cfg = configs.load_config(config, cfg_options)
    source = Path(checkpoint).expanduser()
    model, fitted = _trained_model(cfg, checkpoint)
    give_back()
    model.to(target)
    inputs = _inputs(cfg, model, images, target)

    plan, text, deployed, float64 = _deployed(
        cfg, config, cfg_options, model, inputs, backbone_only
    )
    dtype = next(model.parameters()).dtype
    allowed = own_tolerance(dtype) if tolerance is None else tolerance
    own = compare_models(model, deployed, inputs, dtype, allowed, plan.pairs)

    report = describe(source, sha256_of(source), fitted, model, deployed, inputs[0][1])
    report['folded'] = describe_folding(plan, backbone_only)
    report['proof'] = describe_proof(float64, own, dtype, allowed, target)
    report['absolute_paths_in_config'] = configs.absolute_paths(text)
    report['checkpoint_bytes'] = {'before': source.stat().st_size}
    meta = pair_meta(fitted.meta, cfg, text, report['source'], dataset_meta)
    state = {key: value.detach().cpu() for key, value in deployed.state_dict().items()}
    return Conversion(paths, text, state, meta, report)


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(1, device=device).item()  # meta has no numbers
    except (RuntimeError, AssertionError, ValueError) as error:
        if str(name).startswith('cuda') and not torch.cuda.is_available():
            raise InputError(f"device: got '{name}', but torch finds no GPU; use cpu") from error
        raise InputError(f"device: got '{name}'; torch cannot use it, try cpu") from error
    return device


def _trained_model(cfg: Config, checkpoint: Path_) -> tuple[nn.Module, FittedState]:
    """The model of the config with the weights of the checkpoint, in eval mode.

    Returns:
        The model, and what was found in the checkpoint.
    """
    weights = read_weights(checkpoint)
    model = configs.build_model(cfg)
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
            'the checkpoint was trained by'
        )
    fitted = checkpoint_for(model, weights)
    fitted.load(model)
    model.eval()  # mmdet's distillers return nothing from it
    # The weights are the model's now; keeping the file's as well would double the memory.
    return model, replace(fitted, state={})


def _deployed(
    cfg: Config,
    path: Path_,
    options: Mapping[str, Any] | None,
    model: nn.Module,
    inputs: list[tuple[str, Tensor]],
    backbone_only: bool,
) -> tuple[FoldPlan, str, nn.Module, list[Difference]]:
    """Plan, config text and model of the deploy form, proved in float64.

    A fold that looks right and is not (a host's class may use its layers in another way than its
    names say) is given up, and the rest is planned again.
    """
    kept: dict[str, str] = {}
    while True:
        try:
            plan = FoldPlan() if backbone_only else plan_folding(cfg, model, kept)
            text = configs.deploy_config_text(cfg, path, options, plan.without)
            # Exactly as a user of the files would build it.
            deployed = configs.build_model(configs.parse_config_text(text))
            deployed.eval()
            fill(deployed, deploy_state(model, plan.pairs))
            give_back()
        except InputError:
            raise
        except ValueError as error:
            raise InputError(f'checkpoint: {error}') from error
        deployed.to(inputs[0][1].device)
        if inputs[0][1].device.type == 'mps':  # has no float64
            return plan, text, deployed, []
        differences, refused = prove_algebra(model, deployed, plan.pairs, inputs)
        if not refused:
            return plan, text, deployed, differences
        kept.update(refused)


def _inputs(
    cfg: Config,
    model: nn.Module,
    images: Sequence[Path_],
    device: torch.device,
) -> list[tuple[str, Tensor]]:
    # The preprocessor pads its batches; necks that join upsampled maps rely on that.
    divisor = getattr(getattr(model, 'data_preprocessor', None), 'pad_size_divisor', 1) or 1
    size = round_up(test_size(cfg), divisor)
    channels = next(unfused_blocks(model))[1].kernel_shape[1]
    forward = RawForward(model)
    first = _random_input(size, channels, device)
    error = _does_not_run(forward, model, first)
    if error:
        raise InputError(
            f'config: its model does not run on {first[0]}, which its test pipeline makes of an image '
            f'of 3 : 4 ({error}); does it take such images, and does it find anything (weights, '
            'test_cfg)?'
        )
    inputs = [first]
    for other in second_sizes(size):  # some heads need images of a certain size
        second = _random_input(round_up(other, divisor), channels, device)
        if not _does_not_run(forward, model, second):
            inputs.append(second)
            break
    for name, image in image_inputs(model, images, size):
        if image.shape[1] != channels:
            raise InputError(
                f"images: '{name}' has {image.shape[1]} channels after the preprocessor, the model "
                f'takes {channels}; leave --images out'
            )
        inputs.append((name, image))
    return [(name, tensor.to(device)) for name, tensor in inputs]


def _random_input(size: tuple[int, int], channels: int, device: torch.device) -> tuple[str, Tensor]:
    name = f'random input of {size[0]} x {size[1]}'
    return name, structured_input(size, channels).to(device)


@torch.no_grad()
def _does_not_run(forward: RawForward, model: nn.Module, given: tuple[str, Tensor]) -> str | None:
    """Why the model does not run on an input; None if it does."""
    try:
        forward(model, given[1])
    except Exception as error:  # a host's forward raises anything
        return f'{type(error).__name__}: {" ".join(str(error).split())[:200]}'
    return None
