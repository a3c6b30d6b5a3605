"""Public weights by name and by address; nothing here needs a network."""

import hashlib
import runpy
import signal

import pytest
import torch
from mmengine.runner import checkpoint as host

import mobileone_mm.weights.mmengine_loader  # noqa: F401 -- it changes mmengine
from helpers import randomize_, same
from mobileone_mm import MobileOne, load_weights
from mobileone_mm.errors import InputError
from mobileone_mm.weights import published as named
from mobileone_mm.weights.names import to_scheme
from mobileone_mm.weights.reading import read_checkpoint


@pytest.fixture
def network(tmp_path, monkeypatch):
    """A network of one machine that serves files by address, and counts."""
    files, asked = {}, []

    def fetch(url, target, **_):
        asked.append(url)
        if url not in files:
            raise OSError('Name or service not known')
        with open(target, 'wb') as file:
            file.write(files[url])

    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    monkeypatch.setattr(torch.hub, 'download_url_to_file', fetch)
    return files, asked


@pytest.fixture
def apple_s0(tmp_path):
    model = randomize_(MobileOne('s0', deploy=True)).eval()
    torch.save(to_scheme(model.state_dict(), 'apple'), tmp_path / 'x')
    return model, (tmp_path / 'x').read_bytes()


def test_by_name_through_the_cache(network, apple_s0):
    files, asked = network
    source, content = apple_s0
    files[named.NAMED['s0-apple'].url] = content
    for _ in range(2):
        model = MobileOne('s0', deploy=True)
        load_weights(model, 'mobileone_mm://s0-apple')
        assert same(model, source)
    assert len(asked) == 1


def test_mmengine_reads_names_and_downloads(network, apple_s0, safe_loader, tmp_path):
    files, _ = network
    address = 'https://example.org/net.pth?version='
    for url in (f'{address}1', named.NAMED['s0-apple'].url):
        files[url] = apple_s0[1]
    load = host.CheckpointLoader.load_checkpoint
    for url in (f'{address}1', 'mobileone_mm://s0-apple'):
        assert 'backbone.stage0.branch_reparam.weight' in load(url, 'cpu')['state_dict']
    assert len(list((tmp_path / 'hub' / 'checkpoints').rglob('net.pth'))) == 1
    match = r"cannot be downloaded .* put it at '.*net\.pth'"
    with pytest.raises(InputError, match=match) as caught:
        load(f'{address}2', 'cpu')
    assert '\n' not in str(caught.value)


def test_offline_and_another_file_than_expected(network, tmp_path):
    files, _ = network
    url = named.NAMED['s2-openmmlab'].url
    path = named.cache_path(url)
    with pytest.raises(InputError, match='cannot be downloaded') as error:
        read_checkpoint(named.local_file('mobileone_mm://s2-openmmlab'))
    assert url in str(error.value)
    assert f"put it at '{path}'" in str(error.value)
    assert path.is_relative_to(tmp_path / 'hub' / 'checkpoints')
    path.write_bytes(b'another file')  # put where the error says
    with pytest.raises(InputError, match='its SHA-256 begins with .* 9c7ecb97; remove it'):
        read_checkpoint(named.local_file('mobileone_mm://s2-openmmlab'))
    path.unlink()
    files[url] = b'something else'  # downloaded
    with pytest.raises(InputError, match='its SHA-256 begins with'):
        read_checkpoint(named.local_file('mobileone_mm://s2-openmmlab'))
    files['https://x.org/a.pth'] = b'content'
    digest = hashlib.sha256(b'content').hexdigest()[:8]
    assert named.download('https://x.org/a.pth', sha256=digest).read_bytes() == b'content'


def test_files_of_one_name_do_not_meet(network):
    """The key is the whole address: another host, folder, query or scheme is another file."""
    files, _ = network
    addresses = [
        *(named.NAMED[f'{size}-timm'].url for size in ('s0', 's1')),
        'https://a.org/x/net.pth',
        'https://a.org/y/net.pth',
        'https://b.org/x/net.pth',
        'http://a.org/x/net.pth',
        'https://a.org/x/net.pth?version=1',
        'https://a.org/x/net.pth?version=2',
    ]
    for address in addresses:
        files[address] = address.encode()
    for _ in range(2):
        for address in addresses:
            assert named.local_file(address).read_text() == address
    assert named.local_file('mobileone_mm://s1-timm').name == 'model.safetensors'


