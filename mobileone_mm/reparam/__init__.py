"""Two forms, one function: the algebra of fusing, module surgery, and the proof of equality."""

from __future__ import annotations

from .protocol import Branch, Reparameterizable
from .surgery import reparameterize_model

__all__ = ['Branch', 'Reparameterizable', 'reparameterize_model']
