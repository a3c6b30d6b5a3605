"""Corrupts checkpoints at random and loads them; run by test_fuzz.py in a process with limits.

    python fuzz_worker.py load|convert FOLDER FIRST LAST

loads the files, or runs tools/switch_to_deploy.py on them, and prints one JSON line a case. A case is a
function of its number alone. What counts as a fault is said in test_fuzz.py.
"""

from __future__ import annotations

import importlib.util
import io
import json
import math
import pickletools
import random
import resource
import signal
import sys
import zipfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from torch import nn

from mobileone_mm import MobileOne, reparameterize_model
from mobileone_mm.cli.run import call_tool
from mobileone_mm.errors import InputError
from mobileone_mm.files import atomic_save
from mobileone_mm.reparam.compare import randomize_
from mobileone_mm.weights import load_weights, read_checkpoint

SEED = 20240607
SECONDS = 20  # a case takes some hundredths
MEMORY = 1 << 30  # bytes above what the process has when it starts
TINY = dict(num_blocks=[1, 2, 1, 1], width_factor=[0.0625] * 4, num_conv_branches=[2, 1, 1, 1])
FORMATS = ('zip', 'zip with CRC', 'legacy', 'safetensors')
# Names that a changed file asks for, besides those that it has.
GLOBALS = (
    *('os system', 'posix system', 'builtins exec', 'builtins eval', 'builtins getattr'),
    *('builtins bytearray', 'torch FloatTensor', 'torch.storage UntypedStorage', 'numpy dtype'),
    *('torch._utils _rebuild_qtensor', 'torch._utils _rebuild_meta_tensor_no_storage'),
    *('torch._tensor _rebuild_from_type_v2', 'torch.nn.parameter Parameter', 'builtins set'),
    *('torch._utils _rebuild_wrapper_subclass', '_codecs encode', 'torch HalfStorage'),
    *('torch LongStorage', 'torch ComplexDoubleStorage', 'torch._utils _rebuild_sparse_tensor'),
    *('torch DoubleStorage', 'runpy run_path', 'torch.hub load', 'numpy ndarray', 'torch Size'),
)
CONFIG = f"""
default_scope = 'mmpretrain'
custom_imports = dict(imports=['mobileone_mm'])
model = dict(
    type='mmpretrain.ImageClassifier',
    data_preprocessor=dict(type='mmpretrain.ClsDataPreprocessor', num_classes=3),
    backbone=dict(type='mobileone_mm.MobileOne', arch={TINY}),
    neck=dict(type='mmpretrain.GlobalAveragePooling'),
    head=dict(type='mmpretrain.LinearClsHead', num_classes=3, in_channels=32),
)
test_pipeline = [dict(type='Resize', scale=32)]
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
"""
NUMBERS = (0, 1, 2, 3, 255, 65535, 2**31 - 1)
DTYPES = ('F64', 'F32', 'F16', 'BF16', 'I64', 'I32', 'U8', 'BOOL', 'F8_E4M3', 'C64', 'X9')


class Net(nn.Module):
    def __init__(self, deploy: bool = False) -> None:
        super().__init__()
        self.backbone = MobileOne(TINY, deploy=deploy)
        self.head = nn.Module()
        self.head.fc = nn.Linear(self.backbone.out_channels[-1], 3)


def sources() -> dict[str, nn.Module]:
    trained = randomize_(Net(), seed=1).eval()
    return {'train': trained, 'deploy': reparameterize_model(trained)}


def file_of(kind: str, state: dict, wrapped: bool) -> bytes:
    if kind == 'safetensors':
        from safetensors.torch import save

        return save(state)
    history = HistoryBuffer([0.5, 0.25], [1, 1])
    meta = dict(epoch=1, seed=None, dataset_meta=dict(classes=('a', 'b'), palette=np.eye(3)))
    content = dict(meta=meta, state_dict=state, message_hub=dict(log_scalars=dict(loss=history)))
    buffer = io.BytesIO()
    torch.save(
        content if wrapped else state, buffer, _use_new_zipfile_serialization=kind != 'legacy'
    )
    return buffer.getvalue()


# -- corruptions -----------------------------------------------------------------------------------


