"""Results of evaluations in one file, so that a second call continues an interrupted one."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import InputError
from ..files import atomic_text

FORMAT = 'mobileone_mm robustness 2'


class Counts(NamedTuple):
    """Images, correct first predictions, images with a correct one among five, and classes."""

    images: int
    top1: int
    top5: int
    classes: int

    @property
    def error(self) -> float:
        """Share of images whose first prediction is wrong, 0 to 1."""
        return 1 - self.top1 / self.images


class Records:
    """The results of one model in a file that several models may share.

    The file is JSON, written after each evaluation. ``model`` is the digest of the model; ``fresh``
    drops its earlier results. An InputError says that another tool has written the file.
    """

    def __init__(
        self, path: Path, model: str, about: Mapping[str, Any], fresh: bool = False
    ) -> None:
        self.path = path
        content: Any
        try:
            content = json.loads(path.read_text(encoding='utf-8'))
        except FileNotFoundError:
            content = {'format': FORMAT, 'models': {}}
        except (OSError, ValueError):
            content = None
        if not (isinstance(content, dict) and content.get('format') == FORMAT):
            raise InputError(
                f"--out: '{path}' is not a file of this tool; choose another name, or another "
                '--work-dir'
            )
        self.file, models = content, content['models']
        earlier = {} if fresh else models.get(model, {}).get('evaluations', {})
        self.content = models[model] = {**about, 'evaluations': earlier}

    def get(self, name: str, key: str) -> Counts | None:
        """Return the result of an evaluation if it has this key."""
        found = self.content['evaluations'].get(name, {})
        return Counts(*map(found.get, Counts._fields)) if found.get('key') == key else None

    def put(self, name: str, key: str, counts: Counts) -> None:
        """Add a result and write the file."""
        self.content['evaluations'][name] = {**counts._asdict(), 'key': key}
        self.write()

    def write(self, summary: Mapping[str, Any] | None = None) -> None:
        """Write the file, with the summary of the model at the end of all evaluations."""
        if summary is not None:
            self.content['summary'] = summary
        atomic_text(self.path, json.dumps(self.file, indent=1) + '\n')


def digest(*parts: Any) -> str:
    """Hash values that JSON can write; others count by their text."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
