"""Making mmengine read checkpoints safely: local files, downloads, its own Runner's."""

from __future__ import annotations

from collections import OrderedDict
from importlib import metadata
from typing import Any

import torch
from torch import nn

from ..errors import InputError
from ..reparam import Reparameterizable
from .allowed import ALLOWED
from .fit import backbone_weights
from .names import scheme_of, to_classifier
from .published import PREFIX, download, read_any
from .reading import only_globals, read_checkpoint, state_dict_of


def for_host(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The checkpoint with the keys of a host's classifier if it is a foreign MobileOne's.

    A file of Apple's, timm's or CoreNet's naming gets ``backbone.`` and ``head.fc.``, so that
    ``load_from``, ``init_cfg=dict(type='Pretrained', checkpoint=..., prefix='backbone')`` and the
    hosts' ``init_model`` take it as it is. Any other checkpoint comes back unchanged, but for
    ``meta['config']``: on resuming, mmengine runs that text as a config file, which is a program, to
    compare a number that its Runner does not even write.
    """
    meta = checkpoint.get('meta')
    if isinstance(meta, dict) and 'config' in meta:
        checkpoint = {**checkpoint, 'meta': {k: v for k, v in meta.items() if k != 'config'}}
    try:
        state = state_dict_of(checkpoint)
        if scheme_of(state) not in (None, 'mmpretrain'):
            return {'meta': {}, 'state_dict': to_classifier(state)}
    except InputError:  # no weights, or a net that only has a backbone of such names
        pass
    return checkpoint


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
    """Let mmengine's loader take ``mobileone_mm://NAME`` wherever it takes a path."""
    from mmengine.runner.checkpoint import CheckpointLoader

    def load_named(filename: str, map_location: Any = None) -> dict[str, Any]:
        return for_host(read_any(filename, map_location))

    CheckpointLoader.register_scheme(PREFIX, load_named, force=True)


def use_safe_loader() -> None:
    """Make mmengine's checkpoint loader read local and downloaded files by :func:`read_checkpoint`.

    From then on ``Runner.load_checkpoint``, ``Runner.resume``, ``init_cfg`` of type ``Pretrained``
    and the hosts' ``init_*`` functions do so in this process. The original mmengine cannot read the
    Runner's checkpoints with torch 2.6 or later; OneDL's can, with the real ``getattr`` on its
    list, and reads whatever it refuses a second time with ``weights_only=False``, which runs the
    file's code; both read downloads with ``weights_only=False``.

    A MobileOne that is loaded by itself (``init_cfg`` of type ``Pretrained``, with or without
    ``prefix``) takes its part of a classifier's file, and a file of another size or form is an
    InputError; mmengine would log the keys and train from scratch.
    """
    from mmengine.runner import checkpoint

    def load_from_local(filename: str, map_location: Any = None) -> dict[str, Any]:
        return for_host(read_checkpoint(filename, map_location))

    def load_url(
        url: str, model_dir: str | None = None, map_location: Any = None, progress: bool = True
    ) -> dict[str, Any]:
        return for_host(read_checkpoint(download(url, model_dir, progress), map_location))

    def safe_torch_load(file: Any, map_location: Any = None, **_: Any) -> Any:
        with only_globals(ALLOWED):
            return torch.load(file, map_location=map_location, weights_only=True)

    plain_load = getattr(checkpoint.load_state_dict, 'wrapped', checkpoint.load_state_dict)

    def load_state_dict(
        module: nn.Module, state_dict: Any, strict: bool = False, logger: Any = None
    ) -> None:
        if isinstance(getattr(module, 'stage0', None), Reparameterizable):
            state_dict = OrderedDict(backbone_weights(module, state_dict))
        plain_load(module, state_dict, strict, logger)

    load_state_dict.wrapped = plain_load  # type: ignore[attr-defined]
    checkpoint.load_state_dict = load_state_dict
    checkpoint.CheckpointLoader.register_scheme('', load_from_local, force=True)
    use_named_weights()
    checkpoint.load_from_local = load_from_local
    checkpoint.load_url = load_url
    # What OneDL's other schemes (ceph, pavi) call; the original has no such function.
    checkpoint._safe_torch_load = safe_torch_load
