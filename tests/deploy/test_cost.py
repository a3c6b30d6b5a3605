"""What a conversion costs: the largest classifier, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mobileone_mm.config.read import load_config
from mobileone_mm.deploy.config import build_model
from mobileone_mm.deploy.exact import in_float64, wholly_in_float64
from mobileone_mm.reparam.compare import randomize_

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / 'configs' / 'mobileone_s4_in1k.py'
# Memory of the process itself, at its highest: pages of the libraries' files come and go with what
# else the machine does.
SCRIPT = """
import json, sys, threading, time
import mobileone_mm
import mmpretrain.datasets, mmpretrain.models
import mobileone_mm.apis.switch_to_deploy

def own():
    lines = dict(line.split(':', 1) for line in open('/proc/self/status'))
    return int(lines['RssAnon'].split()[0]) * 1024

start, peak, done = own(), 0, threading.Event()

def watch():
    global peak
    while not done.wait(0.002):
        peak = max(peak, own())

thread = threading.Thread(target=watch)
thread.start()
began, used = time.perf_counter(), time.process_time()
mobileone_mm.apis.switch_to_deploy.switch_to_deploy(*sys.argv[1:4])
seconds, cpu = time.perf_counter() - began, time.process_time() - used
done.set()
thread.join()
print(json.dumps(dict(bytes=peak - start, seconds=seconds, cpu=cpu)))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path('/proc/self/status').is_file(), reason='reads memory from /proc')
def test_s4_in_ten_seconds_and_four_times_the_file(tmp_path):
    pytest.importorskip('mmpretrain')
    model = randomize_(build_model(load_config(CONFIG)))
    weights = tmp_path / 's4.pth'
    torch.save({'state_dict': model.state_dict(), 'meta': {}}, weights)
    del model
    done = subprocess.run(
        [sys.executable, '-c', SCRIPT, str(CONFIG), str(weights), str(tmp_path / 'out.pth')],
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    cost = json.loads(done.stdout.splitlines()[-1])
    size = weights.stat().st_size
    print(f'{cost["seconds"]:.1f} s, {cost["bytes"] / size:.2f} times the file of {size} bytes')
    assert cost['bytes'] < 4 * size
    # What others do on the machine is not our time: of wall and processor time the shorter counts.
    assert min(cost['seconds'], cost['cpu']) < 10


@pytest.mark.parametrize('way', [in_float64, wholly_in_float64])
def test_float64_and_back_changes_no_bit(way):
    net = dict(
        type='mobileone_mm.MobileOne', arch=dict(num_blocks=[1] * 4, width_factor=[0.125] * 4)
    )
    from mmengine.registry import MODELS

    model = randomize_(MODELS.build(net)).eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    inputs = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = model.double()(inputs.double())[0]
        model.float()
        with way(model):
            got = model(inputs.double())[0]
    assert torch.equal(got, expected)
    for key, value in model.state_dict().items():
        assert value.dtype == before[key].dtype
        assert torch.equal(value, before[key]), key


def test_a_run_that_fails_leaves_the_model_as_it_was():
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.Linear(7, 2))
    with pytest.raises(RuntimeError), in_float64(model):
        model(torch.rand(1, 3, 5, 5).double())
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
