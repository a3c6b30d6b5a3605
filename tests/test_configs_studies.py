"""The studies: their configs and every variant load, and differ in what their names say."""

from functools import cache

import pytest

from helpers import ROOT
from mobileone_mm import MobileOne, reparameterize_model
from mobileone_mm.apis.ablate import read_variants
from mobileone_mm.config.read import load_config

CONFIGS = ROOT / 'configs'
NEEDS = ('train_dataloader', 'train_cfg', 'optim_wrapper', 'val_dataloader', 'val_evaluator')
STUDIES = {
    's0_scratch_variants': CONFIGS / 'studies' / 's0_scratch.py',
    's0_finetune_variants': CONFIGS / 'mobileone_s0_finetune_folder.py',
}


@cache
def variants_of(study):
    found = read_variants(CONFIGS / 'studies' / f'{study}.py')
    return {name: load_config(STUDIES[study], found[name], NEEDS) for name in found}


@pytest.mark.parametrize('study', STUDIES)
def test_every_variant_is_another_run(study):
    texts = [cfg.pretty_text for cfg in variants_of(study).values()]
    assert len(set(texts)) == len(texts) >= 4


def test_every_net_of_the_study_is_the_same_in_deploy_form():
    scratch = variants_of('s0_scratch_variants')
    whole = {key: value.shape for key, value in MobileOne('s0', deploy=True).state_dict().items()}
    branches = {}
    for name, cfg in scratch.items():
        settings = {k: v for k, v in cfg.model.backbone.items() if k not in ('type', 'init_cfg')}
        model = MobileOne(**settings, init_cfg=None).eval()
        branches[name] = sum(p.numel() for p in model.parameters())
        fused = reparameterize_model(model)
        assert {key: value.shape for key, value in fused.state_dict().items()} == whole
    plain = branches.pop('no branches, usual start')
    assert plain < branches.pop('k = 1') < min(branches.values()) == max(branches.values())


def test_what_the_variants_change():
    """Without one hook, a variant has the other as the config has it."""
    scratch = variants_of('s0_scratch_variants')
    average, curriculum = scratch['whole recipe'].custom_hooks
    assert (average.type, curriculum.type) == ('EMAHook', 'mobileone_mm.CurriculumHook')
    assert scratch['no curriculum'].custom_hooks == [average]
    assert scratch['no EMA'].custom_hooks == [curriculum]
    assert scratch['whole recipe'].model.backbone.init_cfg.type == 'mobileone_mm.NearIdentityInit'
    for name in ('usual start', 'no branches, usual start'):
        kinds = [entry.type for entry in scratch[name].model.backbone.init_cfg]
        assert kinds == ['Kaiming', 'Constant']
    assert scratch['whole recipe'].param_scheduler[2].eta_min_ratio == 0.1
    assert scratch['weight decay not annealed'].param_scheduler[2].eta_min_ratio == 1.0
