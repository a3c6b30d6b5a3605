"""Files with raw and averaged weights: which are taken, and what the log and the report say."""

import copy

import pytest
import torch

from helpers import Classifier, randomize_, same
from mobileone_mm.weights.fit import load_weights
from mobileone_mm.weights.forms import fuse_state
from mobileone_mm.weights.names import to_scheme


@pytest.fixture
def average() -> Classifier:
    return randomize_(Classifier(), seed=1).eval()


@pytest.fixture
def raw() -> Classifier:
    return randomize_(Classifier(), seed=2).eval()


def loaded(file: dict, expected: Classifier):
    """Load a file and check whose weights it gives."""
    model = Classifier()
    report = load_weights(model, file)
    assert same(model, expected)
    return report


@pytest.mark.parametrize('part', ['running_mean', 'branch_scale', ''])
def test_incomplete_averages_are_not_used(raw, part, said):
    """Some programs average the parameters only; such a set is no network."""
    state = raw.state_dict()
    averages = {k: v * 2 for k, v in state.items() if v.is_floating_point() and part not in k}
    file = {'state_dict': state, 'state_dict_ema': averages or {'decay': torch.ones(1)}}
    report = loaded(file, raw)
    assert not report.averaged
    assert report.dropped == ('state_dict_ema',)
    (line,) = said
    assert "('state_dict_ema') lack" in line
    assert "'state_dict' is used" in line


@pytest.mark.parametrize(
    ('raw_as', 'average_as'),
    [
        (lambda s: {k.replace('backbone.', 'backbone._orig_mod.'): s[k] for k in s}, dict),
        (dict, lambda s: {k.replace('backbone.', 'backbone.module.'): s[k] for k in s}),
        (dict, fuse_state),
        (fuse_state, dict),
        (lambda s: to_scheme(s, 'apple'), dict),
        (dict, lambda s: {k.replace('backbone.', 'encoder.'): s[k] for k in s}),
    ],
    ids=['wrapped raw', 'wrapped average', 'fused average', 'fused raw', 'naming', 'place'],
)
def test_averages_with_other_keys_than_the_raw_weights(raw, average, raw_as, average_as):
    """Two sets of one file may differ in prefixes, naming and form; the averaged one counts."""
    file = {'state_dict': raw_as(raw.state_dict())}
    file['state_dict_ema'] = average_as(average.state_dict())
    model = Classifier().eval()
    assert load_weights(model, file).averaged
    image = torch.rand(1, 3, 64, 64)
    assert torch.allclose(model.backbone(image)[-1], average.backbone(image)[-1], atol=1e-4)


@pytest.mark.parametrize(
    'names',
    [
        ('state_dict', 'state_dict_ema'),
        ('model_state', 'ema_state'),
        ('model_state_dict', 'model_state_dict_ema'),
        ('model_state_dict', 'ema_model_state_dict'),
        ('net', 'net_ema'),
        ('model', 'swa_model'),
        ('model', 'ema', 'shadow'),
        ('model', 'averaged_model', 'state_dict'),
        # Lightning keeps the state of each callback, by its name and arguments
        ('state_dict', 'callbacks', 'EMACallback', 'ema_state_dict'),
        ('state_dict', 'callbacks', "EMA{'decay': 0.99}", 'shadow'),
    ],
    ids='-'.join,
)
def test_names_of_averages(raw, average, names, said):
    state: dict = {f'module.{k}': v for k, v in average.state_dict().items()}
    state['steps'] = torch.tensor(3)
    for name in reversed(names[1:]):
        state = {name: state, 'decay': 0.99}
    report = loaded({names[0]: raw.state_dict(), **state}, average)
    assert (report.averaged, report.entry) == (True, '.'.join(names[1:]))
    assert names[0] in report.dropped
    (line,) = said
    assert f"averaged ones ('{report.entry}'); the averaged ones are used" in line


def test_a_list_of_averages_takes_the_names_of_the_raw_weights(raw, average, said):
    """NeMo's EMA callback for Lightning stores the tensors in the order of the state dict."""
    weights = list(average.state_dict().values())
    callbacks = {'EMA': {'cur_step': 7, 'ema_weights': weights}, 'ModelCheckpoint': {'best': None}}
    file = {'state_dict': raw.state_dict(), 'callbacks': callbacks}
    report = loaded(file, average)
    assert report.entry == 'callbacks.EMA.ema_weights'
    # torch_ema's list has the parameters only: what the others would be is not known
    callbacks['EMA']['ema_weights'] = list(average.parameters())
    report = loaded(file, raw)
    assert 'callbacks.EMA.ema_weights' in report.dropped
    assert "('callbacks.EMA.ema_weights') lack" in said[-1]


def test_lightnings_own_averages(raw, average, said):
    """Its callback WeightAveraging exchanges the two sets before it saves, as mmengine does."""
    file = {
        'state_dict': average.state_dict(),
        'current_model_state': raw.state_dict(),
        'averaging_state': {'n_averaged': torch.tensor(3)},
        'callbacks': {'WeightAveraging': {'latest_update_step': 3}},
    }
    report = loaded(file, average)
    assert (report.averaged, report.entry) == (True, 'state_dict')
    assert 'current_model_state' in report.dropped
    assert not said


def test_lightnings_swa_is_not_used(raw, average, said):
    """StochasticWeightAveraging leaves the BN statistics of its copy as they were at the start."""
    state = {'n_averaged': 3, 'average_model_state': average.state_dict()}
    file = {'state_dict': raw.state_dict(), 'callbacks': {'StochasticWeightAveraging': state}}
    report = loaded(file, raw)
    assert not report.averaged
    assert 'callbacks.StochasticWeightAveraging.average_model_state' in report.dropped
    assert 'BN statistics from the start of the training' in said[0]
    file['callbacks']['itself'] = file  # a file can hold that
    assert not loaded(file, raw).averaged
    state['average_model_state'] = None  # before the first epoch of the callback
    assert not loaded(file, raw).averaged


def test_the_choice_between_two_averages_is_said(raw, average, said):
    other = copy.deepcopy(raw).state_dict()
    file = {'model': raw.state_dict(), 'model_ema': average.state_dict(), 'model_swa': other}
    report = loaded(file, average)
    assert (report.entry, report.dropped) == ('model_ema', ('model', 'model_swa'))
    (line,) = said
    assert "several averaged sets ('model_ema', 'model_swa'); 'model_ema' is used" in line
    assert 'save it alone in a file' in line
    del file['model']
    assert loaded(file, average).entry == 'model_ema'
    assert 'several averaged sets' in said[1]
    # Where the first is incomplete, the second is the only one.
    file = {'model': raw.state_dict(), 'ema': {'x': torch.ones(1)}, 'swa': average.state_dict()}
    assert loaded(file, average).entry == 'swa'
    assert "('ema') lack" in said[2]
    assert 'the averaged ones are used' in said[3]
