"""A classifier of a few thousand parameters, its data and its Runner, and runs of tiny nets."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner as MMEngineRunner
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.utils.data import Dataset

from helpers import randomize_
from mobileone_mm import MobileOne

TINY = dict(
    num_blocks=[1, 2, 1, 1],
    width_factor=[0.125] * 4,
    num_conv_branches=[2, 1, 1, 1],
    num_se_blocks=[0, 0, 1, 0],
)
CLASSES = 4
EMA = dict(type='EMAHook', momentum=0.3, update_buffers=True)
#: Equal bit by bit: tensors, and dicts and lists of them.
assert_same = partial(torch.testing.assert_close, rtol=0, atol=0)


def log_of(work_dir: Path) -> str:
    """The log of all runs in a work dir."""
    return ''.join(path.read_text() for path in sorted(work_dir.glob('*/*.log')))


def losses_of(checkpoint: dict) -> np.ndarray:
    """The loss of each iteration."""
    return checkpoint['message_hub']['log_scalars']['train/loss'].data[0]


def metrics_of(tool: Callable, config: Path, checkpoint: Path, folder: Path, *options: str) -> dict:
    """The metrics of a test, which writes into a folder."""
    out = folder / 'metrics.json'
    run = ('test', config, checkpoint, '--work-dir', folder / 'test', '--out', out)
    assert tool(*run, *options) == 0
    return json.loads(out.read_text())


def rates_of(model: nn.Module, wrapper: Any) -> dict[str, tuple[float, float]]:
    """Rate and decay of each parameter."""
    groups = wrapper.optimizer.param_groups
    found = {
        id(p): (group['lr'], group['weight_decay']) for group in groups for p in group['params']
    }
    return {name: found[id(parameter)] for name, parameter in model.named_parameters()}


class Do(Hook):
    """Calls a function with the Runner at one moment of a run."""

    def __init__(self, when: str, function: Callable, priority: str = 'NORMAL') -> None:
        self.priority = priority
        setattr(self, when, lambda runner, *_, **__: function(runner))


class Images(Dataset):
    """Images of noise around a colour that tells the class."""

    metainfo = dict(classes=tuple('abcd'))

    def __init__(self, number: int = 12, side: int = 32) -> None:
        self.number, self.side = number, side

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(index)
        colour = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]])[index % CLASSES]
        noise = 0.3 * torch.randn(3, self.side, self.side, generator=generator)
        return dict(inputs=colour[:, None, None] + noise, label=torch.tensor(index % CLASSES))


class Classifier(BaseModel):
    """Logits by a linear layer; training and, by a little, evaluation draw random numbers."""

    def __init__(self, **backbone: Any) -> None:
        super().__init__()
        self.backbone = MobileOne(TINY, **backbone)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(self.backbone.out_channels[-1], CLASSES)

    def forward(self, inputs: Tensor, label: Tensor, mode: str = 'tensor') -> Any:
        logits = self.head(self.dropout(self.backbone(inputs)[-1].mean((2, 3))))
        if mode == 'loss':
            return dict(loss=nn.functional.cross_entropy(logits, label))
        if mode == 'predict':
            logits = logits + 1e-7 * torch.rand_like(logits)
            return [BaseDataElement(logits=a, label=b) for a, b in zip(logits, label, strict=True)]
        return logits


class Accuracy(BaseMetric):
    """Percent right, and the mean logit, which shows the smallest change of the net."""

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results += [
            (float(s['logits'].argmax() == s['label']), s['logits'].mean().item())
            for s in data_samples
        ]

    def compute_metrics(self, results: list) -> dict[str, Any]:
        right, logit = (sum(values) / len(results) for values in zip(*results, strict=True))
        return dict(top1=100 * right, logit=logit)


def loader(shuffle: bool) -> dict:
    return dict(
        dataset=Images(),
        batch_size=4,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=shuffle),
        collate_fn=dict(type='default_collate'),
    )


@pytest.fixture
def make_runner(tmp_path: Path, fresh_mmengine: None) -> Callable[..., Any]:
    """Make a Runner of the tiny classifier, by default mmengine's own."""
    count = 0

    def make(
        *hooks: Any,
        model: nn.Module | None = None,
        name: str = 'run',
        epochs: int = 2,
        kind: type = MMEngineRunner,
        checkpoint: dict | None = None,
        **settings: Any,
    ) -> Any:
        nonlocal count
        count += 1
        torch.manual_seed(0)
        settings.setdefault('val_cfg', {})
        settings.setdefault('optim_wrapper', dict(optimizer=dict(type='SGD', lr=0.05)))
        return kind(
            randomize_(Classifier()) if model is None else model,
            str(tmp_path / name),
            train_dataloader=loader(shuffle=True),
            train_cfg=dict(by_epoch=True, max_epochs=epochs),
            val_dataloader=loader(shuffle=False),
            val_evaluator=[dict(type=Accuracy)],
            default_hooks=dict(
                checkpoint={'type': 'CheckpointHook', 'interval': 1, **(checkpoint or {})}
            ),
            custom_hooks=list(hooks),
            randomness=dict(seed=0),
            default_scope='mmengine',
            experiment_name=f'{tmp_path.name}-{count}',
            **settings,
        )

    return make


@pytest.fixture
def train(tiny_config: Callable, tool: Callable, tmp_path: Path) -> Callable[..., Path]:
    """Train a tiny net with lines of a config and options; return the work dir."""

    def run(task, lines='', *options, name='run', val=False, code=0):
        flags = () if val else ('--no-validate',)
        argv = ('--work-dir', tmp_path / name, *flags, *options)
        assert tool('train', tiny_config(task, lines), *argv) == code
        return tmp_path / name

    return run
