"""Stored outputs: written whole, read safely, and only for the view that the teachers saw."""

from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from mobileone_mm.distill.stored import (
    DamagedViewError,
    OutputsMeta,
    TeacherOutputs,
    digest_of,
    image_key,
    open_view,
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


@pytest.fixture
def images(tmp_path):
    """Six images below a root."""
    generator = np.random.default_rng(0)
    for name in NAMES:
        path = tmp_path / 'data' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        small = generator.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        cv2.imwrite(str(path), cv2.resize(small, (80, 60), interpolation=cv2.INTER_CUBIC))
    return tmp_path / 'data'


def loaded(root, name):
    return dict(img_path=str(Path(root, name)), img=cv2.imread(str(Path(root, name))), gt_label=1)


def store(root, folder, views=2, classes=20, topk=4, transforms=VIEW):
    """Outputs as the tool writes them, of random numbers; the full probabilities, by name and view."""
    generator = np.random.default_rng(1)
    full = {}
    keys = np.array(sorted(map(image_key, NAMES)), np.uint64)
    names = {image_key(name): name for name in NAMES}
    meta = OutputsMeta(
        classes, topk, 1.0, [dict(timm='a')], ['f'], json.loads(json.dumps(transforms)), 7,
        digest_of(keys), [3],
    )  # fmt: skip
    for view in range(views):
        fixed = FixedView(transforms, str(root), 7, view)
        signatures, scores = [], []
        for key in keys:
            name = names[int(key)]
            result = fixed.transform(loaded(root, name))
            assert result['teacher_name'] == name
            signatures.append(result['teacher_signature'])
            p = generator.dirichlet(np.full(classes, 0.3))
            full[name, view] = p, result['img']
            scores.append(p)
        scores = np.array(scores)
        order = np.argsort(-scores, 1)[:, :topk]
        tensors = dict(
            keys=keys, signatures=np.array(signatures),
            scores=np.take_along_axis(scores, order, 1).astype(np.float16),
        )  # fmt: skip
        if topk == classes:
            tensors['scores'] = scores.astype(np.float16)
        else:
            tensors['classes'] = order.astype(np.uint16)
        write_view(folder, view, tensors, meta)
    return full, meta


@pytest.fixture
def stored(images, tmp_path):
    full, meta = store(images, tmp_path / 'out')
    return images, tmp_path / 'out', full, meta


def test_the_same_view_and_its_labels(stored, tmp_path):
    root, folder, full, _ = stored
    moved = shutil.copytree(root, tmp_path / 'elsewhere')  # another machine, another root
    transform = StoredView(VIEW, str(folder))
    seen = set()
    for round_ in range(8):
        np.random.seed(round_)
        for name in NAMES:
            result = transform.transform(loaded(moved, name))
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


def test_outer_randomness_is_left_alone(stored):
    """What an image draws depends on its view; what follows on the run's own stream."""
    root, folder, *_ = stored
    transform = StoredView(VIEW, str(folder))
    after = []
    for name in NAMES[:2]:
        np.random.seed(3)
        transform.transform(loaded(root, name))
        after.append(np.random.rand())
    assert after[0] == after[1]


def test_all_classes(images, tmp_path):
    full, _ = store(images, tmp_path / 'full', views=1, topk=20)
    result = StoredView(VIEW, str(tmp_path / 'full')).transform(loaded(images, NAMES[3]))
    np.testing.assert_allclose(result['gt_score'], full[NAMES[3], 0][0], rtol=2e-3, atol=1e-6)


def test_goes_into_workers(stored):
    root, folder, *_ = stored
    transform = StoredView(VIEW, str(folder))
    transform.transform(loaded(root, NAMES[0]))
    copied = pickle.loads(pickle.dumps(transform))
    assert copied.transform(loaded(root, NAMES[1]))['gt_score'].shape == (20,)


@pytest.mark.parametrize(
    ('transforms', 'change', 'message'),
    [
        (VIEW, dict(img_path='/train/n00000009/x.jpg'), 'nothing for the image .*n00000009/x.jpg'),
        (VIEW, dict(img=np.zeros((60, 80, 3), np.uint8)), 'is not the one that the teachers saw'),
        (VIEW[:2], {}, 'the views were made by the transforms'),
        ([{**CROP, 'scale': 64}, *VIEW[1:]], {}, 'the views were made by the transforms'),
    ],
)
def test_refused_at_an_image(stored, transforms, change, message):
    root, folder, *_ = stored
    with pytest.raises(InputError, match=message):
        StoredView(transforms, str(folder)).transform({**loaded(root, NAMES[0]), **change})


def test_a_slightly_different_decoder_is_the_same_view(stored):
    root, folder, *_ = stored
    result = loaded(root, NAMES[0])
    result['img'] = np.clip(result['img'].astype(int) + 1, 0, 255).astype(np.uint8)
    # Transforms such as equalisation or posterisation would spread the difference; crop and flip.
    store(root, folder / 'plain', transforms=VIEW[:2])
    assert StoredView(VIEW[:2], str(folder / 'plain')).transform(result)['teacher_view'] in (0, 1)


@pytest.mark.parametrize('prefix', ['', 'mmpretrain.', 'mobileone_mm.'])
def test_faster_transforms_are_those_of_the_config(images, tmp_path, prefix):
    """The config names a transform in any way; the tools put the faster one in its place."""
    rand = dict(type='RandAugment', policies='timm_increasing', num_policies=2, magnitude_level=9)
    nested = dict(type='RandomApply', transforms=[rand], prob=0.5)
    as_stored = [CROP, rand, nested]
    store(images, tmp_path / 'out', transforms=as_stored)
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


def test_our_autoaugment_is_another_one(stored):
    """Its hparams are in force, so that it makes other pixels."""
    _, folder, *_ = stored
    other = [*VIEW[:2], {**VIEW[2], 'type': 'mobileone_mm.AutoAugment'}]
    with pytest.raises(InputError, match='the views were made by the transforms'):
        TeacherOutputs(folder).check_transforms(other)


def test_signature_tells_flips_crops_and_colour_orders(images):
    image = loaded(images, NAMES[0])['img']

    def distance(other):
        return np.abs(signature_of(image).astype(int) - signature_of(other)).max()

    assert distance(image[:, ::-1]) > 10
    assert distance(image[:, 8:]) > 10
    assert distance(image[..., ::-1]) > 10
    assert distance(image) == 0


def test_what_must_agree_with_the_config(stored):
    _, folder, *_ = stored
    outputs = TeacherOutputs(folder)
    outputs.check([dict(timm='a')], 1.0, 20)
    with pytest.raises(InputError, match='teachers'):
        outputs.check([dict(timm='b')], 1.0, 20)
    with pytest.raises(InputError, match='temperature=1.0, the config has 4.0'):
        outputs.check([dict(timm='a')], 4.0, 20)
    outputs.check_weights([None])
    outputs.check_weights(['f'])
    with pytest.raises(
        InputError, match=r'other weights, normalisation or size of model.teachers.0'
    ):
        outputs.check_weights(['g'])
    with pytest.raises(InputError, match='num_classes=20, the config has 10'):
        outputs.check([dict(timm='a')], 1.0, 10)
    assert '6 images, 2 views' in str(outputs)


def test_folders_that_hold_none(tmp_path):
    with pytest.raises(InputError, match='has no view_NNNN'):
        TeacherOutputs(tmp_path / 'no')
    (tmp_path / 'view_0000.safetensors').write_bytes(b'\x10\0\0\0\0\0\0\0nothing of that ')
    with pytest.raises(InputError, match='is damaged'):
        TeacherOutputs(tmp_path)
    from safetensors.numpy import save_file

    save_file({'keys': np.zeros(2, np.uint64)}, tmp_path / 'view_0000.safetensors')
    with pytest.raises(InputError, match='holds no outputs of teachers'):
        TeacherOutputs(tmp_path)


def test_views_of_two_kinds(stored):
    _, folder, _, meta = stored
    content = _tensors(folder, 1)
    write_view(folder, 1, content, replace(meta, fingerprints=['other']))
    with pytest.raises(InputError, match='views 0 and 1 are of different teachers'):
        TeacherOutputs(folder)


def test_half_a_file(stored):
    _, folder, *_ = stored
    path = view_path(folder, 0)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match='is damaged'):
        TeacherOutputs(folder)