def broken_bytes(rng: random.Random, data: bytes) -> bytes:
    """Flipped, cut, inserted, swapped, repeated and wiped bytes, one to three times."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        if not out:
            break
        # Half of them near an end, where headers and tables stand.
        spot = rng.choice((rng.randrange(len(out)), rng.randrange(min(len(out), 400))))
        spot = rng.choice((spot, len(out) - 1 - spot))
        length = rng.choice((1, 1, 2, 8, 64, 1000))
        change = rng.randrange(7)
        if change in (0, 1):
            out[spot] ^= 1 << rng.randrange(8)
        elif change == 2:
            del out[spot:]
        elif change == 3:
            del out[spot : spot + length]
        elif change == 4:
            out[spot:spot] = rng.randbytes(length)
        elif change == 5:
            other = rng.randrange(len(out))
            first, second = bytes(out[spot : spot + length]), bytes(out[other : other + length])
            out[spot : spot + len(second)], out[other : other + len(first)] = second, first
        else:
            out[spot : spot + length] = rng.choice((b'\0', b'\xff')) * length
    return bytes(out)


def broken_pickle(rng: random.Random, data: bytes, marker: Path) -> bytes:
    """Instructions dropped, repeated, swapped, given other arguments, or added to run code."""
    ops = list(pickletools.genops(data))
    ends = [position for _, _, position in ops[1:]] + [ops[-1][2] + 1]
    parts = [data[op[2] : end] for op, end in zip(ops, ends, strict=True)]
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(parts))
        change = rng.randrange(7)
        if change == 0:
            del parts[at]
        elif change == 1:
            parts.insert(at, parts[rng.randrange(len(parts))])
        elif change == 2:
            other = rng.randrange(len(parts))
            parts[at], parts[other] = parts[other], parts[at]
        elif change == 3:
            numbers = [i for i, part in enumerate(parts) if part[:1] in b'KMJ']
            number = rng.choice(NUMBERS)
            for i in rng.sample(numbers, min(len(numbers), rng.choice((1, 1, 3)))):
                parts[i] = b'J' + number.to_bytes(4, 'little', signed=True)
        elif change == 4:
            names = [i for i, part in enumerate(parts) if part[:1] == b'c']
            if names:
                module, _, name = rng.choice(GLOBALS).partition(' ')
                parts[rng.choice(names)] = f'c{module}\n{name}\n'.encode()
        elif change == 5:
            module, _, name = rng.choice(GLOBALS).partition(' ')
            text = rng.choice((f'touch {marker}', f'open({str(marker)!r}, "w")')).encode()
            call = b'X' + len(text).to_bytes(4, 'little') + text + b'\x85R'
            parts.insert(at, f'c{module}\n{name}\n'.encode() + call + rng.choice((b'', b'0')))
        else:
            parts[at] = broken_bytes(rng, parts[at])
        if not parts:
            break
    return b''.join(parts)


def broken_zip(rng: random.Random, data: bytes, marker: Path) -> bytes:
    """Another pickle, or records that are renamed, lost, doubled or resized; checksums are right."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = [[entry.filename, archive.read(entry)] for entry in archive.infolist()]
    change = rng.randrange(6)
    at = rng.randrange(len(entries))
    if change < 3:
        at = next(i for i, (name, _) in enumerate(entries) if name.endswith('data.pkl'))
        entries[at][1] = broken_pickle(rng, entries[at][1], marker)
    elif change == 3:
        entries[at][1] = broken_bytes(rng, entries[at][1])
    elif change == 4:
        entries[at][0] = rng.choice((entries[0][0].upper(), 'x/y', '../' + entries[at][0], '/'))
    else:
        entries.insert(rng.randrange(len(entries)), list(entries[at]))
        if rng.random() < 0.5:
            del entries[at]
    out = io.BytesIO()
    with zipfile.ZipFile(out, 'w') as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return out.getvalue()


def broken_legacy(rng: random.Random, data: bytes, marker: Path) -> bytes:
    """One of the five pickles at the beginning, changed."""
    file, ends = io.BytesIO(data), [0]
    for _ in range(5):
        list(pickletools.genops(file))
        ends.append(file.tell())
    which = rng.choice((0, 1, 2, 3, 3, 3, 3, 4))
    start, end = ends[which], ends[which + 1]
    return data[:start] + broken_pickle(rng, data[start:end], marker) + data[end:]


