"""The backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from operator import index as as_int
from operator import mul
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..registry import MODELS
from ..reparam import reparameterize_model
from .block import MobileOneBlock
from .sizes import NUM_STAGES, Arch, get_arch

STEM = 'stem'
#: strides and dilations of the four stages for each output stride
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
    """MobileOne (arXiv 2206.04040): branches while training, one plain convolution a unit after.

    Input (N, in_channels, H, W); output a tuple of feature maps in the order of ``out_indices``.
    Stages 0 to 3 have strides 4, 8, 16 and 32 unless ``strides`` or ``output_stride`` say otherwise,
    the stem has stride 2. The state dict is that of mmpretrain's class of the same name; strides,
    dilations and gradient checkpointing add no keys, so any weights fit any of them.

    Args:
        arch: ``s0`` to ``s4``; ``mu0`` to ``mu2`` (this project's reconstruction, see
            docs/micro_models.md); or a dict with the fields of
            :class:`~mobileone_mm.models.sizes.Arch`.
        in_channels: Channels of the input.
        out_indices: Stages to return: 0 to 3, negative ones counted from the end, as in mmpretrain;
            ``'stem'`` is the stem's output (stride 2). A single one may stand without a sequence.
            Stages after the last of them have their weights, but are neither run nor trained.
        strides: Stride (1 or 2) of each of the four stages.
        dilations: Dilation of the depthwise 3x3 units of each stage.
        output_stride: 8, 16 or 32, instead of ``strides`` and ``dilations``: strides beyond it become
            dilations.
        contract_dilation: Let the first unit of a dilated stage keep the dilation of the stage
            before. The net is then the one of stride 32 evaluated at more positions: its outputs
            there, taken at every 2nd or 4th position, are the same (without SE). Named as in
            mmseg's ResNet.
        frozen_stages: -1 freezes nothing, 0 the stem, n the stem and the first n stages: no gradients
            and BN in eval mode, from the constructor on.
        norm_eval: Keep every BN in eval mode while training.
        norm_cfg: BN or SyncBN, with their options.
        act_cfg: Activation after each unit; None for none.
        with_cp: Gradient checkpointing of each unit: less memory, the same result.
        use_se: False leaves out the squeeze-and-excitation that S4 has (for segmentation, where its
            global mean ties each position to the size of the image).
        use_scale: False leaves out the 1x1 "scale" branches.
        use_identity: False leaves out the identity branches. With both False and one conv branch a
            unit (``arch.num_conv_branches``) the net is the plain one to compare with (paper, table 3):
            in deploy form the two are the same.
        deploy: Build the deploy form.
        init_cfg: Initialisation; the default is the usual Kaiming start. See
            :class:`~mobileone_mm.models.init.NearIdentityInit` for short training from scratch.

    Raises:
        TypeError, ValueError: An argument is not allowed; the message names it, what came and what
            is allowed.

    Example:
        >>> model = MobileOne('s2', out_indices=(2, 3)).eval()
        >>> [tuple(x.shape) for x in model(torch.rand(1, 3, 320, 320))]
        [(1, 640, 20, 20), (1, 2048, 10, 10)]
    """

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
        self.in_channels = _integer('in_channels', in_channels, 1)
        self.frozen_stages = _integer('frozen_stages', frozen_stages, -1, NUM_STAGES)
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
                raise TypeError(f'{name}: got {flag!r}; True or False is needed')
        self.norm_eval = norm_eval
        self.use_se, self.use_identity = use_se, use_identity
        self.strides, self.dilations = _grid(strides, dilations, output_stride)
        self.contract_dilation = contract_dilation
        self.out_indices = _out_indices(out_indices)
        self.unit_cfg: dict[str, Any] = dict(
            norm_cfg=_mapping('norm_cfg', norm_cfg),
            act_cfg=None if act_cfg is None else _mapping('act_cfg', act_cfg),
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
        """One stage: num_blocks times a depthwise 3x3 and a pointwise 1x1 unit."""
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
            # The first depthwise unit has no identity branch even where `strides` make its stride 1:
            # weights trained with stride 2 have none, and must fit.
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
    def num_used(self) -> int:
        """How many of the stem and the stages the outputs need; the others are not run."""
        return 1 + max(0 if isinstance(index, str) else index + 1 for index in self.out_indices)

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Channels of each output, in the order of ``out_indices``."""
        channels = self.arch.channels
        return tuple(
            self.arch.stem_channels if isinstance(index, str) else channels[index]
            for index in self.out_indices
        )

    @property
    def out_strides(self) -> tuple[int, ...]:
        """Stride of each output to the input, in the order of ``out_indices``."""
        strides = list(accumulate(self.strides, mul, initial=2))  # the stem's comes first
        return tuple(
            strides[0 if isinstance(index, str) else index + 1] for index in self.out_indices
        )

    @property
    def deploy(self) -> bool:
        """Whether every unit is in deploy form."""
        return all(m.deploy for m in self.modules() if isinstance(m, MobileOneBlock))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        outputs: dict[int | str, Tensor] = {}
        names = (STEM, *range(NUM_STAGES))
        for index, stage in zip(names[: self.num_used], self.stages, strict=False):
            x = stage(x)
            outputs[index] = x
        return tuple(outputs[index] for index in self.out_indices)

    def switch_to_deploy(self) -> None:
        """Fuse all units in place; see :func:`~mobileone_mm.reparam.reparameterize_model`."""
        reparameterize_model(self, inplace=True)

    def train(self, mode: bool = True) -> MobileOne:
        """Set training mode; frozen stages, and with ``norm_eval`` every BN, stay in eval mode."""
        super().train(mode)
        self._freeze()
        return self

    def _freeze(self) -> None:
        for stage in self.stages[: self.frozen_stages + 1]:
            stage.eval().requires_grad_(False)
        # They are there for the weights' sake; DDP would wait for their gradients.
        for stage in self.stages[self.num_used :]:
            stage.requires_grad_(False)
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()


