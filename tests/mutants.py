"""Change the core in small ways and count how many changes the tests notice (``make mutants``).

  python tests/mutants.py                          # 60 mutants of all packages of the core
  python tests/mutants.py reparam models --num 40 --seed 3

Each mutant is one change of one expression or statement, for example ``<`` to ``<=``, a number plus
one, a removed guard or a removed default. The tests that mirror its package run against it, the
fastest file first, until one fails. A mutant that no test notices survives: either a test is missing,
or the code is not needed, or the mutant computes the same (an equivalent mutant). The changes are made
in temporary copies of the project. Messages, log lines, annotations and ``__repr__`` are not changed.
"""

from __future__ import annotations

import argparse
import ast
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import Queue
from typing import NamedTuple
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[1]
# The folders of tests that mirror each package of the core.
MIRRORS = {
    'reparam': ('reparam',),
    'models': ('models',),
    'weights': ('weights',),
    'training': ('hooks', 'training'),
    'hooks': ('hooks', 'training'),
    'deploy': ('deploy',),
}
SWAPS: dict[type, type] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE,
    ast.GtE: ast.Gt, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.And: ast.Or, ast.Or: ast.And, ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div,
    ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult,
}  # fmt: skip
# Each run is a fork of a process that has imported the slow packages.
FORKS = multiprocessing.get_context('forkserver')
LOGGING = {'debug', 'info', 'warning', 'print_log'}


class Mutant(NamedTuple):
    """One change: the number of its place in a file, and of the change at this place."""

    package: str
    path: str
    place: int
    number: int
    line: int
    change: str


def changes(node: ast.AST) -> Iterator[tuple[str, Callable[[], ast.AST | None]]]:
    """Yield the description of each change of a node, and a function that makes it.

    The function changes the node in place, or returns the node to put in its place.
    """
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        new = SWAPS[type(node.ops[0])]()
        yield f'compare with {type(new).__name__}', lambda: setattr(node, 'ops', [new])
    elif isinstance(node, (ast.BoolOp, ast.BinOp, ast.AugAssign)) and type(node.op) in SWAPS:
        op = SWAPS[type(node.op)]()
        yield f'operator {type(op).__name__}', lambda: setattr(node, 'op', op)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield 'remove not', lambda: node.operand
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield f'{not node.value}', lambda: setattr(node, 'value', not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        number = node.value
        yield f'{number} + 1', lambda: setattr(node, 'value', number + 1)
        if number not in (0, 1):
            yield f'{number} to 0', lambda: setattr(node, 'value', 0)
    elif isinstance(node, ast.If):
        yield 'condition False', lambda: setattr(node, 'test', ast.Constant(False))
        yield 'condition True', lambda: setattr(node, 'test', ast.Constant(True))
    elif isinstance(node, ast.IfExp):
        yield 'always the first', lambda: node.body
        yield 'always the second', lambda: node.orelse
    elif isinstance(node, ast.Raise):
        yield 'remove raise', ast.Pass
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield 'remove the statement', ast.Pass
    elif isinstance(node, ast.Call) and node.keywords:
        for i, keyword in enumerate(node.keywords):
            if keyword.arg:
                yield (
                    f'remove the argument {keyword.arg}',
                    lambda i=i: node.keywords.pop(i) and None,
                )
    elif isinstance(node, ast.Return) and node.value and not isinstance(node.value, ast.Constant):
        yield 'return None', lambda: setattr(node, 'value', ast.Constant(None))
    elif isinstance(node, ast.arguments):
        for i, default in enumerate(node.kw_defaults):
            if default is not None:
                yield 'remove a default', lambda i=i: node.kw_defaults.__setitem__(i, None)
        if node.defaults:
            yield 'remove the first default', lambda: node.defaults.pop(0) and None


def is_message(node: ast.AST) -> bool:
    """Return whether a node is text for the user: a log line, a docstring or an f-string."""
    if isinstance(node, ast.Expr):
        node = node.value
    if isinstance(node, ast.Call):
        name = (
            node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, 'id', '')
        )
        return name in LOGGING
    return isinstance(node, ast.JoinedStr) or getattr(node, 'name', '') in ('__repr__', '__str__')


def sites(node: ast.AST) -> Iterator[tuple[ast.AST, str, ast.AST]]:
    """Yield the parent, the field and the node of everything that may change, in a fixed order."""
    for field, value in ast.iter_fields(node):
        if field in ('annotation', 'returns', 'decorator_list', 'exc', 'cause', 'bases'):
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or is_message(child):
                continue
            typing = isinstance(child, ast.If) and 'TYPE_CHECKING' in ast.dump(child.test)
            if not typing and not isinstance(child, (ast.Import, ast.ImportFrom)):
                yield node, field, child
                yield from sites(child)


def mutants_of(package: str) -> Iterator[Mutant]:
    """Yield all mutants of a package."""
    for file in sorted((ROOT / 'mobileone_mm' / package).rglob('*.py')):
        path = str(file.relative_to(ROOT))
        for place, (parent, _, node) in enumerate(sites(ast.parse(file.read_text()))):
            line = getattr(node, 'lineno', None) or getattr(parent, 'lineno', 0)
            for number, (change, _) in enumerate(changes(node)):
                yield Mutant(package, path, place, number, line, change)