def broken_safetensors(rng: random.Random, data: bytes) -> bytes:
    """Another header: entries lost, doubled, exchanged; numbers and types; its length."""
    length = int.from_bytes(data[:8], 'little')
    header, payload = json.loads(data[8 : 8 + length]), data[8 + length :]
    names = [name for name in header if name != '__metadata__']
    name, other = rng.sample(names, 2)
    entry = header[name]
    change = rng.randrange(9)
    if change == 0:
        del header[name]
    elif change == 1:
        entry['dtype'] = rng.choice(DTYPES)
    elif change == 2:
        entry['shape'] = rng.choice(
            ([], [2**62, 4], [-1], [0], entry['shape'][::-1], [1, *entry['shape']], [1.5], 'x')
        )
    elif change == 3:
        entry['data_offsets'][rng.randrange(2)] = rng.choice((*NUMBERS, -1, 2**63, 1e9, None))
    elif change == 4:
        header[name], header[other] = header[other], header[name]
    elif change == 5:
        entry['data_offsets'] = header[other]['data_offsets']
    elif change == 6:
        header[rng.choice((name + '\x1b[31m', '', 'x' * 5000, '\ud800'))] = header.pop(name)
    text = json.dumps(header).encode()
    if change == 7:
        double = json.dumps({name: header[other]}).encode()
        text = double[:-1] + b', ' + text[1:]
    elif change == 8:
        text = broken_bytes(rng, text)
    size = len(text) if rng.random() < 0.9 else rng.choice((*NUMBERS, 2**40, 2**64 - 1))
    return size.to_bytes(8, 'little') + text + payload


def corrupted(rng: random.Random, kind: str, data: bytes, marker: Path) -> bytes:
    if kind == 'zip':
        return broken_bytes(rng, data)
    if kind == 'zip with CRC':
        return broken_zip(rng, data, marker)
    if rng.random() < 0.4:
        return broken_bytes(rng, data)
    if kind == 'legacy':
        return broken_legacy(rng, data, marker)
    return broken_safetensors(rng, data)


# -- one case --------------------------------------------------------------------------------------


def tool(name: str) -> Callable[..., int]:
    """The main function of a tool."""
    path = Path(__file__).resolve().parents[2] / 'tools' / f'{name}.py'
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


