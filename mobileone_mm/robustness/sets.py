"""The test sets of an evaluation: where they are, and the label of each image.

mmpretrain numbers class folders in alphabetical order. That is wrong for every set of 200 classes,
for an incomplete set, and for ImageNetV2, whose folders are named 0 to 999 (10 comes before 2).
"""

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from ..data.image_files import OtherFiles, is_broken, is_image
from ..errors import InputError
from .corruptions import CORRUPTIONS, GROUPS, SEVERITIES


class Layout(NamedTuple):
    """How a published set is stored."""

    title: str
    folders: tuple[str, ...]  # in lower case, as its archives and its users call it
    classes: int = 1000  # with 200, predictions are limited to them


_V2 = 'imagenetv2-matched-frequency'
LAYOUTS = {
    'c': Layout('ImageNet-C', ('imagenet-c', 'imagenet_c', 'imagenetc')),
    'a': Layout('ImageNet-A', ('imagenet-a', 'imagenet_a'), 200),
    'r': Layout('ImageNet-R', ('imagenet-r', 'imagenet_r'), 200),
    'sketch': Layout('ImageNet-Sketch', ('sketch', 'imagenet-sketch', 'imagenet_sketch')),
    'v2': Layout('ImageNetV2', (f'{_V2}-format-val', _V2, 'imagenetv2', 'imagenet-v2')),
}
# The test set of the config: without changes, and with generated corruptions.
OWN_SETS = ('clean', 'generated')
SETS = (*OWN_SETS, *LAYOUTS)
CORRUPTED = ('c', 'generated')


class Images(NamedTuple):
    """Images with labels."""

    files: tuple[str, ...]  # paths
    labels: tuple[int, ...]  # from 0; those of ImageNet for a published set
    names: tuple[str, ...]  # paths below the folder of the set
    limit: tuple[int, ...] | None = None  # the classes that can be predicted; None for all


class Evaluation(NamedTuple):
    """One pass over images: a set, or one corruption and severity of it."""

    set: str  # one of SETS
    corruption: str = ''
    severity: int = 0  # 1 to 5; 0 without a corruption
    folder: Path | None = None  # of a published set

    @property
    def name(self) -> str:
        """Such as ``clean`` or ``generated/fog/3``."""
        return f'{self.set}/{self.corruption}/{self.severity}' if self.corruption else self.set


def make_plan(
    root: str | Path | None = None,
    sets: Sequence[str] | None = None,
    corruptions: Sequence[str] | None = None,
    severities: Sequence[int] | None = None,
    own: bool = True,
) -> list[Evaluation]:
    """List the evaluations of a run in a fixed order, and check all folders before the first one.

    ``root`` is the folder that holds published sets under their names. ``sets`` are names, or
    ``name=FOLDER``. The default with a root is the published sets below it, and the clean test set of
    the config if it exists (``own``); without a root, the test set of the config, clean and corrupted.
    An InputError says that a name is unknown, or that a folder is missing or has the wrong classes.
    """
    names, numbers = corruptions or CORRUPTIONS, severities or SEVERITIES
    if unknown := set(names).difference(CORRUPTIONS):
        raise InputError(
            f"--corruptions: got '{min(unknown)}'; allowed are {', '.join(CORRUPTIONS)}"
        )
    if wrong := set(numbers).difference(SEVERITIES):
        raise InputError(f'--severities: got {min(wrong)}; expected 1 to 5')
    pairs = [(c, s) for c in CORRUPTIONS for s in SEVERITIES if c in names and s in numbers]
    found = _find_sets(Path(root).expanduser()) if root is not None else {}
    chosen: dict[str, Path | None]
    if sets is not None:
        chosen = dict(_named(entry, root, found) for entry in sets)
    elif root is None:
        chosen = dict.fromkeys(OWN_SETS)
    else:
        chosen = {**({'clean': None} if own else {}), **found}
    plan = []
    for name in (name for name in SETS if name in chosen):
        for pair in pairs if name in CORRUPTED else [('', 0)]:
            folder = chosen[name]
            if folder is not None:
                folder = _corruption_folder(folder, *pair) if name == 'c' else folder
                _class_folders(name, folder)
            plan.append(Evaluation(name, *pair, folder))
    return plan


def _named(entry: str, root: str | Path | None, found: dict[str, Path]) -> tuple[str, Path | None]:
    """Return name and folder of an entry of ``--sets``."""
    name, equals, folder = entry.partition('=')
    if name not in SETS or (equals and (name in OWN_SETS or not folder)):
        raise InputError(
            f"--sets: got '{entry}'; {', '.join(SETS)} are allowed, the last {len(LAYOUTS)} also with "
            '=FOLDER'
        )
    where = Path(folder).expanduser() if equals else found.get(name)
    if where is None and name in LAYOUTS:
        layout = LAYOUTS[name]
        place = f"is not below --root '{root}'" if root is not None else 'has no folder'
        raise InputError(
            f'--sets {name}: {layout.title} {place}; give its folder as {name}=FOLDER, or --root '
            f'with a folder {" or ".join(layout.folders)} in it'
        )
    return name, where


