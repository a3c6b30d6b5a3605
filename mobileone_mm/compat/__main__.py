"""``python -m mobileone_mm.compat SCRIPT [ARGS...]``: run a script with the stand-ins from its start.

For scripts of others, such as mmdet's ``tools/test.py``: they import their host before they read
the config that imports this package.
"""

import multiprocessing
import os
import sys
from collections.abc import Sequence
from importlib.util import decode_source
from pathlib import Path
from types import ModuleType

from . import install

USAGE = 'usage: python -m mobileone_mm.compat SCRIPT [ARGS...]'


def main(argv: Sequence[str]) -> int:
    """Run the script that ``argv`` names; return 2 if it names none, else 0 at its end."""
    if argv and argv[0] in ('-h', '--help'):
        print(USAGE)
        return 0
    if not argv or argv[0].startswith('-'):
        print(USAGE, file=sys.stderr)
        return 2
    if problem := _problem(Path(argv[0])):
        print(f'SCRIPT: {argv[0]} {problem}; give the path of a script', file=sys.stderr)
        return 2
    install()
    # By default a fork server runs the script before it imports this package.
    if 'forkserver' in multiprocessing.get_all_start_methods():
        multiprocessing.set_forkserver_preload([str(__package__)])
    # Unlike `runpy.run_path`, this leaves `sys.argv[0]` as the user wrote it.
    sys.argv[:] = argv
    path = os.path.abspath(argv[0])
    if not getattr(sys.flags, 'safe_path', False):  # Python 3.11: -P leaves out this entry
        sys.path[0] = str(Path(path).resolve().parent)
    if not any(Path(entry, 'mobileone_mm').is_dir() for entry in sys.path):
        sys.path.append(str(Path(__file__).resolve().parents[2]))  # for imports of this package
    module = sys.modules['__main__'] = ModuleType('__main__')
    module.__file__ = path
    exec(compile(Path(path).read_bytes(), path, 'exec'), vars(module))
    return 0


def _problem(script: Path) -> str | None:
    if not script.is_file():
        return 'is not a file'
    try:
        text = decode_source(script.read_bytes())
    except (SyntaxError, UnicodeDecodeError):
        text = '\0'
    return 'is not a Python file' if '\0' in text else None


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
