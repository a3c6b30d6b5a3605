"""Stored outputs: written whole, read safely, and only for the view that the teachers saw."""

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from mobileone_mm.distill.stored import (
    DamagedViewError,
    OutputsMeta,
    TeacherOutputs,
    image_key,
    open_view,
    plain_config,
    view_path,
    write_view,
)
from mobileone_mm.distill.views import FixedView, StoredView, signature_of, use_stored_outputs
from mobileone_mm.errors import InputError
from mobileone_mm.runs.changes import Flags, faster_transforms

NAMES = [f'train/n{label:08d}/{label}_{index}.jpg' for label in range(3) for index in range(2)]
CROP = dict(type='RandomResizedCrop', scale=32, backend='pillow')
VIEW = [CROP, dict(type='RandomFlip', prob=0.5, direction='horizontal'),
        dict(type='AutoAugment', policies='imagenet')]  # fmt: skip
PIPELINE = [dict(type='LoadImageFromFile'), *VIEW, dict(type='PackInputs')]


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp('data')
    generator = np.random.default_rng(0)
    for name in NAMES:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        small = generator.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        cv2.imwrite(str(path), cv2.resize(small, (80, 60), interpolation=cv2.INTER_CUBIC))
    return root


def loaded(root, name, **changes):
    path = Path(root, name)
    return dict(img_path=str(path), img=cv2.imread(str(path)), gt_label=1) | changes


def store(root, folder, views=2, classes=20, topk=4, transforms=VIEW):
    """Outputs as the tool writes them, of random numbers; the full probabilities, by name and view."""
    generator = np.random.default_rng(1)
    full = {}
    names, plain = sorted(NAMES, key=image_key), plain_config(transforms)
    meta = OutputsMeta(classes, topk, 1.0, [dict(timm='a')], ['f'], plain, 7, 'i')
    for view in range(views):
        fixed = FixedView(transforms, str(root), 7)
        fixed.view = view
        rows = meta.rows([image_key(name) for name in names])
        for row, name in zip(rows, names, strict=True):
            result = fixed.transform(loaded(root, name))
            assert result['teacher_key'] == row['key']
            row['signature'] = result['teacher_signature']
            p = generator.dirichlet(np.full(classes, 0.3))
            if classes > 1 << 16:  # the number of the greatest class needs 32 bits
                p.sort()
            full[name, view] = p, result['img']
            if topk < classes:
                row['classes'] = np.argsort(-p)[:topk]
                p = p[row['classes']]
            row['scores'] = p
        write_view(view_path(folder, view), rows, meta)
    return full


@pytest.fixture
def stored(images, tmp_path):
    return images, tmp_path / 'out', store(images, tmp_path / 'out')


def test_the_same_view_and_its_labels(stored, tmp_path):
    root, folder, full = stored
    moved = shutil.copytree(root, tmp_path / 'elsewhere')  # another machine, another root
    transform = pickle.loads(pickle.dumps(StoredView(VIEW, str(folder))))  # as in a worker
    seen, after = set(), {}
    for round_ in range(8):
        for name in NAMES:
            np.random.seed(round_)
            result = transform.transform(loaded(moved, name))
            # What an image draws depends on its view, what follows on the run's own stream.
            drawn = np.random.rand()
            assert after.setdefault(round_, drawn) == drawn
            p, image = full[name, result['teacher_view']]
            assert np.array_equal(result['img'], image)
            assert result['gt_label'] == 1
            score = result['gt_score']
            assert score.dtype == np.float32
            assert score.sum() == pytest.approx(1, abs=1e-6)
            top = np.argsort(-p)[:4]
            np.testing.assert_allclose(score[top], p[top], rtol=2e-3, atol=1e-6)
            rest = np.delete(score, top)
            assert np.ptp(rest) < 1e-7
            assert rest.sum() == pytest.approx(1 - p[top].sum(), abs=2e-3)
            seen.add((name, result['teacher_view']))
    assert len(seen) == 12  # both views of all images
    assert not np.array_equal(full[NAMES[0], 0][1], full[NAMES[0], 1][1])


@pytest.mark.parametrize(('classes', 'topk'), [(20, 20), (70_000, 4)])
def test_all_and_many_classes(images, tmp_path, classes, topk):
    full = store(images, tmp_path, views=1, classes=classes, topk=topk)
    score = StoredView(VIEW, str(tmp_path)).transform(loaded(images, NAMES[3]))['gt_score']
    p = full[NAMES[3], 0][0]
    top = np.argsort(-p)[:topk]
    np.testing.assert_allclose(score[top], p[top], rtol=2e-3, atol=1e-6)


