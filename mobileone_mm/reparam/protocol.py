"""What a module must offer to be re-parameterised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm


class Branch(NamedTuple):
    """One linear branch: a convolution without bias, then a batch normalisation.

    Attributes:
        norm: BatchNorm or SyncBatchNorm over the branch's output.
        weight: Kernel (out, in / groups, k, k) with odd k, at most the fused kernel's size and
            centred in it; None for the identity branch.
    """

    norm: _BatchNorm
    weight: Tensor | None


@runtime_checkable
class Reparameterizable(Protocol):
    """A module whose function in eval mode is one convolution, then what stays as it is.

    Surgery asks a module for this protocol, not for a class of ours, so that other
    re-parameterisable blocks fuse with the same code.
    """

    deploy: bool
    training: bool

    @property
    def kernel_shape(self) -> tuple[int, int, int, int]:
        """Shape (out, in / groups, k, k) of the fused kernel."""

    def reparam_branches(self) -> Sequence[Branch]:
        """The branches whose sum is fused; called in training form only."""

    def switch_to_deploy(self, weight: Tensor, bias: Tensor) -> None:
        """Replace the branches by one convolution with this kernel and bias."""