def test_a_shared_file_is_used_only_if_its_hash_is_known(network, tmp_path):
    """mmengine and torch.hub keep downloads under their base names."""
    files, asked = network
    shared = tmp_path / 'hub' / 'checkpoints'
    shared.mkdir(parents=True)
    digest = hashlib.sha256(b'right').hexdigest()[:8]
    for name, content in (('net.pth', b'of another address'), (f'net-{digest}.pth', b'right')):
        (shared / name).write_bytes(content)
    files['https://a.org/net.pth'] = b'own'
    assert named.download('https://a.org/net.pth').read_bytes() == b'own'
    assert named.download(f'https://a.org/net-{digest}.pth') == shared / f'net-{digest}.pth'
    assert asked == ['https://a.org/net.pth']
    files[f'https://a.org/net-{digest}.pth'] = b'fetched'
    (shared / f'net-{digest}.pth').write_bytes(b'damaged')
    assert named.download(f'https://a.org/net-{digest}.pth').read_bytes() == b'fetched'


def test_from_the_storage_of_a_cluster(network):
    """Whatever back end mmengine's file client has is asked, and asked each time."""
    from mmengine import fileio

    class Store(fileio.BaseStorageBackend):
        content = b''

        def get(self, filepath):
            if not self.content:
                raise OSError(f'{filepath}: no such object')
            return self.content

        def get_text(self, filepath):
            raise NotImplementedError

    fileio.register_backend('store', Store, prefixes='store', force=True)
    with pytest.raises(InputError, match=r"'store://bucket/s0.pth': mmengine's file.*no such obj"):
        read_checkpoint(named.local_file('store://bucket/s0.pth'))
    for content in (b'one', b'another'):
        Store.content = content
        path = named.local_file('store://bucket/s0.pth')
        assert path == named.cache_path('store://bucket/s0.pth')
        assert path.read_bytes() == content
    with pytest.raises(InputError, match="no back end for 'nowhere'"):
        read_checkpoint(named.local_file('nowhere://bucket/s0.pth'))


def test_addresses_and_names_in_the_cache(network, tmp_path, monkeypatch):
    host, name = named.cache_path('https://a.org/x/net.pth?v=1').parts[-2:]
    assert (host.rpartition('-')[0], len(host), name) == ('a.org', len('a.org-') + 16, 'net.pth')
    assert named.cache_path('https://a.org/x/').name == 'checkpoint'
    with pytest.raises(InputError, match="checkpoint: got ''; expected a path"):
        named.local_file('')
    monkeypatch.chdir(tmp_path)
    odd = tmp_path / 'store:' / 'a.pth'
    odd.parent.mkdir()
    odd.touch()
    assert named.local_file('store://a.pth').samefile(odd)
    assert named.local_file(odd) == odd
    with pytest.raises(InputError, match=r'no such name; s0 to s4 with apple, apple-unfused'):
        named.local_file('mobileone_mm://s5-apple')


@pytest.mark.filterwarnings('ignore:.*found in sys.modules')
def test_table(capsys):
    assert len(named.NAMED) == 21
    before = signal.getsignal(signal.SIGPIPE)
    runpy.run_module(named.__name__, run_name='__main__')
    assert signal.signal(signal.SIGPIPE, before) == signal.SIG_DFL
    printed = capsys.readouterr().out
    assert printed.count('mobileone_mm://') == 21
    assert 'SHA-256: unknown' in printed
    assert 'SHA-256: 9c7ecb97' in printed
    assert 'licence: Apache-2.0; input: RGB, mean (123.675' in printed
    assert "licence: Apple's licence of CoreNet; input: RGB from 0 to 1" in printed
    assert 'form: deploy; SHA' in printed
    assert str(named.cache_path(named.NAMED['s4-timm'].url)) in printed
