"""Read annotation files in COCO's format: once, with every row checked, for this package and the hosts.

pycocotools reads a file without a check. A wrong type ends in an error at another place, or in none:
``iscrowd: "0"`` makes every box a crowd. Its evaluation stores the id of the matched annotation and
takes 0 for none, so that an annotation with the id 0 counts as missed; without ``iscrowd`` it fails
after an epoch. It cannot read a byte order mark.
"""

import gc
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError

# The keys that mmdet reads, by table.
MMDET_KEYS = {
    'images': ('id', 'file_name', 'height', 'width'),
    'annotations': ('id', 'image_id', 'category_id', 'bbox', 'area'),
    'categories': ('id', 'name'),
}
# Keys that need not exist.
_OPTIONAL = {'annotations': ('iscrowd', 'ignore')}
# A number beyond this is no size and no place in an image; NaN fails the comparison, too.
_GREATEST = 1e9


class _Rule(NamedTuple):
    """What the values of a key may be. Whole columns are checked at once: a file has many rows."""

    expected: str
    kinds: frozenset[type] = frozenset((int, float))
    above: float = -_GREATEST  # numbers must be greater
    length: int = 0  # of a value that is a list of numbers

    def taken(self, values: list[Any]) -> Any:
        """Return the values, numbers and flags as an array; None if one of them does not fit."""
        if self.length:
            return self._boxes(values)
        kinds = set(map(type, values))
        if not kinds <= self.kinds:
            return None
        if self is _FLAG:
            fits = set(values) <= {0, 1, None}
            return np.fromiter(map(bool, values), bool, len(values)) if fits else None
        if self is _NAME:
            return values if all(map(str.strip, values)) else None
        if self is _ID:  # not both: the evaluation sorts ids
            return values if len(kinds) < 2 else None
        with suppress(OverflowError):  # an integer of hundreds of digits
            return self._in_range(np.fromiter(values, np.float64, len(values)))
        return None

    def _boxes(self, values: list[Any]) -> Any:
        try:
            boxes = np.array(values) if values else np.zeros((0, self.length))
        except (OverflowError, ValueError):  # rows of different lengths
            return None
        fits = boxes.dtype.kind in 'if' and boxes.shape[1:] == (self.length,)
        return self._in_range(boxes.astype(np.float64, copy=False)) if fits else None

    def _in_range(self, numbers: np.ndarray) -> np.ndarray | None:
        return numbers if ((numbers > self.above) & (numbers < _GREATEST)).all() else None


_ID = _Rule('an integer, and one type in all rows', frozenset((int, str)))
_NAME = _Rule('a name', frozenset((str,)))
_FLAG = _Rule('0 or 1', frozenset((int, float, bool, type(None))))
_RULES = {
    **dict.fromkeys(('id', 'image_id', 'category_id'), _ID),
    **dict.fromkeys(('height', 'width'), _Rule('a positive number', above=0)),
    **dict.fromkeys(('file_name', 'name', 'supercategory'), _NAME),
    **dict.fromkeys(('iscrowd', 'ignore'), _FLAG),
    'area': _Rule('a number'),
    'bbox': _Rule('[x, y, width, height] in pixels', length=4),
}


class CocoFile(dict):
    """The content of a file in COCO's format.

    ``where`` names the file in messages. ``columns`` has the values of the checked keys, by table and
    key, in the order of the rows: lists of ids and names, arrays of numbers and flags.
    """

    where: str
    columns: dict[str, dict[str, Any]]

    def check_references(self) -> None:
        """Check that ids are unique, and that each annotation has an image and a category."""
        for name in ('images', 'categories', 'annotations'):
            ids = self.columns[name]['id']
            if len(set(ids)) != len(ids):
                last = {one: index for index, one in enumerate(ids)}
                first = next(index for index, one in enumerate(ids) if last[one] != index)
                raise InputError(
                    f'{self.where}: {name}[{first}] and {name}[{last[ids[first]]}] have the same id '
                    f'{ids[first]!r}; give each row an id of its own'
                )
        for key, target in (('image_id', 'images'), ('category_id', 'categories')):
            known, given = set(self.columns[target]['id']), self.columns['annotations'][key]
            if not known.issuperset(given):
                index = next(i for i, one in enumerate(given) if one not in known)
                raise InputError(
                    f'{self.where}: annotations[{index}].{key} {given[index]!r} is not an id in '
                    f"'{target}'"
                )


# The files that the checks have read since the last call of `forget_coco_files`, with their time and
# size. What the hosts read later is not kept: a metric without `ann_file` writes and reads a new file
# in each validation.
_read: dict[Path, tuple[tuple[int, int], Any]] = {}


