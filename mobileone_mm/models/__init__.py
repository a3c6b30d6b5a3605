"""Modules that configs name: the backbone and its initialiser (heads of hosts load on demand)."""

from __future__ import annotations

from .arch import ARCHS, Arch, get_arch
from .block import MobileOneBlock
from .init import NearIdentityInit
from .mobileone import MobileOne

__all__ = ['ARCHS', 'Arch', 'MobileOne', 'MobileOneBlock', 'NearIdentityInit', 'get_arch']
