"""The protocol of modules that can be re-parameterised."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm


class Branch(NamedTuple):
    """One linear branch: a convolution without bias, followed by a batch normalisation.

    The kernel (out, in / groups, k, k) has an odd k, is not larger than the fused kernel and centred in
    it. The identity branch has None.
    """

    norm: _BatchNorm
    weight: Tensor | None


@runtime_checkable
class Reparameterizable(Protocol):
    """A module whose branches are equal to one convolution in eval mode, of any package."""

    deploy: bool
    training: bool

    @property
    def kernel_shape(self) -> tuple[int, int, int, int]:
        """Shape (out, in / groups, k, k) of the fused kernel."""

    def reparam_branches(self) -> Sequence[Branch]:
        """Return the branches whose sum is fused; only called in training form."""

    def switch_to_deploy(self, weight: Tensor, bias: Tensor) -> None:
        """Replace the branches by one convolution with this kernel and bias."""
