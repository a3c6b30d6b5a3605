"""Random corruptions of checkpoints: 2,000 of fixed seeds, 200 of them in the default suite.

Bytes are flipped, cut, inserted, swapped and wiped; pickles get other instructions, numbers and names,
some of which would run code; zip files get right checksums afterwards, so that the damage reaches the
unpickler; headers of safetensors get other entries, types, numbers and lengths. Each file is loaded
into a model (same form, or fused or lifted on the way), and the result is fused, written, read back and
compared in float64. In a second round the same files go through `tools/switch_to_deploy.py`, with the
config of a classifier.

A case passes if it is refused by one printable line of InputError with the model untouched (the tool:
exit code 1 or 2, no file written or changed), or if it loads and the model's keys, shapes and types are
right, all numbers are finite, no variance is negative, and the written deploy form is the same function
as what was loaded. It fails by any other error, by code that runs, by a file that appears, by 20 s, by
memory (1 GiB), or by a change of the input.

What no reader can see, and what therefore does not count as wrong: *other finite numbers* in a file
without checksums. A zip file (what torch.save writes) has a CRC of each record, so there raw damage
must be refused or be harmless, and this is asserted. An older (legacy) file has none, a safetensors
file has none, and a file whose checksums were computed anew is another valid file: such a case may end
as "changed". Whoever needs more compares the SHA-256 that comes with a download.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

WORKER = Path(__file__).with_name('fuzz_worker.py')
ROOT = WORKER.parents[2]
FORMATS = ('zip', 'zip with CRC', 'legacy', 'safetensors')


def fuzz(what: str, folder: Path, first: int, last: int, seconds: int) -> list[dict]:
    """Outcomes of the cases first to last - 1, from a process of its own."""
    pytest.importorskip('safetensors')
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    # Warnings are tested elsewhere; here the zip module complains of what we make it write.
    argv = [sys.executable, '-W', 'ignore', WORKER, what, folder, str(first), str(last)]
    try:
        done = subprocess.run(
            argv, env=env, cwd=folder, timeout=seconds, capture_output=True, text=True, check=False
        )
    except subprocess.TimeoutExpired as error:
        pytest.fail(f'not done after {seconds} s; the last lines: {(error.stdout or b"")[-500:]!r}')
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"case"')]


def check(outcomes: list[dict], count: int, folder: Path) -> None:
    assert [outcome['case'] for outcome in outcomes] == sorted({o['case'] for o in outcomes})
    assert len(outcomes) == count
    faults = [outcome for outcome in outcomes if outcome.get('fault')]
    assert not faults, faults[:5]
    results = Counter((outcome['kind'], outcome['result']) for outcome in outcomes)
    assert not results['zip', 'changed']  # the checksums see it
    for kind in FORMATS:  # a fuzzer that changes nothing, or breaks all, would show nothing
        assert results[kind, 'refused'] > count / 8, results
    assert (
        sum(results[kind, 'right'] + results[kind, 'changed'] for kind in FORMATS) > count / 50
    ), results
    expected = {'case.pth', 'case.safetensors', 'config.py', 'out.pth'}
    assert {path.name for path in folder.iterdir()} <= expected


@pytest.mark.parametrize('what', ['load', 'convert'])
def test_two_hundred_corruptions(tmp_path, what):
    check(fuzz(what, tmp_path, 0, 200, seconds=300), 200, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize('part', range(4))
@pytest.mark.parametrize('what', ['load', 'convert'])
def test_two_thousand_corruptions(tmp_path, what, part):
    check(fuzz(what, tmp_path, 500 * part, 500 * part + 500, seconds=1700), 500, tmp_path)
