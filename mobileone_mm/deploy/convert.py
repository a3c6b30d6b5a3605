"""From config and checkpoint of a trained model to the files of its deploy form."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor, nn

from ..errors import InputError
from ..reparam import Reparameterizable, reparameterize_model
from ..reparam.surgery import unfused_blocks
from ..weights.keys import form_of
from ..weights.loading import check_matches, load_weights
from ..weights.reading import read_checkpoint, state_dict_of
from ..weights.writing import atomic_write_all, torch_bytes
from . import config as configs
from .proof import RawForward, compare_models, own_tolerance, prove_algebra
from .report import describe, describe_proof
from .samples import picture_inputs, second_size, structured_input, test_size

SUFFIXES = ('.pth', '.pt')


def convert_to_deploy(
    config: str | os.PathLike[str],
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str],
    cfg_options: Mapping[str, Any] | None = None,
    images: Sequence[str | os.PathLike[str]] = (),
    tolerance: float | None = None,
    device: str = 'cpu',
) -> dict[str, Any]:
    """Fuse the MobileOne of a trained classifier, detector or segmentor, prove it, write the result.

    Three files appear together or not at all: the checkpoint ``out`` (weights, classes, palette), and
    beside it, with the same name, the config (``.py``) and a report (``.json``). The raw outputs of
    the original are compared with those of the model that the *written* config and weights make, at
    the test size of the config and at a second, non-square one, in the model's dtype, and with the
    fused original in float64.

    A checkpoint of mmengine's Runner with EMA holds the averaged weights as ``state_dict``; these are
    converted. Optimizer, schedulers, message hub and raw weights are left out.

    Args:
        config: The config that the model was trained by.
        checkpoint: Its weights in training form, of any known naming.
        out: The checkpoint to write, a ``.pth`` or ``.pt`` file.
        cfg_options: Overrides of the config, by dotted key.
        images: Pictures to compare on, besides structured random input.
        tolerance: Greatest difference in the model's dtype, relative to the scale of the output; 1000
            times the dtype's machine epsilon if not given.
        device: Where the comparison runs.

    Returns:
        The report, as it is written.

    Raises:
        InputError: Config, checkpoint or pictures cannot be used, or ``out`` cannot be written.
        ProofError: The two forms differ by more than the tolerance; nothing is written.
    """
    paths = _output_paths(out, [config, checkpoint, *images])
    target = _device(device)
    if tolerance is not None and not 0 < tolerance < 1:
        raise InputError(f'tolerance: got {tolerance}; a number between 0 and 1 is needed')
    cfg = configs.load_config(config, cfg_options)
    content = read_checkpoint(checkpoint)
    model = _trained_model(cfg, content, str(checkpoint)).to(target)
    inputs = _inputs(cfg, model, images, target)

    float64 = prove_algebra(model, inputs) if target.type != 'mps' else []
    fused = reparameterize_model(model)
    state = {key: value.detach().cpu().clone() for key, value in fused.state_dict().items()}
    text = configs.deploy_config_text(cfg, config, cfg_options)
    deployed = _model_of_pair(text, state).to(target)
    dtype = next(model.parameters()).dtype
    allowed = own_tolerance(dtype) if tolerance is None else tolerance
    own = compare_models(model, deployed, inputs, dtype, allowed)

    report = describe(Path(checkpoint).expanduser(), content, model, deployed, inputs[0][1])
    report['proof'] = describe_proof(float64, own, dtype, allowed, target)
    report['absolute_paths_in_config'] = configs.absolute_paths(text)
    data = torch_bytes(dict(meta=_meta(content, text, report), state_dict=state))
    report['checkpoint_bytes'] = {
        'before': Path(checkpoint).expanduser().stat().st_size,
        'after': len(data),
    }
    written = json.dumps(report, indent=2) + '\n'
    atomic_write_all(
        {
            paths['checkpoint']: lambda file: file.write(data),
            paths['config']: lambda file: file.write(text.encode()),
            paths['report']: lambda file: file.write(written.encode()),
        }
    )
    return report


def _output_paths(
    out: str | os.PathLike[str], sources: Sequence[str | os.PathLike[str]]
) -> dict[str, Path]:
    path = Path(os.path.expanduser(out))
    if path.suffix not in SUFFIXES:
        raise InputError(
            f"out: got '{out}'; a file name that ends in {' or '.join(SUFFIXES)} is needed, config and "
            'report are written beside it'
        )
    paths = {
        'checkpoint': path,
        'config': path.with_suffix('.py'),
        'report': path.with_suffix('.json'),
    }
    for target in paths.values():
        for source in map(Path, sources):
            # os.path's, which find no file under a name that cannot be
            same = os.path.exists(target) and os.path.exists(source) and target.samefile(source)
            if same or os.path.realpath(target) == os.path.realpath(source.expanduser()):
                raise InputError(
                    f"out: '{target}' would overwrite the input '{source}'; choose another name"
                )
        if os.path.isdir(target):
            raise InputError(f"out: '{target}' is a folder; choose another name")
    return paths


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, ValueError) as error:
        if str(name).startswith('cuda') and not torch.cuda.is_available():
            raise InputError(f"device: got '{name}', but torch finds no GPU; use cpu") from error
        raise InputError(f"device: got '{name}'; torch cannot use it, try cpu") from error
    return device


def _trained_model(cfg: Config, content: Mapping[str, Any], source: str) -> nn.Module:
    """The model of the config with the weights of the checkpoint, in eval mode."""
    model = configs.build_model(cfg)
    if not any(isinstance(module, Reparameterizable) for module in model.modules()):
        raise InputError(
            'config: its model has no MobileOne of this package; set '
            "type='mobileone_mm.MobileOne' in the backbone (weights of mmpretrain's class fit)"
        )
    state = state_dict_of(content, f"checkpoint '{source}'")
    if form_of(state) == 'deploy':
        raise InputError(
            f"checkpoint '{source}': is in deploy form already; there is nothing to fuse"
        )
    if next(unfused_blocks(model), None) is None:
        raise InputError(
            'config: builds the backbone in deploy form (deploy=True) already; give the config that '
            'the checkpoint was trained by'
        )
    check_matches(model, content, source)
    load_weights(model, content)
    return model.eval()


def _model_of_pair(text: str, state: Mapping[str, Tensor]) -> nn.Module:
    """The model that the pair makes, exactly as a user of the files would build and load it."""
    model = configs.build_model(configs.parse_config_text(text)).eval()
    dtypes = {value.dtype for value in state.values() if value.is_floating_point()}
    if len(dtypes) == 1:
        model = model.to(dtypes.pop())
    load_weights(model, state)
    return model


def _inputs(
    cfg: Config,
    model: nn.Module,
    images: Sequence[str | os.PathLike[str]],
    device: torch.device,
) -> list[tuple[str, Tensor]]:
    size = test_size(cfg)
    channels = next(unfused_blocks(model))[1].kernel_shape[1]
    inputs = [
        (f'random input of {height} x {width}', structured_input((height, width), channels))
        for height, width in (size, second_size(size))
    ]
    inputs += picture_inputs(model, images, size)
    inputs = [(name, tensor.to(device)) for name, tensor in inputs]
    with torch.no_grad():
        try:
            RawForward(model)(model, inputs[0][1])
        except Exception as error:  # a host's forward raises anything
            reason = ' '.join(str(error).split())[:200]
            raise InputError(
                f'config: its model does not run on {inputs[0][0]} ({type(error).__name__}: {reason})'
            ) from error
    return inputs


def _meta(content: Mapping[str, Any], text: str, report: Mapping[str, Any]) -> dict[str, Any]:
    """What the hosts' ``init_*`` functions look up, and where the weights come from."""
    meta = {
        'cfg': text,
        'form': 'deploy',
        'mobileone_mm_version': report['mobileone_mm'],
        'source_file': report['source']['file'],
        'source_sha256': report['source']['sha256'],
    }
    given = content.get('meta')
    given = given if isinstance(given, Mapping) else {}
    info = given.get('dataset_meta')
    if not isinstance(info, Mapping):  # mmcv 1 wrote CLASSES and PALETTE beside the rest
        info = {key.lower(): given[key] for key in ('CLASSES', 'PALETTE') if key in given}
    if info:
        meta['dataset_meta'] = {str(key): _plain(value) for key, value in info.items()}
    return meta


def _plain(value: Any) -> Any:
    """Lists, tuples, numbers and texts, which any reader takes, instead of NumPy's."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(item) for item in value)
    return value.tolist() if hasattr(value, 'tolist') else value
