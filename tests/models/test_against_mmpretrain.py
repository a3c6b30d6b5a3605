"""The same keys and the same function as mmpretrain's class, in both forms and both ways."""

import pytest
import torch

from helpers import randomize_
from mobileone_mm import MobileOne, reparameterize_model
from mobileone_mm.reparam.compare import max_difference

reference = pytest.importorskip('mmpretrain.models.backbones.mobileone')
STAGES = (0, 1, 2, 3)


@pytest.mark.parametrize('arch', ['s0', 's1', 's2', 's3', 's4'])
@pytest.mark.parametrize('deploy', [False, True])
def test_keys_and_shapes_of_five_sizes(arch, deploy):
    with torch.device('meta'):
        theirs = reference.MobileOne(arch, out_indices=STAGES, deploy=deploy).state_dict()
        ours = MobileOne(arch, out_indices=STAGES, deploy=deploy).state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


@pytest.mark.parametrize('arch', ['s0', 's4'])  # four branches, and squeeze-and-excitation
def test_function(arch):
    theirs = randomize_(reference.MobileOne(arch, out_indices=STAGES), seed=7).double()
    ours = MobileOne(arch, out_indices=STAGES).double()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    theirs.eval()  # returns None in mmpretrain
    ours.eval()
    x = torch.randn(2, 3, 32, 64, dtype=torch.float64)
    with torch.no_grad():
        expected = theirs(x)
        assert max_difference(expected, ours(x))[1] < 1e-12
        theirs.switch_to_deploy()
        fused = MobileOne(arch, out_indices=STAGES, deploy=True).double().eval()
        fused.load_state_dict(theirs.state_dict(), strict=True)
        assert max_difference(expected, fused(x))[1] < 1e-12
        deployed = reference.MobileOne(arch, out_indices=STAGES, deploy=True).double()
        deployed.eval()
        deployed.load_state_dict(reparameterize_model(ours).state_dict(), strict=True)
        assert max_difference(expected, deployed(x))[1] < 1e-12


@pytest.mark.parametrize('width_factor', [[0.3, 0.7, 1.1, 0.9], [0.25, 0.5, 0.5, 0.5]])
def test_custom_arch(width_factor):
    arch = dict(
        num_blocks=[1, 2, 3, 1],
        width_factor=width_factor,
        num_conv_branches=[1, 2, 1, 3],
        num_se_blocks=[1, 0, 2, 1],
    )
    theirs = randomize_(reference.MobileOne(arch, in_channels=4, out_indices=STAGES), 1).double()
    ours = MobileOne(arch, in_channels=4, out_indices=STAGES).double().eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    theirs.eval()
    x = torch.randn(1, 4, 48, 48, dtype=torch.float64)
    with torch.no_grad():
        assert max_difference(theirs(x), ours(x))[1] < 1e-12
