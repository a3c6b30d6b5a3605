"""What a written pair is for: the hosts' own functions in a fresh process, our tools, the metric."""

import json
import os
from itertools import product
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from PIL import Image

from helpers import python
from mobileone_mm.deploy.config import build_model

HOSTS = {
    'cls': ('mmpretrain', 'get_model', "(CONFIG, pretrained=WEIGHTS, device='cpu')"),
    'det': ('mmdet.apis', 'init_detector', "(CONFIG, WEIGHTS, device='cpu')"),
    'seg': ('mmseg.apis', 'init_model', "(CONFIG, WEIGHTS, device='cpu')"),
}
INFER = {
    'cls': 'import mmpretrain\n'
    'mmpretrain.ImageClassificationInferencer(model, classes=range(1000))(IMAGE)',
    'det': 'from mmdet.apis import inference_detector\ninference_detector(model, IMAGE)',
    'seg': 'from mmseg.apis import inference_model\ninference_model(model, IMAGE)',
}
SCRIPT = """
import sys
{before}
from {module} import {function}
CONFIG, WEIGHTS, expected, IMAGE = sys.argv[1:]
model = {function}{call}
import torch
reference = torch.load(expected)
with torch.no_grad():
    found = model.extract_feat(reference['inputs'])
assert torch.equal(found[0], reference['feature']), (found[0] - reference['feature']).abs().max()
assert model.backbone.deploy and not model.training
meta = getattr(model, 'dataset_meta', None) or model._dataset_meta
assert len(meta['classes']) == 3
assert not any(type(m).__name__.endswith('BatchNorm2d') for m in model.modules())
{infer}
print('loaded', {module!r})
"""


BY_CONFIG = 'from mmengine.config import Config\nConfig.fromfile(sys.argv[1])', ()
BY_RUNNER = '', ('-m', 'mobileone_mm.compat')


@pytest.mark.parametrize(
    ('task', 'how'),
    [
        ('cls', BY_CONFIG),
        *(pytest.param(*case, marks=pytest.mark.slow)
          for case in product(HOSTS, (BY_CONFIG, BY_RUNNER)) if case != ('cls', BY_CONFIG)),
    ],
)  # fmt: skip
def test_the_hosts_own_functions_in_a_fresh_process(task, how, trained, tool, tmp_path):
    """Nothing of ours is imported by hand.

    A config that is read before the host is imported is enough; else, where compiled operators are
    missing, the runner for foreign scripts puts the stand-ins in place first.
    """
    pytest.importorskip(HOSTS[task][0].partition('.')[0])
    config, checkpoint = trained(task)
    out = tmp_path / 'pair' / 'deploy.pth'
    assert tool('switch_to_deploy', config, checkpoint, out) == 0
    text = out.with_suffix('.py').read_text()
    config.unlink()
    model = build_model(Config.fromstring(text, '.py')).eval()
    model.load_state_dict(torch.load(out, weights_only=True)['state_dict'])
    inputs = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        feature = model.extract_feat(inputs)[0]
    torch.save({'inputs': inputs, 'feature': feature}, tmp_path / 'expected.pt')
    module, function, call = HOSTS[task]
    script = tmp_path / 'script.py'
    Image.effect_noise((80, 60), 60).convert('RGB').save(tmp_path / 'image.png')
    argv = (out.with_suffix('.py'), out, tmp_path / 'expected.pt', tmp_path / 'image.png')
    before, runner = how
    parts = dict(before=before, module=module, function=function, call=call, infer=INFER[task])
    script.write_text(SCRIPT.format(**parts))
    done = python(*runner, script, *argv, cwd=tmp_path)
    assert f'loaded {module}' in done.stdout


def test_safetensors_by_our_tools_and_by_mmengine(trained, tool, tmp_path, fresh_mmengine):
    safetensors = pytest.importorskip('safetensors')
    from mmengine.runner import checkpoint as host

    config, checkpoint = trained('cls')
    out = tmp_path / 'deploy.safetensors'
    assert tool('switch_to_deploy', config, checkpoint, out) == 0
    report = json.loads(out.with_suffix('.json').read_text())
    assert report['meta']['dataset_meta']['classes'] == ['a', 'b', 'c']
    with safetensors.safe_open(out, 'pt') as file:
        assert file.metadata()['source_sha256'] == report['source']['sha256']
    pair = (out.with_suffix('.py'), out)
    assert tool('test', *pair, '--work-dir', tmp_path / 'test') == 0
    image = next(Path(os.environ['IMAGENET_ROOT']).rglob('*.JPEG'))
    assert tool('predict', *pair, image, '--out-dir', tmp_path / 'predicted') == 0
    assert (tmp_path / 'predicted' / 'predictions.json').is_file()
    model = build_model(Config.fromstring(pair[0].read_text(), '.py'))
    loaded = host.load_checkpoint(model, str(out), map_location='cpu', strict=True)
    assert loaded['state_dict'].keys() == model.state_dict().keys()
