"""The MobileOne unit: linear branches in training form, one convolution in deploy form."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

import torch
import torch.nn.functional as F
from mmcv.cnn import build_activation_layer, build_norm_layer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from ..reparam import Branch


class SubsampledConv2d(nn.Conv2d):
    """A strided 1x1 convolution that selects every s-th pixel, then convolves with stride 1.

    Function and state dict are those of the strided convolution. This avoids a bug of torch 2.13's CPU
    build: with 3 or 4 input channels in channels_last, the weight gradient of the strided 1x1
    convolution is incorrect, or the process crashes.
    """

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = self.stride
        return F.conv2d(x[..., ::rows, ::columns], self.weight, self.bias, groups=self.groups)


class SqueezeExcite(nn.Module):
    """Squeeze-and-excitation: scale each channel by a gate that is computed from the channel means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        # A 16th of the channels, rounded to the nearest multiple of 8, at least 8 and at most a tenth
        # smaller, as in mmpretrain; for S4 this is the paper's width.
        hidden = max(8, (channels // 16 + 4) // 8 * 8)
        hidden += 8 * (hidden < 0.9 * (channels // 16))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.conv1 = nn.Sequential(OrderedDict(conv=nn.Conv2d(channels, hidden, 1)))
        self.conv2 = nn.Sequential(OrderedDict(conv=nn.Conv2d(hidden, channels, 1)))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.conv2(F.relu(self.conv1(self.pool(x)))))


class MobileOneBlock(nn.Module):
    """One unit: ``act(se(sum of branches))``, or ``act(se(conv))`` in deploy form.

    The branches (arXiv 2206.04040, figure 3) are ``num_convs`` conv-BN with the full kernel, one 1x1
    conv-BN ("scale") if the kernel is larger than 1, and one BN of the input ("identity"). The
    state-dict keys are those of mmpretrain's class of the same name. The class implements
    :class:`~mobileone_mm.reparam.Reparameterizable`.

    Args:
        in_channels: Channels of the input (N, C, H, W).
        out_channels: Channels of the output (N, C', ceil(H / stride), ceil(W / stride)).
        kernel_size: Odd; the padding is ``kernel_size // 2 * dilation``.
        num_convs: Conv-BN branches with the full kernel, at least 1.
        stride: Stride of all branches.
        dilation: Dilation of the full kernels and of the fused kernel. The 1x1 and identity branches
            act on the centre tap, which a dilation does not move.
        groups: Groups of all convolutions.
        with_identity: Add the identity branch; requires equal channels and stride 1.
        with_se: Add squeeze-and-excitation before the activation.
        with_scale: Add the 1x1 "scale" branch, if the kernel is larger than 1.
        norm_cfg: Config of a BatchNorm or SyncBatchNorm layer; None for BN.
        act_cfg: Config of the activation; None for no activation.
        with_cp: Use gradient checkpointing: the backward pass computes the branch outputs again
            instead of keeping them in memory.
        deploy: Build the deploy form.
    """

    __constants__ = ('deploy',)  # TorchScript compiles the branch of this form alone
    __jit_unused_properties__ = ('kernel_shape',)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        num_convs: int = 1,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        with_identity: bool = False,
        with_se: bool = False,
        with_scale: bool = True,
        norm_cfg: Mapping[str, Any] | None = None,
        act_cfg: Mapping[str, Any] | None = None,
        with_cp: bool = False,
        deploy: bool = False,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size, self.stride = kernel_size, stride
        self.dilation, self.groups = dilation, groups
        self.with_cp, self.deploy = with_cp, deploy
        self.se = SqueezeExcite(out_channels) if with_se else nn.Identity()
        norm_cfg = dict(norm_cfg or dict(type='BN'))
        # Also in deploy form: files in training form do not contain eps, and are fused with this one.
        self.norm_eps = float(norm_cfg.get('eps', 1e-5))
        if deploy:
            self.branch_reparam = self._conv(kernel_size, bias=True)
        else:
            self.branch_norm = _batch_norm(norm_cfg, in_channels) if with_identity else None
            scale = with_scale and kernel_size > 1
            self.branch_scale = self._conv_norm(1, norm_cfg) if scale else None
            self.branch_conv_list = nn.ModuleList(
                self._conv_norm(kernel_size, norm_cfg) for _ in range(num_convs)
            )
        self.act = nn.Identity() if act_cfg is None else build_activation_layer(dict(act_cfg))

    def _conv(self, kernel_size: int, bias: bool = False) -> nn.Conv2d:
        dilation = self.dilation if kernel_size > 1 else 1
        subsampled = kernel_size == 1 and self.stride > 1 and self.groups == 1
        return (SubsampledConv2d if subsampled else nn.Conv2d)(
            self.in_channels,
            self.out_channels,
            kernel_size,
            stride=self.stride,
            padding=kernel_size // 2 * dilation,
            dilation=dilation,
            groups=self.groups,
            bias=bias,
        )

    def _conv_norm(self, kernel_size: int, norm_cfg: dict[str, Any]) -> nn.Sequential:
        norm = _batch_norm(norm_cfg, self.out_channels)
        return nn.Sequential(OrderedDict(conv=self._conv(kernel_size), norm=norm))

    def forward(self, x: Tensor) -> Tensor:
        if not self.deploy and self.with_cp and self.training and torch.is_grad_enabled():
            return checkpoint(
                self._forward, x, use_reentrant=False, context_fn=self._recompute_contexts
            )
        return self._forward(x)

    def _forward(self, x: Tensor) -> Tensor:
        return self.act(self.se(self.branch_reparam(x) if self.deploy else self._sum_branches(x)))

    def _sum_branches(self, x: Tensor) -> Tensor:
        out = self.branch_conv_list[0](x)
        for branch in self.branch_conv_list[1:]:
            out = out + branch(x)
        if self.branch_scale is not None:
            out = out + self.branch_scale(x)
        if self.branch_norm is not None:
            out = out + self.branch_norm(x)
        return out

    def _recompute_contexts(self) -> tuple[AbstractContextManager, AbstractContextManager]:
        return nullcontext(), statistics_unchanged(self)

    @property
    def kernel_shape(self) -> tuple[int, int, int, int]:
        """Shape (out, in / groups, k, k) of the fused kernel."""
        in_per_group = self.in_channels // self.groups
        return self.out_channels, in_per_group, self.kernel_size, self.kernel_size

    def reparam_branches(self) -> Sequence[Branch]:
        """Return the branches whose sum is fused."""
        pairs = [*self.branch_conv_list]
        if self.branch_scale is not None:
            pairs.append(self.branch_scale)
        branches = [Branch(cast(_BatchNorm, pair.norm), pair.conv.weight) for pair in pairs]
        if self.branch_norm is not None:
            branches.append(Branch(self.branch_norm, None))
        return branches

    def switch_to_deploy(self, weight: Tensor, bias: Tensor) -> None:
        """Replace the branches by one convolution with a kernel of :attr:`kernel_shape` and a bias."""
        trainable = any(
            parameter.requires_grad
            for name, parameter in self.named_parameters()
            if not name.startswith('se.')
        )
        del self.branch_conv_list, self.branch_scale, self.branch_norm
        with torch.device('meta'):  # no allocation and no initialisation: the kernel is given
            conv = self._conv(self.kernel_size)
        conv.weight = nn.Parameter(weight, requires_grad=trainable)
        conv.bias = nn.Parameter(bias, requires_grad=trainable)
        self.branch_reparam = conv.train(self.training)
        self.deploy = True


def _batch_norm(norm_cfg: Mapping[str, Any], channels: int) -> _BatchNorm:
    got = f'norm_cfg: got {dict(norm_cfg)}'
    try:
        norm = build_norm_layer(dict(norm_cfg), channels)[1]
    except TypeError as error:
        raise TypeError(f'{got}; it cannot be built: {str(error).splitlines()[0]}') from error
    except (AssertionError, KeyError):  # mmcv names neither the type nor what it lacks
        norm = None
    if not isinstance(norm, _BatchNorm):
        raise ValueError(
            f'{got}; expected BN or SyncBN, other normalisations cannot be fused into a convolution'
        )
    return norm


@contextmanager
def statistics_unchanged(module: nn.Module) -> Iterator[None]:
    """Keep the running statistics of all BN layers unchanged inside the block.

    Gradient checkpointing runs the forward pass twice; without this, it would also update the running
    statistics twice per step.
    """
    # Momentum 0, not track_running_stats=False: checkpointing requires the same saved tensors in both
    # passes, and the running statistics are among them. SyncBN requires a counter, so it gets a copy.
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
    saved = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm, (_, counter) in zip(norms, saved, strict=True):
        norm.momentum = 0.0
        norm.num_batches_tracked = None if counter is None else counter.clone()
    try:
        yield
    finally:
        for norm, values in zip(norms, saved, strict=True):
            norm.momentum, norm.num_batches_tracked = values
