"""Results of evaluations, kept in one file so that a second call continues an interrupted one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import InputError
from ..files import atomic_text
from .layouts import Images

FORMAT = 'mobileone_mm robustness 1'


@dataclass(frozen=True)
class Counts:
    """How many images were classified, how many rightly by the first or one of the first five, and
    how many classes they are of."""

    images: int
    top1: int
    top5: int
    classes: int

    @property
    def error(self) -> float:
        """Share of images whose first prediction is wrong, 0 to 1."""
        return 1 - self.top1 / self.images


class Records:
    """The file of results: written whole after each evaluation.

    Args:
        path: The JSON file.
        model: Digest of the model; results of another one are dropped.
        about: What else the file shall say.
        fresh: Drop what is there.

    Raises:
        InputError: There is a file of that name which is not one of these.
    """

    def __init__(
        self, path: str | Path, model: str, about: Mapping[str, Any], fresh: bool = False
    ) -> None:
        self.path = Path(path).expanduser()
        self.content: dict[str, Any] = {'format': FORMAT, **about, 'model': model}
        before = read_records(self.path)
        same = before.get('model') == model and not fresh
        earlier = before.get('evaluations', {})
        self.dropped = 0 if same else len(earlier)
        self.evaluations: dict[str, Any] = earlier if same else {}

    def get(self, name: str, key: str) -> Counts | None:
        """The result of an evaluation, if it was made of the same images in the same way."""
        found = self.evaluations.get(name)
        if not isinstance(found, Mapping) or found.get('key') != key:
            return None
        values: dict[str, Any] = {field: found.get(field) for field in Counts.__dataclass_fields__}
        sound = all(type(value) is int and value >= 0 for value in values.values())
        return Counts(**values) if sound and values['images'] else None

    def put(self, name: str, key: str, counts: Counts) -> None:
        """Add a result and write the file."""
        self.evaluations[name] = {**asdict(counts), 'key': key}
        self.write()

    def write(self, summary: Mapping[str, Any] | None = None) -> None:
        """Write the file; with a summary at the end of all evaluations."""
        content = {**self.content, 'evaluations': self.evaluations}
        if summary is not None:
            content['summary'] = summary
        atomic_text(self.path, json.dumps(content, indent=1) + '\n')


def read_records(path: Path) -> dict[str, Any]:
    """What a file of results says; nothing if there is none.

    Raises:
        InputError: It is another file.
    """
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        content = None
    ours = isinstance(content, dict) and content.get('format') == FORMAT
    if not (ours and isinstance(content.get('evaluations'), dict)):
        raise InputError(
            f"--out: '{path}' is not a file of this tool; choose another name, or another --work-dir"
        )
    return content


def digest(*parts: Any) -> str:
    """A digest of things that JSON can write, or has a text for."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def images_digest(images: Images) -> str:
    """A digest of names and labels; the contents of the files are not read."""
    return digest(images.names, images.labels, images.limit)


def model_digest(model: nn.Module) -> str:
    """A digest of a model's parameters and buffers."""
    found = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:32]