def _is_integer(value: Any) -> bool:
    return hasattr(value, '__index__') and not isinstance(value, bool)


def _integer(name: str, value: Any, low: int, high: int | None = None) -> int:
    allowed = (
        f'an integer of at least {low}' if high is None else f'an integer from {low} to {high}'
    )
    if not _is_integer(value):
        raise TypeError(f'{name}: got {value!r}; {allowed} is needed')
    number = as_int(value)
    if number < low or (high is not None and number > high):
        raise ValueError(f'{name}: got {number}; {allowed} is needed')
    return number


def _mapping(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping) or 'type' not in value:
        raise TypeError(f"{name}: got {value!r}; a dict with the key 'type' is needed")
    return dict(value)


def _per_stage(name: str, value: Any, high: int | None = None) -> tuple[int, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise TypeError(f'{name}: got {value!r}; {NUM_STAGES} integers are needed, one a stage')
    if len(value) != NUM_STAGES:
        raise ValueError(f'{name}: got {len(value)} values; {NUM_STAGES} are needed, one a stage')
    return tuple(_integer(f'{name}[{i}]', v, 1, high) for i, v in enumerate(value))


def _grid(strides: Any, dilations: Any, output_stride: Any) -> tuple[tuple[int, ...], ...]:
    """Strides and dilations of the four stages from the three arguments."""
    if output_stride is not None:
        if strides is not None or dilations is not None:
            raise ValueError(
                'output_stride: given together with strides or dilations; give one or the other'
            )
        if isinstance(output_stride, bool) or output_stride not in OUTPUT_STRIDES:
            raise ValueError(f'output_stride: got {output_stride!r}; 8, 16 or 32 is needed')
        return OUTPUT_STRIDES[output_stride]
    default_strides, default_dilations = OUTPUT_STRIDES[32]
    return (
        default_strides if strides is None else _per_stage('strides', strides, 2),
        default_dilations if dilations is None else _per_stage('dilations', dilations),
    )


def _out_indices(value: Any) -> tuple[int | str, ...]:
    values = [value] if isinstance(value, str) or _is_integer(value) else value
    allowed = f"0 to {NUM_STAGES - 1} (or -{NUM_STAGES} to -1) and '{STEM}'"
    if not isinstance(values, Sequence) or not values:
        raise TypeError(f'out_indices: got {value!r}; one or several of {allowed} are needed')
    indices: list[int | str] = []
    for entry in values:
        if entry == STEM:
            indices.append(STEM)
        elif _is_integer(entry) and -NUM_STAGES <= entry < NUM_STAGES:
            indices.append(as_int(entry) % NUM_STAGES)
        else:
            raise ValueError(f'out_indices: got {entry!r}; allowed are {allowed}')
    if len(set(indices)) < len(indices):
        raise ValueError(f'out_indices: got {value!r}, where a stage comes twice')
    return tuple(indices)
