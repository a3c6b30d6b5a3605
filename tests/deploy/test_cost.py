"""Time and memory of a conversion: the largest classifier, in a process of its own."""

import json
from pathlib import Path

import pytest
import torch

from helpers import ROOT, python, randomize_
from mobileone_mm.config.read import load_config
from mobileone_mm.deploy.config import build_model

CONFIG = ROOT / 'configs' / 'mobileone_s4_in1k.py'
# Anonymous memory only: pages of the libraries' files depend on what else the machine does.
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
def test_s4_in_ten_seconds_and_twelve_times_the_file(tmp_path):
    pytest.importorskip('mmpretrain')
    model = randomize_(build_model(load_config(CONFIG)))
    weights = tmp_path / 's4.pth'
    torch.save({'state_dict': model.state_dict(), 'meta': {}}, weights)
    del model
    done = python('-c', SCRIPT, CONFIG, weights, tmp_path / 'out.pth')
    cost = json.loads(done.stdout.splitlines()[-1])
    size = weights.stat().st_size
    print(f'{cost["seconds"]:.1f} s, {cost["bytes"] / size:.2f} times the file of {size} bytes')
    assert cost['bytes'] < 12 * size
    # The shorter of wall and processor time: other processes of the machine do not count.
    assert min(cost['seconds'], cost['cpu']) < 10
