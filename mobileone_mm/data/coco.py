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
_ID = (int, str)
_TYPES: dict[str, Any] = {
    **dict.fromkeys(('id', 'image_id', 'category_id'), _ID),
    **dict.fromkeys(('file_name', 'name', 'supercategory'), str),
    'bbox': list,
}
_EXPECTED = {_ID: 'a number', str: 'a string', list: '[x, y, width, height]'}


def read_coco(
    file: Path, argument: str, keys: Mapping[str, Sequence[str]] = MMDET_KEYS
) -> dict[str, Any]:
    """Read a JSON file and check that the rows of its tables have some keys.

    ``argument`` names the file in the message of an InputError.
    """
    where = f"{argument}: '{file}'"
    try:
        table = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise InputError(f'{where} does not exist') from None
    except OSError as error:
        raise InputError(f'{where} cannot be read: {error.strerror}') from error
    except (ValueError, RecursionError) as error:
        raise InputError(f'{where} is not JSON: {error}') from error
    if not isinstance(table, dict):
        raise InputError(
            f'{where} holds a {type(table).__name__}; expected a dict with {", ".join(keys)} '
            "(COCO's format)"
        )
    for name, needed in keys.items():
        rows = table.get(name)
        if not isinstance(rows, list):
            raise InputError(f"{where} is not in COCO's format: it has no list '{name}'")
        for index, row in enumerate(rows):
            fault = _row_fault(row, needed)
            if fault:
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
        if not isinstance(row[key], _TYPES.get(key, object)):
            return f'.{key}: got {str(row[key])[:60]}; expected {_EXPECTED[_TYPES[key]]}'
    box = row['bbox'] if 'bbox' in needed else [0.0] * 4
    if len(box) != 4 or not all(isinstance(number, (int, float)) for number in box):
        return f'.bbox: got {str(box)[:60]}; expected {_EXPECTED[list]}'
    return ''
