"""Change the core in small ways and count how many changes the tests notice (``make mutants``).

  python tests/mutants.py                          # 60 mutants of all packages of the core
  python tests/mutants.py reparam models --num 40 --seed 3

Each mutant is one change, for example ``<`` to ``<=``, a number plus one, a removed guard or default.
The tests that mirror its package run against it until one fails. If none fails, the mutant survives: a
test is missing, the code is not needed, or the mutant is equivalent. All changes are made in temporary
copies of the project. Messages, log lines, annotations and ``__repr__`` are not changed.
"""

import argparse
import ast
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from queue import Queue
from typing import Any, NamedTuple
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
# Arguments without an effect here: the locale has this encoding, and zip's `strict` only guards against
# faults of this project.
INERT = {"encoding='utf-8'", 'strict=True'}


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
            if is_excluded(keyword):
                continue
            name = f'remove the argument {keyword.arg or "**"}'
            yield name, lambda i=i: node.keywords.pop(i) and None
    elif isinstance(node, ast.Return) and node.value and not isinstance(node.value, ast.Constant):
        yield 'return None', lambda: setattr(node, 'value', ast.Constant(None))
    elif isinstance(node, ast.arguments) and node.defaults:
        yield 'remove the first default', lambda: node.defaults.pop(0) and None


def is_excluded(node: ast.AST) -> bool:
    """Return whether a node has no effect, or one that no test should see: log lines, ``__repr__``."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        name = node.value.func
        return getattr(name, 'attr', getattr(name, 'id', '')) in LOGGING
    if isinstance(node, ast.keyword):
        return ast.unparse(node) in INERT
    if isinstance(node, ast.If):
        return 'TYPE_CHECKING' in ast.dump(node.test)
    return isinstance(node, ast.JoinedStr) or getattr(node, 'name', '') in ('__repr__', '__str__')


def sites(node: ast.AST) -> Iterator[tuple[ast.AST, str, ast.AST]]:
    """Yield the parent, the field and the node of everything that may change, in a fixed order."""
    for field, value in ast.iter_fields(node):
        if field in ('annotation', 'returns', 'decorator_list', 'exc', 'cause', 'bases'):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not is_excluded(child):
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
        single = not isinstance(value, list)
        setattr(parent, field, new if single else [new if n is node else n for n in value])
    return ast.unparse(ast.fix_missing_locations(tree))


def copy_project(folder: Path) -> Path:
    """Copy all files that git knows or would add, and return the folder."""
    command = ['git', 'ls-files', '--cached', '--others', '--exclude-standard', '--deduplicate']
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for file in filter(Path.exists, map(ROOT.joinpath, listed.stdout.splitlines())):
        target = folder / file.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    return folder


def run_tests(
    root: Path, paths: list[str], timeout: float, *options: str
) -> tuple[int | None, float]:
    """Run tests of a copy; return their exit code, None after the time limit, and the seconds."""
    arguments = ['-x', '-q', '-p', 'no:cacheprovider', *options, *paths]
    process = FORKS.Process(target=run_pytest, args=(root, arguments))
    start = time.monotonic()
    process.start()
    process.join(timeout)
    if (code := process.exitcode) is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid or 0, signal.SIGKILL)  # with the processes that a test started
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


def fastest_first(root: Path, folders: tuple[str, ...]) -> tuple[list[str], float]:
    """Return the test files of folders by the time they take, and the time of all."""
    report = root / 'report.xml'
    paths = [f'tests/{name}' for name in folders]
    code, seconds = run_tests(root, paths, 3600, f'--junitxml={report}')
    if code != 0:
        raise SystemExit(f'error: {", ".join(paths)}: a test fails without a mutant')
    times: dict[str, float] = defaultdict(float)
    for case in ElementTree.parse(report).iter('testcase'):
        times[case.get('classname', '').replace('.', '/') + '.py'] += float(case.get('time', 0))
    return sorted(times, key=times.__getitem__), seconds


def judge(root: Path, mutant: Mutant, tests: tuple[list[str], float]) -> str:
    """Run the tests against a mutant, those of its file first, and print the outcome."""
    file = root / mutant.path
    original = file.read_text()
    file.write_text(mutated(mutant, original))
    try:
        first = sorted(tests[0], key=lambda path: file.stem not in path)  # stable: then by time
        code, _ = run_tests(root, first, 3 * tests[1] + 60)
    finally:
        file.write_text(original)
    outcome = {0: 'SURVIVED', None: 'timed out'}.get(code, 'killed')
    print(f'{outcome:9} {mutant.path}:{mutant.line}: {mutant.change}', flush=True)
    return outcome


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    # With choices, argparse of Python 3.10 and 3.11 refuses an empty list as the default.
    choices = ['all', *MIRRORS]
    parser.add_argument('packages', nargs='*', default='all', choices=choices, help='default: all')
    parser.add_argument('--num', type=int, default=60, help='number of mutants (default: 60)')
    parser.add_argument('--seed', type=int, default=0, help='seed of the sample (default: 0)')
    parser.add_argument('--jobs', type=int, default=2, help='mutants at a time (default: 2)')
    args = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS='1', MPLBACKEND='Agg', PYTHONDONTWRITEBYTECODE='1')
    FORKS.set_forkserver_preload(['torch', 'mmengine.runner', 'cv2', 'pytest'])
    packages = MIRRORS if 'all' in args.packages else args.packages
    everything = [m for package in packages for m in mutants_of(package)]
    sample = random.Random(args.seed).sample(everything, min(args.num, len(everything)))
    print(f'{len(sample)} of {len(everything)} mutants, seed {args.seed}', flush=True)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(args.jobs) as pool:
        copies: Queue[Path] = Queue()
        for number in range(args.jobs):
            copies.put(copy_project(Path(folder, str(number))))

        def in_a_copy(work: Callable[..., Any], *given: Any) -> Any:
            root = copies.get()
            try:
                return work(root, *given)
            finally:
                copies.put(root)

        used = sorted({MIRRORS[mutant.package] for mutant in sample})
        order = dict(zip(used, pool.map(partial(in_a_copy, fastest_first), used), strict=True))
        outcomes = list(pool.map(lambda m: in_a_copy(judge, m, order[MIRRORS[m.package]]), sample))
    survivors = [m for m, outcome in zip(sample, outcomes, strict=True) if outcome == 'SURVIVED']
    print(f'killed: {1 - len(survivors) / len(sample):.0%} of {len(sample)}; survivors:')
    print(*(f'  {m.path}:{m.line}: {m.change}' for m in survivors), sep='\n')


if __name__ == '__main__':
    main()
