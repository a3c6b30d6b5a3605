"""Say which parts of this environment are compiled and which are stand-ins, and whether all import."""

import mobileone_mm  # first: it puts the stand-ins in place

import argparse
import platform
import sys
from importlib import import_module
from importlib.metadata import distributions
from importlib.util import find_spec

from mobileone_mm import compat
from mobileone_mm.errors import InputError

FORK = tuple(f'onedl-mm{n}' for n in ('engine', 'cv', 'pretrain', 'detection', 'segmentation'))
ORIGINAL = ('mmengine', 'mmcv-lite', 'mmcv', 'mmpretrain', 'mmdet', 'mmsegmentation')
HOSTS = ('mmpretrain.models', 'mmdet.models', 'mmseg.models')
ADVICE = 'install requirements/onedl.txt or requirements/openmmlab.txt in a new environment'


def installed(*names: str) -> dict[str, str]:
    found = {each.name.replace('_', '-').lower(): each.version for each in distributions()}
    return {name: found[name] for name in names if name in found}


def state_of(host: str) -> str:
    try:
        import_module(host)
    except Exception as error:  # of any kind: the import runs code of others
        return f'does not import: {" ".join(f"{type(error).__name__}: {error}".split())[:200]}'
    return 'imports'


def main(argv: list[str] | None = None) -> None:
    unknown = argparse.ArgumentParser(description=__doc__).parse_known_args(argv)[1]
    if unknown:
        raise InputError(f'unrecognized arguments: {" ".join(unknown)}; see --help')
    fork, original = installed(*FORK), installed(*ORIGINAL)
    if fork and original:
        mixed = ', '.join([*fork, *original])
        raise InputError(f"environment: {mixed} overwrite each other's files; {ADVICE}")
    print(f'mobileone_mm {mobileone_mm.__version__}, Python {platform.python_version()}')
    for name, number in {**installed('torch', 'torchvision'), **fork, **original}.items():
        print(f'  {name} {number}')
    hosts = {host: state_of(host) for host in HOSTS if find_spec(host.partition('.')[0])}
    for name, state in {**hosts, **compat.status()}.items():
        print(f'  {name}: {state}')
    if not hosts or set(hosts.values()) != {'imports'}:
        raise InputError(f'environment: no host is installed, or one does not import; {ADVICE}')


if __name__ == '__main__':
    try:
        main()
    except InputError as error:  # mobileone_mm.cli needs mmengine, which may be missing
        print(f'error: {error}', file=sys.stderr)
        sys.exit(2)
