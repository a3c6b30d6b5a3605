"""The MobileOne backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from operator import mul
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..registry import MODELS
from ..reparam import reparameterize_model
from .arguments import check_integer, check_sequence, is_integer
from .block import MobileOneBlock
from .sizes import NUM_STAGES, Arch, get_arch

STEM = 'stem'
#: Strides and dilations of the four stages for each output stride.
OUTPUT_STRIDES = {
    32: ((2, 2, 2, 2), (1, 1, 1, 1)),
    16: ((2, 2, 2, 1), (1, 1, 1, 2)),
    8: ((2, 2, 1, 1), (1, 1, 2, 4)),
}
DEFAULT_INIT = (
    dict(type='Kaiming', layer=['Conv2d']),
    dict(type='Constant', val=1, layer=['_BatchNorm']),
)


@MODELS.register_module()
class MobileOne(BaseModule):
    """MobileOne (arXiv 2206.04040): branches in training, one plain convolution per unit in deployment.

    The input is (N, in_channels, H, W), the output a tuple of feature maps in the order of
    ``out_indices``. The stem has stride 2, stages 0 to 3 have strides 4, 8, 16 and 32 by default. The
    state-dict keys are those of mmpretrain's class of the same name. Strides, dilations and gradient
    checkpointing add no keys, so the same weights fit all of them.

    Args:
        arch: ``s0`` to ``s4``; ``mu0`` to ``mu2`` (this project's reconstruction, see
            docs/micro_models.md); or a dict with the fields of
            :class:`~mobileone_mm.models.sizes.Arch`.
        in_channels: Channels of the input.
        out_indices: Stages to return: 0 to 3, or negative numbers counted from the end as in
            mmpretrain, or ``'stem'`` (stride 2). One stage may be given without a sequence. Stages
            after the last of them have weights, but are neither run nor trained.
        strides: Stride (1 or 2) of each of the four stages.
        dilations: Dilation of the depthwise 3x3 units of each stage.
        output_stride: 8, 16 or 32, instead of ``strides`` and ``dilations``: larger strides become
            dilations.
        contract_dilation: Give the first unit of a dilated stage the dilation of the stage before, as
            in mmseg's ResNet. The network is then that of stride 32 at more positions: every 2nd or
            4th output is the same (without SE).
        frozen_stages: -1 freezes nothing, 0 the stem, n the stem and the first n stages: no gradients
            and BN in eval mode, already in the constructor.
        norm_eval: Keep every BN in eval mode during training.
        norm_cfg: Config of BN or SyncBN.
        act_cfg: Config of the activation after each unit; None for no activation.
        with_cp: Use gradient checkpointing for each unit: less memory, the same result.
        use_se: False removes the squeeze-and-excitation of S4 (for segmentation, where its global
            mean makes each position depend on the image size).
        use_scale: False removes the 1x1 "scale" branches.
        use_identity: False removes the identity branches. With both False and one conv branch per
            unit (``arch.num_conv_branches``) this is the plain network of the paper's table 3, which
            has the same deploy form.
        deploy: Build the deploy form.
        init_cfg: Initialisation, Kaiming by default. See
            :class:`~mobileone_mm.models.init.NearIdentityInit` for short training from scratch.

    Raises:
        TypeError, ValueError: An argument is not allowed; the message names it, the given value and
            the allowed values.

    Example:
        >>> model = MobileOne('s2', out_indices=(2, 3)).eval()
        >>> [tuple(x.shape) for x in model(torch.rand(1, 3, 320, 320))]
        [(1, 640, 20, 20), (1, 2048, 10, 10)]
    """

    # TorchScript compiles all other properties; `is_init` is mmengine's.
    __jit_unused_properties__ = (
        'stages',
        'out_indices',
        'num_used',
        'out_channels',
        'out_strides',
        'deploy',
        'is_init',
    )

    def __init__(
        self,
        arch: str | Mapping[str, Any] | Arch = 's0',
        in_channels: int = 3,
        out_indices: int | str | Sequence[int | str] = (3,),
        strides: Sequence[int] | None = None,
        dilations: Sequence[int] | None = None,
        output_stride: int | None = None,
        contract_dilation: bool = False,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        norm_cfg: Mapping[str, Any] = dict(type='BN'),
        act_cfg: Mapping[str, Any] | None = dict(type='ReLU'),
        with_cp: bool = False,
        use_se: bool = True,
        use_scale: bool = True,
        use_identity: bool = True,
        deploy: bool = False,
        init_cfg: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = DEFAULT_INIT,
    ) -> None:
        super().__init__(list(init_cfg) if isinstance(init_cfg, tuple) else init_cfg)
        self.arch = get_arch(arch)
        self.in_channels = check_integer('in_channels', in_channels, 1)
        self.frozen_stages = check_integer('frozen_stages', frozen_stages, -1, NUM_STAGES)
        for name, flag in (
            ('contract_dilation', contract_dilation),
            ('norm_eval', norm_eval),
            ('with_cp', with_cp),
            ('use_se', use_se),
            ('use_scale', use_scale),
            ('use_identity', use_identity),
            ('deploy', deploy),
        ):
            if not isinstance(flag, bool):
                raise TypeError(f'{name}: got {flag!r}; expected True or False')
        self.norm_eval = norm_eval
        self.use_se, self.use_identity = use_se, use_identity
        self.strides, self.dilations = _strides_and_dilations(strides, dilations, output_stride)
        self.contract_dilation = contract_dilation
        self.out_indices = out_indices
        self.unit_cfg: dict[str, Any] = dict(
            norm_cfg=_layer_cfg('norm_cfg', norm_cfg),
            act_cfg=None if act_cfg is None else _layer_cfg('act_cfg', act_cfg),
            with_cp=with_cp,
            with_scale=use_scale,
            deploy=deploy,
        )
        stem = self.arch.stem_channels
        self.stage0 = MobileOneBlock(self.in_channels, stem, 3, stride=2, **self.unit_cfg)
        for index in range(NUM_STAGES):
            self.add_module(f'stage{index + 1}', self._make_stage(index))
        self._freeze()

    def _make_stage(self, index: int) -> nn.Sequential:
        """Build one stage: num_blocks times a depthwise 3x3 unit and a pointwise 1x1 unit."""
        arch = self.arch
        in_channels = arch.channels[index - 1] if index else arch.stem_channels
        out_channels = arch.channels[index]
        units = []
        for block in range(arch.num_blocks[index]):
            first = block == 0
            se_blocks = arch.num_se_blocks[index] if self.use_se else 0
            dilation = self.dilations[index]
            if first and self.contract_dilation:
                dilation = self.dilations[index - 1] if index else 1
            shared = dict(
                num_convs=arch.num_conv_branches[index],
                with_se=block >= arch.num_blocks[index] - se_blocks,
                **self.unit_cfg,
            )
            # The first depthwise unit has no identity branch even with stride 1, because weights that
            # were trained with stride 2 have none and must fit.
            depthwise = MobileOneBlock(
                in_channels,
                in_channels,
                3,
                stride=self.strides[index] if first else 1,
                dilation=dilation,
                groups=in_channels,
                with_identity=self.use_identity and not first,
                **shared,
            )
            pointwise = MobileOneBlock(
                in_channels,
                out_channels,
                1,
                with_identity=self.use_identity and in_channels == out_channels,
                **shared,
            )
            units += [depthwise, pointwise]
            in_channels = out_channels
        return nn.Sequential(*units)

    @property
    def stages(self) -> tuple[nn.Module, ...]:
        """The stem and the four stages."""
        return tuple(getattr(self, f'stage{index}') for index in range(NUM_STAGES + 1))

    @property
    def out_indices(self) -> tuple[int | str, ...]:
        """Which stages the outputs come from."""
        return tuple(place - 1 if place else STEM for place in self._places)

    @out_indices.setter
    def out_indices(self, value: int | str | Sequence[int | str]) -> None:
        # Numbers of the stem (0) and the stages: TorchScript has no tuples of different types.
        self._places = [0 if index == STEM else int(index) + 1 for index in _out_indices(value)]
        self._last = max(self._places)

    @property
    def num_used(self) -> int:
        """Number of stages (the stem included) that the outputs need; the others are not run."""
        return 1 + self._last

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Channels of each output in the order of ``out_indices``."""
        channels = self.arch.channels
        return tuple(
            self.arch.stem_channels if isinstance(index, str) else channels[index]
            for index in self.out_indices
        )

    @property
    def out_strides(self) -> tuple[int, ...]:
        """Stride of each output relative to the input, in the order of ``out_indices``."""
        strides = list(accumulate(self.strides, mul, initial=2))  # 2 is the stride of the stem
        return tuple(
            strides[0 if isinstance(index, str) else index + 1] for index in self.out_indices
        )

    @property
    def deploy(self) -> bool:
        """Whether all units are in deploy form."""
        return all(m.deploy for m in self.modules() if isinstance(m, MobileOneBlock))

    # No return type: it is a tuple, and a list in TorchScript, which has no tuples of any length.
    def forward(self, x: Tensor):  # type: ignore[no-untyped-def]
        outputs: list[Tensor] = []
        for index, stage in enumerate(self.children()):  # the stem and the four stages
            if index <= self._last:
                x = stage(x)
                outputs.append(x)
        found = [outputs[place] for place in self._places]
        return found if torch.jit.is_scripting() else tuple(found)

    def switch_to_deploy(self) -> None:
        """Fuse all units in place; see :func:`~mobileone_mm.reparam.reparameterize_model`."""
        reparameterize_model(self, inplace=True)

    def train(self, mode: bool = True) -> MobileOne:
        """Set training mode; frozen stages stay in eval mode, and with ``norm_eval`` every BN."""
        super().train(mode)
        self._freeze()
        return self

    def _freeze(self) -> None:
        for stage in self.stages[: self.frozen_stages + 1]:
            stage.eval().requires_grad_(False)
        # Unused stages exist only to hold weights; DDP would wait for their gradients.
        for stage in self.stages[self.num_used :]:
            stage.requires_grad_(False)
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()


