"""One file means one network: every wrapping, naming and form gives the same outputs in every loader.

Weights and BN statistics are random. The outputs on one image are compared in float64 with those of
the source network. A decoy, another random network, is wherever a file holds a second set of
weights; a loader that takes it, or leaves the model at its random start, is far outside the tolerance.
"""

import copy
import itertools
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch import Tensor, nn

from helpers import ROOT, randomize_
from mobileone_mm import convert_to_deploy, load_weights
from mobileone_mm.apis.test import evaluate
from mobileone_mm.apis.train import train
from mobileone_mm.config.read import load_config
from mobileone_mm.inference.model import init_model
from mobileone_mm.reparam import reparameterize_model
from mobileone_mm.weights.convert import convert_weights
from mobileone_mm.weights.names import SCHEMES, to_scheme

State = dict[str, Tensor]
TOLERANCE = 1e-4  # of float32 kernels, relative to the scale of the output
FORMS = ('train', 'deploy')


def below(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


def backbone_below(prefix: str, state: State) -> State:
    """The backbone below a prefix, the classifier as it is."""
    heads = tuple(f'{scheme.classifier}.' for scheme in SCHEMES.values())
    return {
        key if key.startswith(heads) else prefix + key.removeprefix('backbone.'): value
        for key, value in state.items()
    }


# By name: the weights and the decoy, both in one naming -> what the file holds.
WRAPPINGS: dict[str, Callable[[State, State], dict[str, Any]]] = {
    'none': lambda s, d: s,
    'module.': lambda s, d: below('module.', s),
    '_orig_mod.': lambda s, d: below('_orig_mod.', s),
    'model.': lambda s, d: below('model.', s),
    'backbone.': lambda s, d: backbone_below('backbone.', s),
    'encoder.': lambda s, d: backbone_below('encoder.', s),
    'state_dict': lambda s, d: {'epoch': 3, 'state_dict': s},
    'model': lambda s, d: {'epoch': 3, 'model': s},
    'state_dict + state_dict_ema': lambda s, d: {'state_dict': d, 'state_dict_ema': s},
    'model + model_ema': lambda s, d: {'model': d, 'model_ema': s, 'optimizer': {}},
    'state_dict + ema_state_dict': lambda s, d: {'state_dict': d, 'ema_state_dict': s},
    "mmengine's EMAHook": lambda s, d: {
        'meta': {},
        'message_hub': {},
        'state_dict': s,
        'ema_state_dict': {**below('module.', d), 'steps': torch.tensor(3)},
    },
    "mmengine's averaged model": lambda s, d: {
        'state_dict': {**below('module.', s), 'steps': torch.tensor(3)}
    },
    "Lightning's WeightAveraging": lambda s, d: {
        'state_dict': s,
        'current_model_state': d,
        'averaging_state': {'n_averaged': torch.tensor(3)},
    },
    'callbacks of Lightning': lambda s, d: {
        'state_dict': d,
        'callbacks': {'EMACallback': {'ema_state_dict': s, 'decay': 0.99}},
    },
    'state_dict of _orig_mod.': lambda s, d: {'state_dict': below('_orig_mod.', s)},
    'state_dict of model.': lambda s, d: {'state_dict': below('model.', s)},
    'state_dict of module._orig_mod.': lambda s, d: {'state_dict': below('module._orig_mod.', s)},
    'model in state_dict': lambda s, d: {'state_dict': {'model': below('module.', s)}},
    'module in ema': lambda s, d: {'model': below('module.', d), 'ema': {'module': s}},
    'backbone._orig_mod.': lambda s, d: {'state_dict': backbone_below('backbone._orig_mod.', s)},
    'model.encoder.': lambda s, d: {'state_dict': backbone_below('model.encoder.', s)},
}


def model_config() -> ConfigDict:
    """That of `tiny_config('cls')`, which the tools take."""
    model = Config.fromfile(ROOT / 'configs' / '_base_' / 'models' / 'mobileone.py').model
    model.backbone.arch = dict(num_blocks=(1, 2, 1, 1), width_factor=(0.25, 0.125, 0.0625, 0.0625))
    model.head.in_channels = 32
    return model


@cache
def built(form: str, seed: int | None = None) -> nn.Module:
    """A classifier; with random weights and statistics if a seed is given."""
    from mmpretrain.registry import MODELS

    settings = model_config()
    settings.backbone.deploy = form == 'deploy' and seed is None
    model = MODELS.build(settings)
    if seed is not None:
        model = randomize_(model, seed=seed).eval()
        model = reparameterize_model(model) if form == 'deploy' else model
    return model


def new(form: str = 'train') -> nn.Module:
    return copy.deepcopy(built(form))


def loaded(model: nn.Module, file: Path) -> nn.Module:
    load_weights(model, file)
    return model


def initialised(model: nn.Module, file: Path, **settings: str) -> nn.Module:
    model.init_cfg = dict(type='Pretrained', checkpoint=str(file), **settings)
    model.init_weights()
    return model


def model_of(config: Path, file: Path) -> nn.Module:
    cfg = load_config(config)
    DefaultScope.get_instance('matrix', scope_name=cfg.default_scope)
    return init_model(cfg, file)[0]


class Doors:
    """Each method loads a file as one tool or function of the package does, and returns the model."""

    def __init__(self, config: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.config, self.folder = config, folder
        self.loaded: list[nn.Module] = []

        def load_only(runner: Runner) -> None:
            runner.call_hook('before_run')
            runner.load_or_resume()
            self.loaded.append(runner.model)

        def test_only(runner: Runner) -> dict[str, float]:
            load_only(runner)
            runner.call_hook('before_test_epoch')  # EMAHook exchanges raw and averaged weights
            return {}

        monkeypatch.setattr(Runner, 'test', test_only)
        monkeypatch.setattr(Runner, 'train', load_only)
        monkeypatch.setattr('mobileone_mm.apis.test.write_metrics', lambda *_: None)

    def load_weights(self, file: Path) -> nn.Module:
        return loaded(new(), file)

    def load_weights_deploy(self, file: Path) -> nn.Module:
        return loaded(new('deploy'), file)

    def load_weights_backbone(self, file: Path) -> nn.Module:
        return loaded(new().backbone, file)

    def init_cfg(self, file: Path) -> nn.Module:
        return initialised(new(), file)

    def init_cfg_backbone(self, file: Path) -> nn.Module:
        return initialised(new().backbone, file)

    def init_cfg_prefix(self, file: Path) -> nn.Module:
        return initialised(new().backbone, file, prefix='backbone')

    def test(self, file: Path) -> nn.Module:
        evaluate(self.config, file, str(self.folder / 'test'), device='cpu')
        return self.loaded[-1]

    def load_from(self, file: Path) -> nn.Module:
        options, folder = dict(load_from=str(file)), str(self.folder / 'train')
        train(self.config, options, device='cpu', work_dir=folder)
        return self.loaded[-1]

    def predict(self, file: Path) -> nn.Module:
        return model_of(self.config, file)

    def switch_to_deploy(self, file: Path) -> nn.Module:
        out = self.folder / 'out.pth'
        convert_to_deploy(self.config, file, out)
        return model_of(out.with_suffix('.py'), out)

    def convert_weights(self, file: Path) -> nn.Module:
        convert_weights(file, self.folder / 'named.pth', 'mmpretrain')
        return self.load_weights(self.folder / 'named.pth')

    def teacher(self, file: Path) -> nn.Module:
        from mobileone_mm.distill.normalization import Normalization
        from mobileone_mm.distill.teachers import Teacher

        spec = dict(model=model_config(), checkpoint=str(file))
        return Teacher(spec, Normalization(), 1000).model


DOORS = [name for name in vars(Doors) if not name.startswith('_')]
# Loaders that execute a config and check its data take more than a second; by default each of them
# gets some of the wrappings, in the hosts' own naming.
SLOW_DOORS = {
    'test': (
        *('state_dict of _orig_mod.', 'state_dict of model.', 'encoder.'),
        *('state_dict + state_dict_ema', "mmengine's EMAHook"),
    ),
    'load_from': (
        *('state_dict of _orig_mod.', 'backbone.', 'model + model_ema', 'module in ema'),
        'callbacks of Lightning',
    ),
    'switch_to_deploy': (
        *('model.', 'encoder.', 'state_dict + state_dict_ema', 'model in state_dict'),
    ),
}


@pytest.fixture
def doors(tiny_config, fresh_mmengine, safe_loader, tmp_path, monkeypatch) -> Doors:
    return Doors(tiny_config('cls'), tmp_path, monkeypatch)


@torch.no_grad()
def outputs(model: nn.Module) -> list[Tensor]:
    """Features, and logits of a whole classifier, of one image in float64."""
    model = copy.deepcopy(model).double().eval()
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)).double()
    if not hasattr(model, 'backbone'):
        return list(model(image))
    return [*model.backbone(image), model(image, mode='tensor')]


