"""Runs a script or module as Python itself would, with the stand-ins in place from the start.

For programs that are not ours, such as mmdet's ``tools/test.py``: they import their host before
they read the config that would import this package.
"""

from __future__ import annotations

import builtins
import os
import runpy
import sys
from collections.abc import Sequence
from importlib.machinery import SourceFileLoader
from multiprocessing import spawn
from pathlib import Path
from types import ModuleType
from typing import Any

from .installation import install

USAGE = 'usage: python -m mobileone_mm.compat (SCRIPT | -m MODULE) [ARGS...]'
#: How a spawned child learns which program it belongs to: 'path' or 'module', a colon, the name.
_PROGRAM = 'MOBILEONE_MM_COMPAT_PROGRAM'
_CHILD = f'{__package__}.child'


def main(argv: Sequence[str]) -> int:
    """Run the program that ``argv`` names; returns 2 if it names none, else when it has ended."""
    if argv and argv[0] in ('-h', '--help'):
        print(USAGE)
        return 0
    by_name = bool(argv) and argv[0] == '-m'
    words = list(argv[1:] if by_name else argv)
    if not words or (words[0].startswith('-') and not by_name):
        print(USAGE, file=sys.stderr)
        return 2
    if not by_name and not Path(words[0]).is_file():
        print(f'SCRIPT: {words[0]} is not a file; give the path of a script', file=sys.stderr)
        return 2
    install()
    program = words[0] if by_name else str(Path(words[0]).resolve())
    os.environ[_PROGRAM] = f'{"module" if by_name else "path"}:{program}'
    _prepare_children()
    sys.argv[:] = words
    if by_name:
        runpy.run_module(program, run_name='__main__', alter_sys=True)
    else:
        _enter_folder(Path(program).parent)
        _run_file(os.path.abspath(words[0]))
    return 0


def run_as_child() -> dict[str, Any]:
    """Globals of the parent's program, run under the name that spawned children give it."""
    kind, _, name = os.environ[_PROGRAM].partition(':')
    if kind == 'module':
        return runpy.run_module(name, run_name='__mp_main__', alter_sys=True)
    return runpy.run_path(name, run_name='__mp_main__')


def _run_file(path: str) -> None:
    """As ``runpy.run_path``, which however gives ``__file__`` and ``sys.argv[0]`` one spelling."""
    module = ModuleType('__main__')
    loader = SourceFileLoader('__main__', path)
    vars(module).update(__file__=path, __loader__=loader, __builtins__=builtins)
    sys.modules['__main__'] = module
    exec(loader.source_to_code(loader.get_data(path), path), vars(module))


def _enter_folder(folder: Path) -> None:
    """Put the script's folder where ``python -m`` has put the current one."""
    home = str(Path(__file__).resolve().parents[2])
    if not getattr(sys.flags, 'safe_path', False):  # Python 3.11: -P leaves out this entry
        sys.path[0] = str(folder)
    if not any(Path(entry, 'mobileone_mm').is_dir() for entry in sys.path):
        sys.path.append(home)  # children have to find this package again


def _prepare_children() -> None:
    """Make spawned children import this package before they run the program's top level.

    multiprocessing would run it at once, and there its first import of a host fails.
    """
    original = spawn.get_preparation_data

    def get_preparation_data(name: str) -> dict[str, Any]:
        data = original(name)
        module = data.get('init_main_from_name')
        # Python runs nothing of a package's __main__ in children, whatever it contains.
        if 'init_main_from_path' in data or (module and not module.endswith('.__main__')):
            data.pop('init_main_from_path', None)
            data['init_main_from_name'] = _CHILD
        return data

    spawn.get_preparation_data = get_preparation_data