def _strides_and_dilations(
    strides: Any, dilations: Any, output_stride: Any
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return strides and dilations of the four stages."""
    if output_stride is not None:
        if strides is not None or dilations is not None:
            raise ValueError(
                'output_stride: given together with strides or dilations; give one or the other'
            )
        if isinstance(output_stride, bool) or output_stride not in OUTPUT_STRIDES:
            raise ValueError(f'output_stride: got {output_stride!r}; expected 8, 16 or 32')
        return OUTPUT_STRIDES[output_stride]
    default_strides, default_dilations = OUTPUT_STRIDES[32]
    return (
        default_strides if strides is None else _per_stage('strides', strides, 2),
        default_dilations if dilations is None else _per_stage('dilations', dilations),
    )


def _per_stage(name: str, value: Any, high: int | None = None) -> tuple[int, ...]:
    values = check_sequence(name, value, NUM_STAGES)
    return tuple(check_integer(f'{name}[{i}]', v, 1, high) for i, v in enumerate(values))


def _layer_cfg(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping) or 'type' not in value:
        raise TypeError(f"{name}: got {value!r}; expected a dict with the key 'type'")
    return dict(value)


def _out_indices(value: Any) -> tuple[int | str, ...]:
    values = [value] if isinstance(value, str) or is_integer(value) else value
    expected = f"0 to {NUM_STAGES - 1} (or -{NUM_STAGES} to -1) or '{STEM}'"
    if not isinstance(values, Sequence) or not values:
        raise TypeError(f'out_indices: got {value!r}; expected one or several of {expected}')
    indices: list[int | str] = []
    for entry in values:
        if entry == STEM:
            indices.append(STEM)
        elif is_integer(entry) and -NUM_STAGES <= entry < NUM_STAGES:
            indices.append(int(entry) % NUM_STAGES)
        else:
            raise ValueError(f'out_indices: got {entry!r}; expected {expected}')
    if len(set(indices)) < len(indices):
        raise ValueError(f'out_indices: got {value!r}, which names a stage twice')
    return tuple(indices)
