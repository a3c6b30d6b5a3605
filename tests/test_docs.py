"""The files, functions and links that the documentation names exist."""

import re
from pathlib import Path

import pytest

from helpers import ROOT

PACKAGE = ROOT / 'mobileone_mm'
WALKS = (ROOT / 'docs' / 'architecture.md').read_text().partition('## Walk 1')[2]
WALKS = WALKS[: WALKS.index('## Decisions')]
PAGES = [*sorted((ROOT / 'docs').glob('*.md')), ROOT / 'README.md', ROOT / 'CONTRIBUTING.md']
FILE = re.compile(r'(?<![\w/.{$-])((?:[a-z_]+/)+[a-z_0-9]+\.py)\b')
LINK = re.compile(r'\]\(([^)#:\s]+)(?:#[^)]*)?\)')
#: first folders of paths that belong to this project and not to a user or a host
OWN = {path.name for path in (*PACKAGE.iterdir(), *ROOT.iterdir()) if path.is_dir()}


def _own_files(text: str) -> set[str]:
    return {name for name in FILE.findall(text) if name.split('/')[0] in OWN}


def _find(name: str) -> Path | None:
    return next((base / name for base in (ROOT, PACKAGE) if (base / name).is_file()), None)


@pytest.mark.parametrize('page', PAGES, ids=lambda path: path.name)
def test_named_files_and_links_exist(page):
    text = page.read_text()
    missing = {name for name in _own_files(text) if _find(name) is None}
    broken = {name for name in LINK.findall(text) if not (page.parent / name).exists()}
    assert (missing, broken) == (set(), set())


def test_functions_of_the_walks_are_in_the_files_of_the_page():
    code = '\n'.join(path.read_text() for name in _own_files(WALKS) if (path := _find(name)))
    code += (PACKAGE / 'registry.py').read_text() + (PACKAGE / 'files.py').read_text()
    names = {name.rpartition('.')[2] for name in re.findall(r'`(\w+(?:\.\w+)?)`', WALKS)}
    hosts = {'PackInputs', 'data_preprocessor', 'CONFIG', 'load_from', 'init_cfg', 'train'}
    changes = set(re.findall(r"^    '(\w+)': steps\.", code, re.MULTILINE))
    lost = {
        name
        for name in names - hosts - changes - {'py'}
        if not re.search(rf'(def|class) {name}\b|^{name}\b.* = ', code, re.MULTILINE)
    }
    assert lost == set()


def test_a_file_that_stands_beside_a_function_defines_it():
    """The page writes ``FILE, FUNCTION``, or ``FUNCTION`` before the file in brackets."""
    walks = re.sub(r'\s+', ' ', WALKS)
    first = re.findall(r'`([\w/]+\.py)`, `([\w.]+)`', walks)
    last = [(file, name) for name, file in re.findall(r'`([\w.]+)` \(`([\w/]+\.py)`\)', walks)]
    assert len(first) + len(last) > 60
    for file, name in first + last:
        text, word = _find(file).read_text(), name.split('.')[-1]
        assert re.search(rf'^( *(def|class) {word}\b|{word}\b.* = )', text, re.MULTILINE), name
