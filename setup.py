"""Build the package; metadata is in pyproject.toml.

Its one duty is the folder ``mobileone_mm/.mim``, where ``mim`` looks for a package's configs, tools
and model index: copied into wheels, linked in editable installs so that edits are seen.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
MIM_ENTRIES = ('configs', 'tools', 'model-index.yml')


class BuildWithMim(build_py):
    """build_py that adds ``.mim``; bdist_wheel and (by PEP 660) editable_wheel both run it."""

    def run(self) -> None:
        super().run()
        target = (ROOT if self.editable_mode else Path(self.build_lib)) / 'mobileone_mm' / '.mim'
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for entry in MIM_ENTRIES:
            source = ROOT / entry
            if not source.exists():
                raise FileNotFoundError(
                    f'{entry}: not beside setup.py; the source tree is incomplete'
                )
            if self.editable_mode and _linked(source, target / entry):
                continue
            if source.is_dir():
                ignored = shutil.ignore_patterns('__pycache__', '*.pyc')
                shutil.copytree(source, target / entry, ignore=ignored)
            else:
                shutil.copy2(source, target / entry)


def _linked(source: Path, target: Path) -> bool:
    try:
        target.symlink_to(os.path.relpath(source, target.parent), source.is_dir())
    except OSError:  # Windows without the right to make links
        return False
    return True


setup(cmdclass={'build_py': BuildWithMim})
