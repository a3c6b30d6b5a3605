"""Make mmengine read checkpoints safely: local files, downloads, its own Runner's."""

import logging
from importlib import metadata
from typing import Any

import torch
from mmengine.logging import print_log
from torch import nn

from ..errors import InputError
from ..reparam import Reparameterizable
from .allowed import ALLOWED
from .fit import checkpoint_for
from .names import some_keys, to_classifier
from .published import PREFIX, download, read_any
from .reading import only_globals, read_checkpoint
from .unwrap import CONTAINERS, is_average, is_of_mmengine, read_weights


def for_host(checkpoint: dict[str, Any], filename: str) -> dict[str, Any]:
    """Return the checkpoint as the hosts take it: its weights as ``state_dict``, in their naming.

    This prefers the averaged weights and removes wrapper prefixes. A MobileOne of Apple's, timm's or
    CoreNet's naming gets ``backbone.`` and ``head.fc.``. A checkpoint without a MobileOne keeps its
    keys. ``meta['config']`` is left out: on resuming, mmengine runs that string as a config file,
    which is a program, to compare a number that its Runner does not even write.
    """
    meta = checkpoint.get('meta')
    if isinstance(meta, dict) and 'config' in meta:
        checkpoint = {**checkpoint, 'meta': {k: v for k, v in meta.items() if k != 'config'}}
    try:
        weights = read_weights(checkpoint, filename)
        if weights.scheme is None:
            return checkpoint
        state = weights.state if weights.scheme == 'mmpretrain' else to_classifier(weights.state)
    except InputError:  # no weights, or a model whose backbone has such names
        return checkpoint
    # mmengine's EMAHook resumes from the raw weights in `ema_state_dict`.
    kept = {'ema_state_dict'} if is_of_mmengine(checkpoint) else set()
    left_out = {*CONTAINERS, 'callbacks', 'current_model_state'}
    others = {
        key: value
        for key, value in checkpoint.items()
        if key in kept
        or not (key in left_out or is_average(key) or isinstance(value, torch.Tensor))
    }
    return {'meta': {}, **others, 'state_dict': state}


def load_from_local(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Read a checkpoint for mmengine, whose log calls this reader ``local`` because of its name."""
    return for_host(read_any(filename, map_location), filename)


def allow_mmengine_globals() -> None:
    """Let a plain ``torch.load`` read what mmengine's Runner writes.

    The original mmengine (0.10.7) calls ``torch.load`` without an allow-list, and since torch 2.6
    that refuses the Runner's own checkpoints: test and resume fail. This adds the stand-ins of
    :mod:`mobileone_mm.weights.allowed` to torch's list, and nothing else changes. OneDL's mmengine
    brings a list of its own; it is left alone, because the two would mix.
    """
    try:
        metadata.distribution('onedl-mmengine')
    except metadata.PackageNotFoundError:
        torch.serialization.add_safe_globals(list(ALLOWED))


def use_named_weights() -> None:
    """Let mmengine take ``mobileone_mm://NAME``, and any MobileOne file as ``init_cfg``.

    mmengine's ``PretrainedInit`` would log the keys that do not fit and train from scratch. A model
    with a MobileOne loads through :func:`~mobileone_mm.weights.fit.checkpoint_for` instead.
    """
    from mmengine.model.weight_init import PretrainedInit, update_init_info
    from mmengine.runner.checkpoint import CheckpointLoader

    CheckpointLoader.register_scheme(PREFIX, load_from_local, force=True)
    plain_call = getattr(PretrainedInit.__call__, 'replaced', PretrainedInit.__call__)

    def init_pretrained(self: PretrainedInit, module: nn.Module) -> None:
        if not any(isinstance(part, Reparameterizable) for part in module.modules()):
            plain_call(self, module)
            return
        print_log(f'load model from: {self.checkpoint}', 'current')
        fitted = checkpoint_for(module, self.checkpoint, 'backbone', self.prefix)
        fitted.load(module)
        left = [
            key
            for key in module.state_dict()
            if key not in fitted.loaded and not key.endswith('num_batches_tracked')
        ]
        if left:
            print_log(
                f'{fitted.name}: lacks {len(left)} tensors of the model, or has them in another shape '
                f'({some_keys(left)}); they keep their initial values',
                'current',
                logging.WARNING,
            )
        if hasattr(module, '_params_init_info'):
            update_init_info(module, init_info=self._get_init_info())

    init_pretrained.replaced = plain_call  # type: ignore[attr-defined]
    PretrainedInit.__call__ = init_pretrained


def use_safe_loader() -> None:
    """Make mmengine's checkpoint loader read local and downloaded files by :func:`read_checkpoint`.

    From then on ``Runner.load_checkpoint``, ``Runner.resume``, ``init_cfg`` of type ``Pretrained``
    and the hosts' ``init_*`` functions do so in this process. The original mmengine cannot read the
    Runner's checkpoints with torch 2.6 or later; OneDL's can, with the real ``getattr`` on its
    list, and reads whatever it refuses a second time with ``weights_only=False``, which runs the
    file's code; both read downloads with ``weights_only=False``.
    """
    from mmengine.runner import checkpoint

    def load_url(
        url: str, model_dir: str | None = None, map_location: Any = None, progress: bool = True
    ) -> dict[str, Any]:
        return for_host(read_checkpoint(download(url, model_dir, progress), map_location), url)

    def safe_torch_load(file: Any, map_location: Any = None, **_: Any) -> Any:
        with only_globals(ALLOWED):
            return torch.load(file, map_location=map_location, weights_only=True)

    checkpoint.CheckpointLoader.register_scheme('', load_from_local, force=True)
    use_named_weights()
    checkpoint.load_from_local = load_from_local
    checkpoint.load_url = load_url
    # What OneDL's other schemes (ceph, pavi) call; the original has no such function.
    checkpoint._safe_torch_load = safe_torch_load
