"""The three files of a deploy pair: their paths and their contents."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config
from torch import Tensor

from .._version import __version__
from ..errors import InputError
from ..files import atomic_write_all
from ..weights.convert import weight_bytes

SUFFIXES = ('.pth', '.pt', '.safetensors')


@dataclass
class Conversion:
    """A proved conversion that is not written yet."""

    paths: dict[str, Path]  # of 'checkpoint', 'config' and 'report'
    text: str  # the config
    state: dict[str, Tensor]  # the weights, on the CPU
    meta: dict[str, Any]  # content of the checkpoint besides the weights
    report: dict[str, Any]  # write adds sizes and hashes of the files

    def write(self, folder: str | os.PathLike[str] | None = None) -> dict[str, Path]:
        """Write the three files, for a trial to a folder, all or none, and return their paths."""
        paths = self.paths
        if folder is not None:
            paths = {kind: Path(folder) / path.name for kind, path in paths.items()}
        data = weight_bytes(self.state, self.meta, paths['checkpoint'].suffix)
        self.report['checkpoint_bytes']['after'] = len(data)
        if paths['checkpoint'].suffix == '.safetensors':
            self.report['meta'] = {k: v for k, v in self.meta.items() if k != 'cfg'}
        contents = {'checkpoint': data, 'config': self.text.encode()}
        # No file system renames three files at once: the hashes tell whether the files belong together.
        self.report['written'] = {
            f'{kind}_sha256': hashlib.sha256(content).hexdigest()
            for kind, content in contents.items()
        }
        contents['report'] = (json.dumps(self.report, indent=2) + '\n').encode()
        atomic_write_all({paths[kind]: content for kind, content in contents.items()})
        return paths


def output_paths(
    out: str | os.PathLike[str], sources: Sequence[str | os.PathLike[str]]
) -> dict[str, Path]:
    """Return the paths of the three files; only files of an earlier conversion may exist there.

    A folder, an input, any other file or another suffix is an InputError.
    """
    path = Path(os.path.expanduser(out))
    if path.suffix not in SUFFIXES:
        raise InputError(
            f"out: got '{out}'; expected a file name that ends in {', '.join(SUFFIXES[:-1])} or "
            f'{SUFFIXES[-1]}; config and report are written beside it'
        )
    paths = {
        kind: path.with_suffix(suffix)
        for kind, suffix in (('checkpoint', path.suffix), ('config', '.py'), ('report', '.json'))
    }
    for target in paths.values():
        for source in map(os.path.expanduser, sources):
            # os.path.exists: Path.exists raises for names that are not possible.
            if os.path.exists(target) and os.path.exists(source) and target.samefile(source):
                raise InputError(
                    f"out: '{target}' would overwrite the input '{source}'; choose another name"
                )
        if os.path.isdir(target):
            raise InputError(f"out: '{target}' is a folder; choose another name")
        if os.path.isfile(target) and not _is_report(paths['report']):
            raise InputError(
                f"out: '{target}' exists and is not from an earlier conversion; choose another name or "
                'delete it'
            )
    return paths


def _is_report(path: Path) -> bool:
    try:
        return 'config_sha256' in json.loads(path.read_bytes())['written']
    except (OSError, ValueError, KeyError, TypeError):
        return False


def pair_meta(
    given: Mapping[str, Any],
    config: Config,
    text: str,
    source: Mapping[str, Any],
    dataset_meta: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return what the hosts' ``init_*`` functions look up, and the source of the weights.

    ``dataset_meta`` gives classes and palette for a checkpoint whose meta (``given``) has none.
    """
    meta = {
        'cfg': text,
        'form': 'deploy',
        'mobileone_mm_version': __version__,
        'source_file': source['file'],
        'source_sha256': source['sha256'],
    }
    preprocessor = config.model.get('data_preprocessor') or config.get('data_preprocessor')
    if isinstance(preprocessor, Mapping):
        meta['data_preprocessor'] = _plain(preprocessor)
    info = given.get('dataset_meta')
    if not isinstance(info, Mapping):  # mmcv 1 wrote CLASSES and PALETTE beside the rest
        info = {key.lower(): given[key] for key in ('CLASSES', 'PALETTE') if key in given}
    info = info or {key: value for key, value in (dataset_meta or {}).items() if value is not None}
    if info:
        meta['dataset_meta'] = {str(key): _plain(value) for key, value in info.items()}
    return meta


def _plain(value: Any) -> Any:
    """Convert NumPy's and mmengine's types to lists, tuples, numbers and strings of Python."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(item) for item in value)
    if isinstance(value, type):
        return f'{value.__module__}.{value.__name__}'
    return value.tolist() if hasattr(value, 'tolist') else value
