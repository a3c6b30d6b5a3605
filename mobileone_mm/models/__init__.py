"""The backbone, its unit, its sizes and its initialiser. Parts that extend a host load on demand."""

from .block import MobileOneBlock
from .init import NearIdentityInit
from .mobileone import MobileOne
from .sizes import ARCHS, Arch, get_arch

__all__ = ['ARCHS', 'Arch', 'MobileOne', 'MobileOneBlock', 'NearIdentityInit', 'get_arch']
