"""Fuse branches into one convolution, lift one convolution into branches, and compare both forms."""

from .protocol import Branch, Reparameterizable
from .surgery import reparameterize_model

__all__ = ['Branch', 'Reparameterizable', 'reparameterize_model']
