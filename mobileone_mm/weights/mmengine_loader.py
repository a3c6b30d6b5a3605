"""Make mmengine read checkpoints safely: local files, downloads, its own Runner's.

The import lets the hosts' own scripts read the Runner's checkpoints, and weights by name.
``registry.py`` names the module among the locations of the models: a model is always built before its
checkpoint is read.
"""

import logging
from importlib import metadata
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model.weight_init import PretrainedInit, update_init_info
from mmengine.runner import checkpoint
from torch import nn

from ..errors import InputError
from ..reparam import Reparameterizable
from .allowed import ALLOWED
from .fit import checkpoint_for
from .names import some_keys, to_classifier
from .published import PREFIX, local_file
from .reading import read_checkpoint, torch_load
from .unwrap import CONTAINERS, is_average, is_of_mmengine, read_weights


def for_host(content: dict[str, Any], filename: str) -> dict[str, Any]:
    """Return the checkpoint as the hosts take it: its weights as ``state_dict``, in their naming.

    This prefers the averaged weights and removes wrapper prefixes. A MobileOne of Apple's, timm's or
    CoreNet's naming gets ``backbone.`` and ``head.fc.``. A checkpoint without a MobileOne keeps its
    keys. ``meta['config']`` is left out: on resuming, mmengine runs that string as a config file,
    which is a program, to compare a number that its Runner does not even write.
    """
    meta = content.get('meta')
    if isinstance(meta, dict) and 'config' in meta:
        content = {**content, 'meta': {k: v for k, v in meta.items() if k != 'config'}}
    try:
        weights = read_weights(content, filename)
        if weights.scheme is None:
            return content
        state = weights.state if weights.scheme == 'mmpretrain' else to_classifier(weights.state)
    except InputError:  # no weights, or a model whose backbone has such names
        return content
    left_out = {*CONTAINERS, 'callbacks', 'current_model_state', *filter(is_average, content)}
    if is_of_mmengine(content):  # its EMAHook resumes from the raw weights there
        left_out.remove('ema_state_dict')
    others = {
        key: value
        for key, value in content.items()
        if key not in left_out and not isinstance(value, torch.Tensor)
    }
    return {'meta': {}, **others, 'state_dict': state}


def load_from_local(filename: str, map_location: Any = None, **_: Any) -> dict[str, Any]:
    """Read a checkpoint for mmengine, whose log calls this reader ``local`` because of its name."""
    return for_host(read_checkpoint(local_file(filename), map_location), filename)


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


def init_pretrained(self: PretrainedInit, module: nn.Module) -> None:
    """Load any MobileOne file in place of ``PretrainedInit.__call__``.

    mmengine's would log the keys that do not fit and train from scratch; it still serves other models.
    """
    if not any(isinstance(part, Reparameterizable) for part in module.modules()):
        _plain_init(self, module)
        return
    print_log(f'load model from: {self.checkpoint}', 'current')
    fitted = checkpoint_for(module, self.checkpoint, 'backbone', self.prefix)
    fitted.load(module)
    rest = [key for key in module.state_dict() if key not in fitted.loaded]
    left = [key for key in rest if not key.endswith('num_batches_tracked')]
    if left:
        print_log(
            f'{fitted.name}: lacks {len(left)} tensors of the model, or has them in another shape '
            f'({some_keys(left)}); they keep their initial values',
            'current',
            logging.WARNING,
        )
    if hasattr(module, '_params_init_info'):
        update_init_info(module, init_info=self._get_init_info())


def use_safe_loader() -> None:
    """Make mmengine's checkpoint loader read local and downloaded files by :func:`load_from_local`.

    From then on ``Runner.load_checkpoint``, ``Runner.resume``, ``init_cfg`` of type ``Pretrained``
    and the hosts' ``init_*`` functions do so in this process. The original mmengine cannot read the
    Runner's checkpoints with torch 2.6 or later; OneDL's can, with the real ``getattr`` on its
    list, and reads whatever it refuses a second time with ``weights_only=False``, which runs the
    file's code; both read downloads with ``weights_only=False``.
    """
    checkpoint.CheckpointLoader.register_scheme('', load_from_local, force=True)
    checkpoint.load_from_local = checkpoint.load_url = load_from_local
    # What OneDL's other schemes (ceph, pavi) call; the original has no such function.
    checkpoint._safe_torch_load = torch_load


_plain_init, PretrainedInit.__call__ = PretrainedInit.__call__, init_pretrained
checkpoint.CheckpointLoader.register_scheme(PREFIX, load_from_local, force=True)
allow_mmengine_globals()
