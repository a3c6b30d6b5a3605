"""Read annotation files in COCO's format."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError

# The keys that mmdet reads, by table.
MMDET_KEYS = {
    'images': ('id', 'file_name', 'height', 'width'),
    'annotations': ('id', 'image_id', 'category_id', 'bbox', 'area'),
    'categories': ('id', 'name'),
}
_ID, _NAME = ((int, str), 'a number'), (str, 'a string')
# Type and description of the values.
_VALUES: dict[str, tuple[Any, str]] = {
    **dict.fromkeys(('id', 'image_id', 'category_id'), _ID),
    **dict.fromkeys(('file_name', 'name', 'supercategory'), _NAME),
    'bbox': (list, '[x, y, width, height]'),
}


def read_coco(
    file: Path, argument: str, keys: Mapping[str, Sequence[str]] = MMDET_KEYS
) -> dict[str, Any]:
    """Read a JSON file and check that the rows of its tables have some keys.

    ``argument`` names the file in the message of an InputError.
    """
    where = f"{argument}: '{file}'"
    try:
        table = json.loads(file.read_bytes())
    except OSError as error:
        raise InputError(f'{where} cannot be read: {error.strerror}') from error
    except (ValueError, RecursionError) as error:
        raise InputError(f'{where} is not JSON: {error}') from error
    for name, needed in keys.items():
        rows = table.get(name) if isinstance(table, dict) else None
        if not isinstance(rows, list):
            raise InputError(f"{where} is not in COCO's format: it has no list '{name}'")
        for index, row in enumerate(rows):
            if fault := _row_fault(row, needed):
                raise InputError(f'{where}: {name}[{index}]{fault}')
    return table


def check_references(table: Mapping[str, Any], where: str) -> None:
    """Check that every annotation has its own id, and an image and a category in the file."""
    rows = table['annotations']
    for key, target in (('image_id', 'images'), ('category_id', 'categories')):
        known = {row['id'] for row in table[target]}
        for index, row in enumerate(rows):
            if row[key] not in known:
                raise InputError(
                    f'{where}: annotations[{index}].{key} {row[key]} is not in {target}'
                )
    if len({row['id'] for row in rows}) != len(rows):
        raise InputError(f'{where}: annotation ids are not unique')


def _row_fault(row: Any, needed: Sequence[str]) -> str:
    if not isinstance(row, dict):
        return f' is a {type(row).__name__}; expected a dict'
    for key in needed:
        if key not in row:
            return f" has no '{key}'"
        value, (kind, expected) = row[key], _VALUES.get(key, (object, ''))
        fits = isinstance(value, kind)
        if fits and key == 'bbox':
            fits = len(value) == 4 and all(isinstance(number, (int, float)) for number in value)
        if not fits:
            return f'.{key}: got {str(value)[:60]}; expected {expected}'
    return ''