def _changed(path, old, new):
    data = path.read_bytes()
    assert data.count(old) == 1
    path.write_bytes(data.replace(old, new))


@pytest.mark.parametrize('name', ['keys', 'signatures', 'scores', 'classes', 'seed'])
@pytest.mark.parametrize('view', [0, 1])
def test_every_bit_is_in_the_checksum(stored, name, view):
    """Values that could be: other classes, other probabilities, keys of a later view."""
    _, folder, *_ = stored
    path = view_path(folder, view)
    if name == 'seed':
        _changed(path, b'\\"seed\\": 7', b'\\"seed\\": 8')
    else:
        tensor = _tensors(folder, view)[name]
        other = tensor[::-1].copy()
        assert not np.array_equal(tensor, other)
        _changed(path, tensor.tobytes(), other.tobytes())
    open_view(view_path(folder, 1 - view), verify=True)
    with pytest.raises(DamagedViewError, match=rf'{path.name}.: is damaged .*repeat the call'):
        open_view(path, verify=True)
    with pytest.raises(InputError):
        TeacherOutputs(folder).check([dict(timm='a')], 1.0, 20)


def test_other_keys_in_a_later_view(stored):
    _, folder, _, meta = stored
    content = _tensors(folder, 1)
    content['keys'] = content['keys'] + np.uint64(1)
    write_view(folder, 1, content, meta)
    with pytest.raises(DamagedViewError):
        TeacherOutputs(folder).check([dict(timm='a')], 1.0, 20)


def test_another_version_of_the_format(stored):
    _, folder, *_ = stored
    _changed(view_path(folder, 0), b'\\"version\\": 2', b'\\"version\\": 1')
    with pytest.raises(InputError, match='has version 1 of the format, expected 2; remove it'):
        TeacherOutputs(folder)


def test_an_image_that_could_not_be_read(stored):
    """It is left out, as without stored outputs; an unknown image is an error."""
    root, folder, _, meta = stored
    row = TeacherOutputs(folder).find(NAMES[1])[0]
    for view in (0, 1):
        tensors = _tensors(folder, view)
        tensors['scores'][row] = 0
        write_view(folder, view, tensors, meta)
    transform = StoredView(VIEW, str(folder))
    assert transform.transform(loaded(root, NAMES[1])) is None
    assert transform.transform(loaded(root, NAMES[0])) is not None
    with pytest.raises(InputError, match='nothing for the image'):
        transform.transform({**loaded(root, NAMES[0]), 'img_path': f'{root}/train/a/c.jpg'})


def _tensors(folder, view):
    from safetensors.numpy import load

    return load(view_path(folder, view).read_bytes())


PIPELINE = [dict(type='LoadImageFromFile'), *VIEW, dict(type='PackInputs')]


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