def test_refused_at_an_image(stored):
    root, folder, _ = stored
    transform = StoredView(VIEW, str(folder))
    for change, message in (
        (dict(img_path='/train/n00000009/x.jpg'), 'nothing for the image .*n00000009/x.jpg'),
        (dict(img=np.zeros((60, 80, 3), np.uint8)), 'is not the one that the teachers saw'),
    ):
        with pytest.raises(InputError, match=message):
            transform.transform(loaded(root, NAMES[0], **change))


def test_other_transforms_are_refused(stored):
    """Our AutoAugment is another one: its hparams are in force, so that it makes other pixels."""
    ours = {**VIEW[2], 'type': 'mobileone_mm.AutoAugment'}
    for transforms in (VIEW[:2], [{**CROP, 'scale': 64}, *VIEW[1:]], [*VIEW[:2], ours]):
        with pytest.raises(InputError, match='have other transforms'):
            StoredView(transforms, str(stored[1]))


def test_a_slightly_different_decoder_is_the_same_view(images, tmp_path):
    # Transforms such as equalisation or posterisation would spread the difference; crop and flip.
    store(images, tmp_path, transforms=VIEW[:2])
    result = loaded(images, NAMES[0])
    result['img'] = np.clip(result['img'].astype(int) + 1, 0, 255).astype(np.uint8)
    assert StoredView(VIEW[:2], str(tmp_path)).transform(result)['teacher_view'] in (0, 1)


@pytest.mark.parametrize('prefix', ['', 'mmpretrain.', 'mobileone_mm.'])
def test_faster_transforms_are_those_of_the_config(images, tmp_path, prefix):
    """The config names a transform in any way; the tools put the faster one in its place."""
    rand = dict(type='RandAugment', policies='timm_increasing', num_policies=2, magnitude_level=9)
    nested = dict(type='RandomApply', transforms=[rand], prob=0.5)
    store(images, tmp_path / 'out', transforms=[CROP, rand, nested])
    named = [{**step, 'type': prefix + step['type']} for step in (CROP, rand)]
    named.append({**nested, 'transforms': named[1:2]})
    cfg = _config([PIPELINE[0], *named, PIPELINE[-1]], outputs=str(tmp_path / 'out'))
    cfg.default_scope = 'mmpretrain'
    use_stored_outputs(cfg)
    faster_transforms(cfg, Flags())
    view = cfg.train_dataloader.dataset.dataset.pipeline[1].to_dict()
    assert [step['type'] for step in view['transforms']] == [
        'mobileone_mm.RandomResizedCrop', 'mobileone_mm.RandAugment', 'RandomApply']  # fmt: skip
    result = StoredView(view['transforms'], view['outputs']).transform(loaded(images, NAMES[0]))
    assert result['gt_score'].shape == (20,)


def test_signature_tells_flips_crops_and_colour_orders(images):
    image = loaded(images, NAMES[0])['img']

    def distance(other):
        return np.abs(signature_of(image).astype(int) - signature_of(other)).max()

    assert distance(image[:, ::-1]) > 10
    assert distance(image[:, 8:]) > 10
    assert distance(image[..., ::-1]) > 10
    assert distance(image) == 0


def test_what_must_agree_with_the_config(stored):
    outputs = TeacherOutputs(stored[1])
    agreed = dict(teachers=[dict(timm='a')], temperature=1.0, num_classes=20)
    outputs.meta.check('out', **agreed)
    for name, value in dict(teachers=[dict(timm='b')], temperature=4.0, num_classes=10).items():
        with pytest.raises(InputError, match=f"^outputs 'out': have other {name} .*; now: "):
            outputs.meta.check('out', **{**agreed, name: value})
    assert '6 images, 2 views, the 4 greatest of 20 classes' in str(outputs)


def test_views_of_two_kinds(stored):
    rows, meta = open_view(view_path(stored[1], 1))
    write_view(view_path(stored[1], 1), rows, replace(meta, fingerprints=['other']))
    with pytest.raises(InputError, match=r"view_0001.npy': have other fingerprints"):
        TeacherOutputs(stored[1])


def _swap(name):
    """Values that could be: other classes, other probabilities, other keys."""

    def damage(path):
        rows = np.load(path)
        rows[name] = rows[name][::-1].copy()
        assert not np.array_equal(rows, np.load(path))
        np.save(path, rows)

    return damage