def _find_sets(root: Path) -> dict[str, Path]:
    if not root.is_dir():
        raise InputError(f"--root: '{root}' is not a folder; give the one that holds the datasets")
    entries = {entry.name.lower(): Path(entry) for entry in os.scandir(root) if entry.is_dir()}
    known = [(key, name) for key, layout in LAYOUTS.items() for name in layout.folders[::-1]]
    found = {key: entries[name] for key, name in known if name in entries}
    if not found:
        names = ', '.join(layout.folders[0] for layout in LAYOUTS.values())
        raise InputError(
            f"--root: '{root}' holds none of {names}; name a folder with --sets, such as "
            'a=/data/natural-adversarial'
        )
    return found


def _corruption_folder(root: Path, corruption: str, severity: int) -> Path:
    """Return the folder of ImageNet-C, with or without the group of the corruption."""
    group = next(group for group, names in GROUPS.items() if corruption in names)
    part = Path(corruption, str(severity))
    for folder in (root / group / part, root / part):
        if folder.is_dir():
            return folder
    raise InputError(
        f"ImageNet-C: '{root / group / part}' does not exist; unpack {group}.tar there, or leave it "
        'out (--corruptions, --severities)'
    )


def read_set(key: str, folder: Path) -> Images:
    """List the images of a set (a key of :data:`LAYOUTS`), or of one corruption and severity.

    The folder holds the class folders, or holds the folder of the set. An InputError says that there
    is no image or an unknown class, or that a set of 200 classes is incomplete, so that predictions
    cannot be limited to its classes.
    """
    folder, classes = _class_folders(key, folder)
    rows, others = [], OtherFiles()
    for name, label in classes.items():
        for entry in os.scandir(folder / name):
            broken = is_broken(entry)
            if is_image(entry.name) and not broken and not entry.name.startswith('.'):
                rows.append((label, f'{name}/{entry.name}'))
            else:
                others.add(entry.name, broken)
    rows.sort()
    others.warn(f"{LAYOUTS[key].title}: '{folder}'")
    if not rows:
        raise InputError(f"{LAYOUTS[key].title}: no image in class folders below '{folder}'")
    labels, names = zip(*rows, strict=True)
    limit = tuple(sorted(classes.values())) if LAYOUTS[key].classes != 1000 else None
    return Images(tuple(str(folder / name) for name in names), labels, names, limit)


def own_images(dataset: Any) -> Images:
    """List the images of a dataset of mmpretrain; each must have one label."""
    rows = [dataset.get_data_info(index) for index in range(len(dataset))]
    if not rows or not all(isinstance(row.get('gt_label'), int) for row in rows):
        raise InputError('test_dataloader.dataset: has no images with one label each')
    files = tuple(str(row['img_path']) for row in rows)
    base = os.path.commonpath([os.path.dirname(file) for file in files]) or '.'
    names = tuple(Path(os.path.relpath(file, base)).as_posix() for file in files)
    return Images(files, tuple(row['gt_label'] for row in rows), names)


def _class_folders(key: str, folder: Path) -> tuple[Path, dict[str, int]]:
    """Return the folder that holds the class folders, and the label of each."""
    title, folders, count = LAYOUTS[key]
    if not folder.is_dir():
        raise InputError(f"{title}: '{folder}' is not a folder; check the path")
    for inner in (folder / folder.name, folder / folders[0]):
        # An archive that was unpacked into a folder of the same name.
        if inner.name.lower() in folders and inner.is_dir():
            folder = inner
            break
    names = [e.name for e in os.scandir(folder) if e.is_dir() and not e.name.startswith('.')]
    labels = {wnid: label for label, wnid in enumerate(wnids())}
    if key == 'v2':  # 7, or 007
        labels |= {f'{n:0{width}}': n for width in range(1, 5) for n in range(1000)}
    if unknown := next((name for name in names if name not in labels), None):
        kinds = f'{"numbers 0 to 999 or " if key == "v2" else ""}WordNet numbers'
        raise InputError(
            f"{title}: the folder '{unknown}' in '{folder}' is not a class of ImageNet-1k; "
            f'expected {kinds} such as n01440764'
        )
    if count not in (1000, len(names)):
        raise InputError(
            f"{title}: '{folder}' has {len(names)} class folders, the set has {count}; all are "
            'needed, because predictions are limited to them'
        )
    return folder, {name: labels[name] for name in names}


@cache
def wnids() -> tuple[str, ...]:
    """Return the WordNet numbers of the 1000 classes of ImageNet in the order of their labels."""
    return tuple(Path(__file__).with_name('wnids.txt').read_text(encoding='ascii').split())