class Fuzz:
    """Loads corrupted files; ``faults`` are what the audit hook saw."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.marker = folder / 'marker'
        self.config, self.pair = folder / 'config.py', folder / 'pair.pth'
        self.config.write_text(CONFIG)
        self.tool = tool('switch_to_deploy')
        self.sources = sources()
        self.files: dict[tuple[str, str, bool], bytes] = {}
        self.expected: dict[tuple[str, str], dict] = {}
        for form, model in self.sources.items():
            for target in self.sources:
                net = Net(target == 'deploy').eval()
                load_weights(net, model.state_dict())
                self.expected[form, target] = net.state_dict()
            for kind in FORMATS:
                for wrapped in (False, True):
                    self.files[kind, form, wrapped] = file_of(kind, model.state_dict(), wrapped)

    def corrupt(self, number: int) -> tuple[str, str, str, bytes, Path, bool]:
        """Kind, form, target form, bytes and path of a case, and whether it is still the original."""
        rng = random.Random(SEED + number)
        kind = FORMATS[number % len(FORMATS)]
        form, target = rng.choice(
            (('train', 'train'),) * 2 + (('train', 'deploy'), ('deploy', 'train'))
        )
        original = self.files[kind, form, rng.random() < 0.5]
        data = corrupted(rng, kind, original, self.marker)
        path = self.folder / ('case.safetensors' if kind == 'safetensors' else 'case.pth')
        path.write_bytes(data)
        return kind, form, target, data, path, data == original

    def case(self, number: int) -> dict:
        """The outcome of loading: refused, right, changed, or a fault with its reason."""
        kind, form, target, data, path, same = self.corrupt(number)
        outcome = dict(case=number, kind=kind, same=same)
        model = Net(target == 'deploy').eval()
        clean = {key: value.clone() for key, value in model.state_dict().items()}
        try:
            load_weights(model, read_checkpoint(path))
        except InputError as error:
            left = model.state_dict()
            if not all(torch.equal(value, left[key]) for key, value in clean.items()):
                return dict(outcome, fault='refused, but the model has changed')
            return dict(outcome, result='refused', fault=message_fault(str(error)), text=str(error))
        except BaseException as error:
            return dict(outcome, fault=f'{type(error).__name__}: {error}'[:500])
        fault = self.wrong(model, self.expected[form, target])
        if fault is None and path.read_bytes() != data:
            fault = 'the input has changed'
        return dict(outcome, result=self.right(model, form, target), fault=fault)

    def conversion(self, number: int) -> dict:
        """The outcome of ``tools/switch_to_deploy.py``: refused (exit code not 0), right or changed."""
        kind, form, _, data, path, same = self.corrupt(number)
        outcome = dict(case=number, kind=kind, same=same)
        before = {file: file.read_bytes() for file in self.folder.iterdir()}
        output = io.StringIO()
        with redirect_stdout(output), redirect_stderr(output):
            code = call_tool(self.tool, [str(self.config), str(path), str(self.pair)])
        text = output.getvalue().strip()
        if code in (1, 2):
            left = {file: file.read_bytes() for file in self.folder.iterdir()}
            fault = message_fault(text) if left == before else 'refused, but files have changed'
            if code == 2 and not text.startswith('error: checkpoint '):
                fault = 'the message does not name the checkpoint'
            return dict(outcome, result='refused', fault=fault, text=text)
        if code != 0 or path.read_bytes() != data:
            return dict(outcome, fault=f'exit code {code}, input changed: {text}'[-500:])
        model = Net().eval()
        load_weights(model, read_checkpoint(path))
        fault = self.wrong(model, self.expected[form, 'train'], self.pair)
        result = self.right(model.float(), form, 'train')
        for suffix in ('.pth', '.py', '.json'):
            self.pair.with_suffix(suffix).unlink()
        return dict(outcome, result=result, fault=fault)

    def right(self, model: nn.Module, form: str, target: str) -> str:
        state = model.state_dict()
        same = all(torch.equal(v, state[k]) for k, v in self.expected[form, target].items())
        return 'right' if same else 'changed'

    def wrong(self, model: nn.Module, expected: dict, out: Path | None = None) -> str | None:
        """What is wrong with weights that were accepted, with their deploy form or its file.

        Args:
            out: The file of the deploy form, in float32; it is made here, in float64, if not given.
        """
        tolerance = 1e-6 if out is None else 1e-4
        state = model.state_dict()
        if {k: (v.shape, v.dtype) for k, v in state.items()} != {
            k: (v.shape, v.dtype) for k, v in expected.items()
        }:
            return 'other keys, shapes or types'
        for key, value in state.items():
            if not torch.isfinite(value).all() or ('var' in key and (value < 0).any()):
                return f'impossible numbers in {key}'
        fused = model.double()
        if out is None:
            if not fused.backbone.deploy:
                fused = reparameterize_model(model)
            out = self.folder / 'out.pth'
            atomic_save(fused.state_dict(), out)
        again = Net(deploy=True).double().eval()
        load_weights(again, out)
        x = torch.randn(
            1, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64
        )
        with torch.no_grad():
            pairs = zip(model.backbone(x), again.backbone(x), strict=True)
            for one, other in pairs:
                # A flipped exponent may give features that float64 cannot hold; both forms agree.
                scale = float(one.abs().max())
                if math.isfinite(scale) and not float((one - other).abs().max()) <= (
                    tolerance * max(scale, 1e-30)
                ):
                    return 'the written deploy form is another function'
        return None


def message_fault(text: str) -> str | None:
    if not text.isprintable() or len(text) > 600:
        return 'the message is no clear line'
    if 'memory' in text:
        return 'took all memory'
    return None


WATCHED = ('os.system', 'subprocess.Popen', 'os.exec', 'os.posix_spawn', 'os.fork', 'socket.connect',
           'pickle.find_class', 'ctypes.dlopen')  # fmt: skip


def main() -> None:
    what, folder, first, last = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    torch.set_num_threads(1)
    fuzz = Fuzz(folder)
    run = {'load': fuzz.case, 'convert': fuzz.conversion}[what]
    for number in range(10**9, 10**9 + 8):  # whatever is imported late is imported now
        run(number)
    seen: list[str] = []

    def watch(event: str, args: tuple) -> None:
        # The C library itself, which the conversion asks to give memory back, is there already.
        if event in WATCHED and not (event == 'ctypes.dlopen' and args[0] is None):
            seen.append(event)

    sys.addaudithook(watch)
    pages = int(Path('/proc/self/statm').read_text().split()[0]) if sys.platform == 'linux' else 0
    if pages:
        limit = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    def late(*_: object) -> None:
        raise TimeoutError(f'not done after {SECONDS} s')

    signal.signal(signal.SIGALRM, late)
    for number in range(first, last):
        signal.alarm(SECONDS)
        outcome = run(number)
        signal.alarm(0)
        if seen or fuzz.marker.exists():
            outcome['fault'] = f'code ran: {seen}'
        seen.clear()
        print(json.dumps(outcome), flush=True)


if __name__ == '__main__':
    main()
