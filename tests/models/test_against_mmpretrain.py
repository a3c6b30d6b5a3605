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


OWN = dict(num_blocks=[1, 2, 3, 1], num_conv_branches=[1, 2, 1, 3], num_se_blocks=[1, 0, 2, 1])


@pytest.mark.parametrize(
    ('arch', 'channels'),
    [
        ('s0', 3),  # four branches
        ('s4', 3),  # squeeze-and-excitation
        (dict(OWN, width_factor=[0.3, 0.7, 1.1, 0.9]), 4),
        (dict(OWN, width_factor=[0.25, 0.5, 0.5, 0.5]), 4),
    ],
)
def test_function(arch, channels):
    options = dict(in_channels=channels, out_indices=STAGES)
    theirs = randomize_(reference.MobileOne(arch, **options), seed=7).double()
    ours = MobileOne(arch, **options).double()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    theirs.eval()  # returns None in mmpretrain
    ours.eval()
    x = torch.randn(2, channels, 32, 64, dtype=torch.float64)
    with torch.no_grad():
        expected = theirs(x)
        assert max_difference(expected, ours(x))[1] < 1e-12
        theirs.switch_to_deploy()
        fused = MobileOne(arch, **options, deploy=True).double().eval()
        fused.load_state_dict(theirs.state_dict(), strict=True)
        assert max_difference(expected, fused(x))[1] < 1e-12
        deployed = reference.MobileOne(arch, **options, deploy=True).double()
        deployed.eval()
        deployed.load_state_dict(reparameterize_model(ours).state_dict(), strict=True)
        assert max_difference(expected, deployed(x))[1] < 1e-12