def read_coco(
    file: Path,
    argument: str,
    keys: Mapping[str, Sequence[str]] = MMDET_KEYS,
    unlabelled: bool = False,
) -> CocoFile:
    """Read a file in COCO's format, and check the values of some keys in every row.

    ``argument`` names the file in the message of an InputError, which names the row, the key and the
    value. ``unlabelled`` allows a file without ``annotations``, such as that of a test server.
    """
    where = f"{argument}: '{file}'"
    try:
        content = _content(file, keep=True)
    except OSError as error:
        raise InputError(f'{where} cannot be read: {error.strerror}') from error
    except (ValueError, RecursionError) as error:
        raise InputError(f'{where} is not JSON: {error}') from error
    columns = {}
    for name, needed in keys.items():
        without: list[Any] | None = [] if unlabelled and name == 'annotations' else None
        rows = content.get(name, without) if isinstance(content, dict) else None
        if not isinstance(rows, list):
            raise InputError(f"{where} is not in COCO's format: it has no list '{name}'")
        columns[name] = _checked_columns(f'{where}: {name}', rows, needed, _OPTIONAL.get(name, ()))
    found = CocoFile(content)
    found.where, found.columns = where, columns
    return found


def use_coco_reader() -> None:
    """Make pycocotools, and so the hosts, take the files that this process has already read.

    Annotations then have ids and flags that the evaluation can use: the numbers of their rows from 1,
    unless all ids are positive integers, and ``iscrowd`` 0 where it is missing or null.
    """
    from pycocotools.coco import COCO

    original = COCO.__init__
    if original.__module__ == __name__:
        return

    def __init__(self: Any, annotation_file: Any = None) -> None:  # noqa: N807
        original(self)
        if annotation_file is not None:
            self.dataset = _usable(_content(Path(annotation_file)))
            self.createIndex()

    COCO.__init__ = __init__


def forget_coco_files() -> None:
    """Free the memory of the files that were read."""
    _read.clear()
    gc.unfreeze()


def _content(file: Path, keep: bool = False) -> Any:
    """Return the content of a JSON file; the kept object if the file has not changed since then."""
    path, status = file.resolve(), file.stat()
    state = status.st_mtime_ns, status.st_size
    if path in _read and _read[path][0] == state:
        return _read[path][1]
    # The collector would walk through millions of new rows again and again; none is in a cycle.
    enabled = gc.isenabled()
    gc.disable()
    try:
        content = json.loads(file.read_bytes())
        if keep:
            _read[path] = state, content
            gc.freeze()
    finally:
        if enabled:
            gc.enable()
    return content


def _usable(content: Any) -> Any:
    """Give annotations ids and flags that pycocotools can use; leave other formats as they are."""
    rows = content.get('annotations') if isinstance(content, dict) else None
    if not (isinstance(rows, list) and all(type(row) is dict and 'bbox' in row for row in rows)):
        return content
    if not all(type(row.get('id')) is int and row['id'] > 0 for row in rows):
        for number, row in enumerate(rows, 1):
            row['id'] = number
    for row in rows:
        if row.get('iscrowd') is None:
            row['iscrowd'] = 0
    return content


def _checked_columns(
    where: str, rows: Sequence[Any], needed: Sequence[str], optional: Sequence[str]
) -> dict[str, Any]:
    """Return the values of each key; an InputError names the first row that does not fit."""
    keys = (*needed, *optional)
    if not rows:
        return {key: _RULES[key].taken([]) for key in keys}
    with suppress(AttributeError, KeyError, TypeError):  # no dict, or a key is missing
        # One pass over the rows for all keys: to fetch a row takes longer than to check it.
        flat = list(chain.from_iterable(map(itemgetter(*needed, needed[0]), rows)))
        columns = {key: flat[place :: len(needed) + 1] for place, key in enumerate(needed)}
        absent = {key for key in optional if not any(key in row for row in rows)}
        columns |= {key: [row.get(key) for row in rows] for key in optional if key not in absent}
        taken = {key: _RULES[key].taken(values) for key, values in columns.items()}
        taken |= {key: np.zeros(len(rows), bool) for key in absent}
        if all(values is not None for values in taken.values()):
            return taken
    index, fault = next(
        (i, fault) for i, row in enumerate(rows) if (fault := _fault(row, rows[0], keys, needed))
    )
    raise InputError(f'{where}[{index}]{fault}')


def _fault(row: Any, first: Any, keys: Sequence[str], needed: Sequence[str]) -> str:
    if type(row) is not dict:
        return f': got {_shown(row)}; expected a dict'
    for key in keys:
        # Ids must have the type of the first row.
        if key in row and _RULES[key].taken([row[key], first.get(key, row[key])]) is None:
            return f'.{key}: got {_shown(row[key])}; expected {_RULES[key].expected}'
        if key in needed and key not in row:
            return f" has no '{key}'"
    return ''


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f'{text[:57]}...'