def mutated(mutant: Mutant, text: str) -> str:
    """Return the source of a file with a change."""
    tree = ast.parse(text)
    parent, field, node = list(sites(tree))[mutant.place]
    _, change = list(changes(node))[mutant.number]
    new = change()
    if new is not None:
        value = getattr(parent, field)
        if isinstance(value, list):
            value[value.index(node)] = new
        else:
            setattr(parent, field, new)
    return ast.unparse(ast.fix_missing_locations(tree))


class Copy:
    """A temporary copy of the project whose tests run in one process at a time."""

    def __init__(self, folder: Path) -> None:
        self.root = folder
        names = ('mobileone_mm', 'tests', 'configs', 'tools', 'demo', 'docs', 'pyproject.toml')
        for name in (*names, 'README.md', 'Makefile', 'setup.py'):
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns('__pycache__'))
            elif source.exists():
                shutil.copy(source, folder / name)

    def run(self, paths: list[str], timeout: float, *options: str) -> tuple[int | None, float]:
        """Run tests; return their exit code, None after the time limit, and the seconds."""
        arguments = ['-x', '-q', '-p', 'no:cacheprovider', *options, *paths]
        process = FORKS.Process(target=run_pytest, args=(self.root, arguments))
        start = time.monotonic()
        process.start()
        process.join(timeout)
        code = process.exitcode
        if code is None:
            with suppress(ProcessLookupError):
                os.killpg(
                    process.pid or 0, signal.SIGKILL
                )  # with the processes that a test started
            process.join()
        return code, time.monotonic() - start


def run_pytest(root: Path, arguments: list[str]) -> None:
    """Run pytest in this process, in a copy of the project, without output."""
    os.setsid()
    os.chdir(root)
    os.environ['PYTHONPATH'] = str(root)
    sys.path.insert(0, str(root))
    sys.dont_write_bytecode = True  # a mutant may have the size and time of the file before
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    sys.exit(int(pytest.main(arguments)))


def fastest_first(copy: Copy, folders: tuple[str, ...]) -> tuple[list[str], float]:
    """Return the test files of folders by the time they take, and the time of all."""
    report = copy.root / 'report.xml'
    paths = [f'tests/{name}' for name in folders]
    code, seconds = copy.run(paths, 3600, f'--junitxml={report}')
    if code != 0:
        sys.exit(f'error: {", ".join(paths)}: tests fail without a mutant (exit code {code})')
    times: dict[str, float] = {}
    for case in ElementTree.parse(report).iter('testcase'):
        path = case.get('classname', '').replace('.', '/') + '.py'
        times[path] = times.get(path, 0) + float(case.get('time', 0))
    return sorted(times, key=times.__getitem__), seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('packages', nargs='*', metavar='package', help=', '.join(MIRRORS))
    parser.add_argument('--num', type=int, default=60, help='mutants in all (default: 60)')
    parser.add_argument('--seed', type=int, default=0, help='seed of the sample (default: 0)')
    parser.add_argument('--jobs', type=int, default=2, help='mutants at a time (default: 2)')
    args = parser.parse_args()
    if unknown := set(args.packages) - set(MIRRORS):
        parser.error(f'package: got {", ".join(unknown)}; expected {", ".join(MIRRORS)}')
    packages = args.packages or list(MIRRORS)
    os.environ.update(OMP_NUM_THREADS='1', MPLBACKEND='Agg', PYTHONDONTWRITEBYTECODE='1')
    FORKS.set_forkserver_preload(['torch', 'mmengine.runner', 'cv2', 'pytest'])
    everything = [mutant for package in packages for mutant in mutants_of(package)]
    sample = random.Random(args.seed).sample(everything, min(args.num, len(everything)))
    print(f'{len(sample)} of {len(everything)} mutants, seed {args.seed}', flush=True)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(args.jobs) as pool:
        copies: Queue[Copy] = Queue()
        for number in range(args.jobs):
            copies.put(Copy(Path(folder, str(number))))

        def borrow(work: Callable, *given: object) -> object:
            copy = copies.get()
            try:
                return work(copy, *given)
            finally:
                copies.put(copy)

        used = sorted({MIRRORS[mutant.package] for mutant in sample})
        order = dict(zip(used, pool.map(lambda f: borrow(fastest_first, f), used), strict=True))

        def judge(copy: Copy, mutant: Mutant) -> str:
            paths, seconds = order[MIRRORS[mutant.package]]
            stem = Path(mutant.path).stem
            file = copy.root / mutant.path
            original = file.read_text()
            file.write_text(mutated(mutant, original))
            try:
                first = sorted(paths, key=lambda path: stem not in path)  # stable: then by time
                code, _ = copy.run(first, 3 * seconds + 60)
            finally:
                file.write_text(original)
            outcome = {0: 'SURVIVED', None: 'timed out'}.get(code, 'killed')
            print(f'{outcome:9} {mutant.path}:{mutant.line}: {mutant.change}', flush=True)
            return outcome

        outcomes = list(pool.map(lambda mutant: borrow(judge, mutant), sample))
    killed = sum(outcome != 'SURVIVED' for outcome in outcomes)
    print(f'killed: {killed} of {len(sample)} ({killed / len(sample):.0%}); survivors:')
    for mutant, outcome in zip(sample, outcomes, strict=True):
        if outcome == 'SURVIVED':
            print(f'  {mutant.path}:{mutant.line}: {mutant.change}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