def _edit(**changes):
    def damage(path):
        file = path.with_suffix('.json')
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return damage


@pytest.mark.parametrize('view', [0, 1])
@pytest.mark.parametrize(
    ('damage', 'at_once'),
    [
        *((_swap(name), False) for name in ('key', 'signature', 'scores', 'classes')),
        (_edit(seed=8), False),
        (_edit(topk=5), True),
        (_edit(more=1), True),
        (lambda path: path.with_suffix('.json').write_text('{"seed": '), True),
        (lambda path: path.with_suffix('.json').write_text('[]'), True),
        (lambda path: path.write_bytes(path.read_bytes()[:-20]), True),
        (lambda path: path.write_bytes(b''), True),
        (lambda path: path.write_bytes(b'nothing of that kind'), True),
        (lambda path: path.unlink(), True),
    ],
)
def test_damage_is_noticed(stored, view, damage, at_once):
    """Every bit is in the checksum; what cannot be read is noticed without it, too."""
    path = view_path(stored[1], view)
    damage(path)
    open_view(view_path(stored[1], 1 - view), verify=True)
    with pytest.raises(DamagedViewError, match=rf'{path.name}.: is damaged .*repeat the call'):
        open_view(path, verify=True)
    with pytest.raises(InputError):
        TeacherOutputs(stored[1], verify=True)
    if at_once:
        with pytest.raises(DamagedViewError):
            open_view(path)


def test_a_view_that_cannot_be_opened_is_not_damaged(stored, monkeypatch):
    monkeypatch.setattr(np, 'load', Mock(side_effect=PermissionError(13, 'Permission denied')))
    said = r"view_0000.npy': cannot be read: no permission"
    with pytest.raises(InputError, match=said) as caught:
        open_view(view_path(stored[1], 0))
    assert not isinstance(caught.value, DamagedViewError)


def test_an_image_that_could_not_be_read(stored, monkeypatch):
    """It is left out, as without stored outputs; an unknown image is an error."""
    root, folder, _ = stored
    said, report = [], 'mobileone_mm.distill.views.report_file'
    monkeypatch.setattr(report, lambda *arguments: said.append(arguments))
    row = TeacherOutputs(folder).find(NAMES[1])
    for view in (0, 1):
        mapped, meta = open_view(view_path(folder, view))
        rows = np.array(mapped)
        rows['scores'][row] = 0
        write_view(view_path(folder, view), rows, meta)
    transform = StoredView(VIEW, str(folder))
    assert transform.transform(loaded(root, NAMES[0])) is not None
    assert not said
    assert transform.transform(loaded(root, NAMES[1])) is None
    ((path, message),) = said
    assert path.endswith(NAMES[1])
    assert f"{NAMES[1]}' has no stored outputs" in message


def _config(pipeline, hooks=(), outputs='out'):
    return Config(dict(
        model=dict(type='mobileone_mm.DistillClassifier', outputs=outputs),
        custom_hooks=list(hooks),
        train_dataloader=dict(dataset=dict(type='RepeatDataset', times=2, dataset=dict(
            type='ImageNet', pipeline=pipeline))),
    ))  # fmt: skip


def test_pipelines_are_wrapped_once():
    cfg = _config(PIPELINE)
    use_stored_outputs(cfg)
    steps = cfg.train_dataloader.dataset.dataset.pipeline
    kinds = [step.type for step in steps]
    assert kinds == ['LoadImageFromFile', 'mobileone_mm.StoredView', 'PackInputs']
    assert [step.type for step in steps[1].transforms] == [step['type'] for step in VIEW]
    before = cfg.pretty_text
    use_stored_outputs(cfg)
    assert cfg.pretty_text == before
    plain = _config(PIPELINE, outputs=None)
    use_stored_outputs(plain)
    assert plain.train_dataloader.dataset.dataset.pipeline == PIPELINE


def test_pipelines_that_cannot_be_wrapped():
    for pipeline in (PIPELINE[1:], PIPELINE[:-1], [PIPELINE[0], PIPELINE[-1]]):
        with pytest.raises(InputError, match='must begin with loading an image'):
            use_stored_outputs(_config(pipeline))
    recipe = dict(type='SwitchRecipeHook', schedule=[dict(action_epoch=2, train_pipeline=PIPELINE)])
    with pytest.raises(InputError, match='changes the training pipeline'):
        use_stored_outputs(_config(PIPELINE, [recipe]))
