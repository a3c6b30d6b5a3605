"""Which norms an edit of the config folds, by small modules."""

import pytest
from torch import nn

from mobileone_mm.deploy import fold
from mobileone_mm.models import MobileOneBlock
from mobileone_mm.reparam.conv_norm import ConvNorm

PAIRS = {'a.bn': ConvNorm('a', 'a.conv', 'a.bn')}


def part(conv: nn.Module | None, **others: nn.Module) -> nn.Module:
    model = nn.Module()
    model.a = nn.Module()
    for name, module in {'conv': conv, **others}.items():
        if module is not None:
            model.a.add_module(name, module)
    return model


def conv(bias: bool = True, width: int = 4) -> nn.Module:
    return nn.Conv2d(width, 4, 1, bias=bias)


def before(**others: nn.Module) -> nn.Module:
    return part(conv(bias=False), bn=nn.BatchNorm2d(4), **others)


@pytest.mark.parametrize(
    ('original', 'edited', 'folded'),
    [
        (before(), part(conv()), {'a.bn'}),
        (before(), part(conv(), bn=nn.Identity()), {'a.bn'}),
        (part(conv(), bn=nn.BatchNorm2d(4)), part(conv()), {'a.bn'}),
        (before(), before(), set()),
        (before(x=nn.ReLU()), part(conv()), "the model would lose 'a.x'"),
        (before(x=nn.BatchNorm2d(4)), part(conv()), "'a.x' would also be removed, and it cannot"),
        (before(), part(conv(), x=nn.ReLU()), "the model would get 'a.x'"),
        (before(x=nn.ReLU()), part(conv(), x=nn.SiLU()), "'a.x' would become a SiLU"),
        (before(), part(conv(bias=False)), "'a.conv' would have no bias"),
        (before(), part(conv(width=8)), "'a.conv' would have other tensors"),
        (before(x=nn.BatchNorm2d(4)), part(conv(), x=nn.BatchNorm2d(4, affine=False)), "'a.x' would"),
        (before(x=conv(False)), part(conv(), x=conv()), "'a.x' would have other tensors"),
    ],
)  # fmt: skip
def test_what_an_edit_folds_and_changes(original, edited, folded):
    if isinstance(folded, set):
        assert fold._folded_by(original, edited, PAIRS) == folded
    else:
        with pytest.raises(ValueError, match=folded):
            fold._folded_by(original, edited, PAIRS)


def test_norms_of_another_backbone_of_other_kinds_and_of_no_part():
    model = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
    model.my_backbone = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
    model.neck = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), MobileOneBlock(4, 4, 1))
    model.head = nn.Sequential(nn.LayerNorm(4), nn.InstanceNorm2d(4), nn.BatchNorm2d(4))
    found = fold.foldable(model)
    assert found.pairs == [ConvNorm('neck', 'neck.0', 'neck.1')]
    assert found.left.pop('head.2')  # there is no layer
    assert found.left == {
        '1': 'is a direct child of the model, not of a part of it',
        'my_backbone.1': 'belongs to another backbone, which stays as it is',
        'head.0': 'is a LayerNorm, which depends on the input',
        'head.1': 'is a InstanceNorm2d, which depends on the input',
    }


def kind(init: object, base: type = object) -> type:
    return type('Kind', (base,), {'__init__': init} if init else {})


def test_places_of_norms_in_a_config():
    """Only an explicit None removes a norm that a class has by default."""
    default = kind(lambda self, norm_cfg=dict(type='BN'): None)
    inherits, forwards = kind(None, default), kind(lambda self, **kwargs: None, default)
    closed, plain = kind(lambda self, size=3: None, default), kind(lambda self, norm_cfg=None: None)
    kinds = (default, inherits, forwards, closed, plain, kind(forwards.__init__), 'Nothing')
    assert [fold._has_default(dict(type=kind)) for kind in kinds] == [True] * 3 + [False] * 4
    model = dict(
        type=plain,
        neck=[dict(type=inherits), dict(type=inherits, norm_cfg=None, dw_norm_cfg=dict(type='BN'))],
        own=dict(type='mobileone_mm.MobileOne', norm_cfg=dict(type='BN')),
        head=(dict(norm_cfg=dict(type='BN', norm_cfg=dict())),),
        img_backbone=dict(norm_cfg=dict()),
        teacher_config=dict(norm_cfg=dict()),
    )
    assert list(fold._places(model)) == [
        ('neck', 0, 'norm_cfg'),
        ('neck', 1, 'dw_norm_cfg'),
        ('head', 0, 'norm_cfg'),
    ]


@pytest.mark.parametrize(
    ('norm', 'refused', 'reason'),
    [
        ('neck.0.bn', {}, None),
        ('neck.0.bn', {('norm_cfg',): 'x'}, 'norm_cfg=None x'),
        ('neck.0.bn', {('head', 'norm_cfg'): 'x'}, None),
        ('neck.0.bn', {('neck', 1, 'norm_cfg'): 'x'}, None),
        ('neck.0.bn', {('neck', 0, 'norm_cfg'): 'x', ('norm_cfg',): 'y'}, 'neck.0.norm_cfg=None x'),
        ('neck.0.bn', {('norm_cfg',): 'y', ('neck', 'norm_cfg'): 'x'}, 'neck.norm_cfg=None x'),
    ],
)
def test_why_a_norm_stays(norm, refused, reason):
    missing = 'stays, because no norm_cfg of the config removes it'
    expected = missing if reason is None else f'stays, because with model.{reason}'
    assert fold._why_not(norm, refused) == expected
