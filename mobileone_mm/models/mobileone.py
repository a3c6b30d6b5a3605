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
from .argument_checks import check_integer, check_integers, is_integer
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
    checkpointing add none. A TypeError or ValueError names an argument that is not allowed.

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

    Example:
        >>> model = MobileOne('s2', out_indices=(2, 3)).eval()
        >>> [tuple(x.shape) for x in model(torch.rand(1, 3, 320, 320))]
        [(1, 640, 20, 20), (1, 2048, 10, 10)]
    """

    # TorchScript compiles all other properties; `is_init` is mmengine's.
    __jit_unused_properties__ = (
        'stages', 'out_indices', 'out_channels', 'out_strides', 'deploy', 'is_init',
    )  # fmt: skip

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
        super().__init__(init_cfg)
        self.arch = get_arch(arch)
        self.in_channels = check_integer('in_channels', in_channels, 1)
        self.frozen_stages = check_integer('frozen_stages', frozen_stages, -1, NUM_STAGES)
        flags = dict(
            contract_dilation=contract_dilation, norm_eval=norm_eval, with_cp=with_cp, use_se=use_se,
            use_scale=use_scale, use_identity=use_identity, deploy=deploy,
        )  # fmt: skip
        for name, flag in flags.items():
            if not isinstance(flag, bool):
                raise TypeError(f'{name}: got {flag!r}; expected True or False')
        self.norm_eval, self.contract_dilation = norm_eval, contract_dilation
        self.use_se, self.use_identity = use_se, use_identity
        self.strides, self.dilations = _strides_and_dilations(strides, dilations, output_stride)
        self._places = _places_of(out_indices)  # TorchScript has no tuples of different types
        self._last = max(self._places)
        self.unit_cfg = _unit_cfg(norm_cfg, act_cfg, with_cp, use_scale, deploy)
        widths = (self.arch.stem_channels, *self.arch.channels)
        self.stage0 = MobileOneBlock(self.in_channels, widths[0], 3, stride=2, **self.unit_cfg)
        for index in range(NUM_STAGES):
            self.add_module(
                f'stage{index + 1}', self._make_stage(index, *widths[index : index + 2])
            )
        self._freeze()

    def _make_stage(self, index: int, in_channels: int, out_channels: int) -> nn.Sequential:
        """Build one stage: num_blocks times a depthwise 3x3 unit and a pointwise 1x1 unit."""
        arch = self.arch
        num_plain = arch.num_blocks[index] - (arch.num_se_blocks[index] if self.use_se else 0)
        units = []
        for block in range(arch.num_blocks[index]):
            first = block == 0
            dilation = self.dilations[index]
            if first and self.contract_dilation:
                dilation = self.dilations[index - 1] if index else 1
            shared = dict(
                num_convs=arch.num_conv_branches[index], with_se=block >= num_plain, **self.unit_cfg
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
            with_identity = self.use_identity and in_channels == out_channels
            pointwise = MobileOneBlock(
                in_channels, out_channels, 1, with_identity=with_identity, **shared
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

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Channels of each output in the order of ``out_indices``."""
        channels = (self.arch.stem_channels, *self.arch.channels)
        return tuple(channels[place] for place in self._places)

    @property
    def out_strides(self) -> tuple[int, ...]:
        """Stride of each output relative to the input, in the order of ``out_indices``."""
        strides = list(accumulate(self.strides, mul, initial=2))  # 2 is the stride of the stem
        return tuple(strides[place] for place in self._places)

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
        for stage in self.stages[self._last + 1 :]:
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
    strides = OUTPUT_STRIDES[32][0] if strides is None else strides
    dilations = OUTPUT_STRIDES[32][1] if dilations is None else dilations
    return (
        check_integers('strides', strides, NUM_STAGES, 1, 2),
        check_integers('dilations', dilations, NUM_STAGES, 1),
    )


def _unit_cfg(
    norm_cfg: Any, act_cfg: Any, with_cp: bool, with_scale: bool, deploy: bool
) -> dict[str, Any]:
    """Return the arguments that all units share."""
    for name, value in (('norm_cfg', norm_cfg), ('act_cfg', act_cfg)):
        wrong = not isinstance(value, Mapping) or 'type' not in value
        if wrong and not (name == 'act_cfg' and value is None):
            raise TypeError(f"{name}: got {value!r}; expected a dict with the key 'type'")
    return dict(
        norm_cfg=norm_cfg, act_cfg=act_cfg, with_cp=with_cp, with_scale=with_scale, deploy=deploy
    )


def _places_of(out_indices: Any) -> list[int]:
    """Return which modules the outputs come from: 0 is the stem, 1 to 4 are the stages."""
    single = isinstance(out_indices, str) or is_integer(out_indices)
    values = [out_indices] if single else out_indices
    expected = f"0 to {NUM_STAGES - 1} (or -{NUM_STAGES} to -1) or '{STEM}'"
    if not isinstance(values, Sequence) or not values:
        raise TypeError(f'out_indices: got {out_indices!r}; expected one or several of {expected}')
    places = []
    for entry in values:
        if entry != STEM and not (is_integer(entry) and -NUM_STAGES <= entry < NUM_STAGES):
            raise ValueError(f'out_indices: got {entry!r}; expected {expected}')
        places.append(0 if entry == STEM else int(entry) % NUM_STAGES + 1)
    if len(set(places)) < len(places):
        raise ValueError(f'out_indices: got {out_indices!r}, which names a stage twice')
    return places
