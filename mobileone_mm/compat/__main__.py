"""``python -m mobileone_mm.compat SCRIPT [ARGS...]``: run a program with the stand-ins from its start.

For programs of others, such as mmdet's ``tools/test.py``: they import their host before they read
the config that imports this package.
"""

import multiprocessing
import os
import runpy
import sys
from collections.abc import Sequence
from importlib.util import decode_source
from pathlib import Path
from types import ModuleType

from . import install

USAGE = 'usage: python -m mobileone_mm.compat (SCRIPT | -m MODULE) [ARGS...]'


def main(argv: Sequence[str]) -> int:
    """Run the program that ``argv`` names; return 2 if it names none, else 0 at its end."""
    if argv and argv[0] in ('-h', '--help'):
        print(USAGE)
        return 0
    by_name = bool(argv) and argv[0] == '-m'
    words = list(argv[1:] if by_name else argv)
    if not words or (words[0].startswith('-') and not by_name):
        print(USAGE, file=sys.stderr)
        return 2
    if not by_name and (problem := _problem(Path(words[0]))):
        print(f'SCRIPT: {words[0]} {problem}; give the path of a script', file=sys.stderr)
        return 2
    install()
    # By default a fork server runs the main program before it imports this package.
    if 'forkserver' in multiprocessing.get_all_start_methods():
        multiprocessing.set_forkserver_preload([str(__package__)])
    sys.argv[:] = words
    if by_name:
        runpy.run_module(words[0], run_name='__main__', alter_sys=True)
    else:
        _run_file(os.path.abspath(words[0]))
    return 0


def _problem(script: Path) -> str | None:
    if not script.is_file():
        return 'is not a file'
    try:
        text = decode_source(script.read_bytes())
    except (SyntaxError, UnicodeDecodeError):
        return 'is not a Python file'
    return 'is not a Python file' if '\0' in text else None


def _run_file(path: str) -> None:
    """Run a script; unlike ``runpy.run_path`` this leaves ``sys.argv[0]`` as the user wrote it."""
    if not getattr(sys.flags, 'safe_path', False):  # Python 3.11: -P leaves out this entry
        sys.path[0] = str(Path(path).resolve().parent)
    if not any(Path(entry, 'mobileone_mm').is_dir() for entry in sys.path):
        sys.path.append(str(Path(__file__).resolve().parents[2]))  # for imports of this package
    module = ModuleType('__main__')
    module.__file__ = path
    sys.modules['__main__'] = module
    exec(compile(Path(path).read_bytes(), path, 'exec'), vars(module))


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
