"""What the hosts miss on a machine without compiled operators, and only where it is missing.

Two things fail there. PyPI's torchvision is linked against CUDA, so beside a CPU torch it ends its
import with ``operator torchvision::nms does not exist``; and pip builds mmcv without ``mmcv._ext``,
on which ``mmdet.models`` and ``mmcv.ops`` depend. :func:`install` puts two finders on
``sys.meta_path`` that mend both at the moment when somebody asks for the module. Nothing is
imported before, the real module wins wherever there is one, and then all stays silent.

Host scripts that import a host before they read a config run as
``python -m mobileone_mm.compat SCRIPT ARGS``.
"""

from __future__ import annotations

from .installation import install, status

__all__ = ['install', 'status']
