"""Say which parts of this environment are compiled and which are stand-ins, and whether all import."""

from __future__ import annotations

import mobileone_mm  # first: it puts the stand-ins in place

import argparse
import platform
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from mobileone_mm import compat
from mobileone_mm.cli.run import run_tool
from mobileone_mm.errors import InputError

STACKS = {
    'onedl': tuple(
        f'onedl-{name}'
        for name in ('mmengine', 'mmcv', 'mmpretrain', 'mmdetection', 'mmsegmentation')
    ),
    'openmmlab': ('mmengine', 'mmcv-lite', 'mmcv', 'mmpretrain', 'mmdet', 'mmsegmentation'),
}
HOSTS = ('mmpretrain.models', 'mmdet.models', 'mmseg.models')


def installed(names: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def main(argv: list[str] | None = None) -> None:
    argparse.ArgumentParser(description=__doc__).parse_args(argv)
    found = {stack: installed(names) for stack, names in STACKS.items()}
    if all(found.values()):
        mixed = ', '.join(name for packages in found.values() for name in packages)
        raise InputError(
            f'environment: holds packages of both distributions ({mixed}), which overwrite each '
            "other's files; make a new one with requirements/onedl.txt or requirements/openmmlab.txt"
        )
    print(f'mobileone_mm {mobileone_mm.__version__}, Python {platform.python_version()}')
    versions = {**installed(('torch', 'torchvision')), **found['onedl'], **found['openmmlab']}
    for name, number in versions.items():
        print(f'  {name} {number}')
    for name in HOSTS:
        if find_spec(name.partition('.')[0]):
            import_module(name)
            print(f'  {name}: imports')
    for name, state in compat.status().items():
        print(f'  {name}: {state}')


if __name__ == '__main__':
    run_tool(main)