@cache
def outputs_of(seed: int) -> list[Tensor]:
    return outputs(built('train', seed))


def default_mix() -> list[tuple[str, str, str, str]]:
    """Combine every wrapping with every second fast loader; forms and namings take turns."""
    schemes = list(SCHEMES)
    return [
        (
            wrapping,
            FORMS[(w // 2 + d // 2) % 2 if door not in SLOW_DOORS else 0],
            'mmpretrain' if door in SLOW_DOORS else schemes[(w // 4 + d // 4) % len(schemes)],
            door,
        )
        for w, wrapping in enumerate(WRAPPINGS)
        for d, door in enumerate(DOORS)
        if wrapping in SLOW_DOORS.get(door, () if (w + d) % 2 else WRAPPINGS)
    ]


def check(doors: Doors, wrapping: str, form: str, scheme: str, door: str) -> None:
    states = [to_scheme(built(form, seed).state_dict(), scheme) for seed in (1, 2)]
    file = doors.folder / 'file.pth'
    torch.save(WRAPPINGS[wrapping](*states), file)
    found = outputs(getattr(doors, door)(file))
    expected, wrong = (outputs_of(seed)[: len(found)] for seed in (1, 2))
    for one, other, far in zip(found, expected, wrong, strict=True):
        scale = other.abs().max()
        assert (one - other).abs().max() <= TOLERANCE * scale
        assert (far - other).abs().max() > 100 * TOLERANCE * scale


@pytest.mark.parametrize(('wrapping', 'form', 'scheme', 'door'), default_mix())
def test_one_file_is_one_network(doors, wrapping, form, scheme, door):
    check(doors, wrapping, form, scheme, door)


@pytest.mark.slow
@pytest.mark.parametrize('door', DOORS)
@pytest.mark.parametrize('wrapping', WRAPPINGS)
def test_every_combination(doors, wrapping, door):
    forms = FORMS[:1] if door == 'switch_to_deploy' else FORMS
    for form, scheme in itertools.product(forms, SCHEMES):
        check(doors, wrapping, form, scheme, door)
