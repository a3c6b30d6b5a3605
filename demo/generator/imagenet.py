"""Classification: ImageNet's layout, one object in each image."""

from __future__ import annotations

from pathlib import Path

from .folders import build_folder, check_classes, check_common
from .splits import drawn_images, save_jpeg
from .vocabulary import BY_NAME, IMAGENET_CLASSES


def make_imagenet(
    root: str | Path,
    num_train: int = 300,
    num_val: int = 50,
    size: int = 256,
    seed: int = 0,
    classes: tuple[str, ...] = IMAGENET_CLASSES,
) -> Path:
    """Writes `{train,val}/<wnid>/*.JPEG` and `meta/{train,val}.txt` (file and class index).

    Folder names and class indices are ImageNet-1k's, so that a 1000-class config fits. Labels must
    come from `meta`: numbers by the order of the few folders would be others. `size` is the side of
    the square images in pixels. Returns the root. Raises InputError for an argument out of range
    and for a folder that holds something else.
    """
    check_common(size, seed, num_train=num_train, num_val=num_val)
    check_classes(classes, IMAGENET_CLASSES)

    def write(folder: Path) -> None:
        (folder / 'meta').mkdir()
        for split, num in (('train', num_train), ('val', num_val)):
            lines = []
            drawn = drawn_images(split, num, size, seed, classes, count=(1, 1), side=(0.45, 0.8))
            for index, image in enumerate(drawn):
                thing = BY_NAME[image.instances[0].name]
                file = f'{thing.wnid}/{thing.wnid}_{split}_{index:06d}.JPEG'
                (folder / split / file).parent.mkdir(parents=True, exist_ok=True)
                save_jpeg(image.image, folder / split / file)
                lines.append(f'{file} {thing.imagenet}\n')
            (folder / 'meta' / f'{split}.txt').write_text(''.join(lines), encoding='utf-8')

    stamp = {
        'layout': 'imagenet',
        'num_train': num_train,
        'num_val': num_val,
        'size': size,
        'seed': seed,
        'classes': list(classes),
    }
    return build_folder(root, stamp, write)
