"""Downloads, against a small server on this machine that can be made to misbehave."""

from __future__ import annotations

import hashlib
import http.server
import socket
import threading
from dataclasses import replace

import pytest

from ovseg.towers import download as module
from ovseg.towers.download import (
    WeightsUnavailableError,
    cache_dir,
    download,
    fetch_weights,
    is_offline,
)
from ovseg.towers.table import tower_info

CONTENT = bytes(range(256)) * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT; the server's attributes say how."""

    def do_GET(self):
        server = self.server
        wanted = self.headers.get("Range")
        server.ranges.append(wanted)
        if server.status != 200:
            return self.send_error(server.status)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and server.resumes else 0
        if start >= len(CONTENT):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
            return self.end_headers()
        self.send_response(206 if wanted and server.resumes else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start:][: server.drop_after])  # and the connection is closed

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    http_server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http_server.ranges, http_server.status, http_server.resumes, http_server.drop_after = [], 200, True, None
    http_server.url = f"http://127.0.0.1:{http_server.server_port}/weights.pt"
    thread = threading.Thread(target=http_server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield http_server
    http_server.shutdown()
    http_server.server_close()


@pytest.fixture(autouse=True)
def own_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("OVSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    for name in ("OVSEG_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


def test_a_file_arrives_whole_and_leaves_nothing_beside_it(server, tmp_path):
    target = tmp_path / "new" / "weights.pt"
    assert download(server.url, target, sha256=SHA256) == target
    assert target.read_bytes() == CONTENT
    assert not target.with_name("weights.pt.part").exists()
    server.status = 500
    assert download(server.url, target) == target  # it is there: nothing is asked


def test_a_transfer_that_breaks_off_goes_on_where_it_stopped(server, tmp_path):
    server.drop_after = 100_000
    target = download(server.url, tmp_path / "weights.pt", sha256=SHA256)
    assert target.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=100000-", "bytes=200000-"]


def test_a_part_of_an_earlier_run_is_used(server, tmp_path):
    (tmp_path / "weights.pt.part").write_bytes(CONTENT[:1234])
    assert download(server.url, tmp_path / "weights.pt", sha256=SHA256).read_bytes() == CONTENT
    assert server.ranges == ["bytes=1234-"]


def test_a_part_that_is_already_whole_is_used(server, tmp_path):
    (tmp_path / "weights.pt.part").write_bytes(CONTENT)
    assert download(server.url, tmp_path / "weights.pt", sha256=SHA256).read_bytes() == CONTENT


def test_a_part_that_is_too_long_is_thrown_away(server, tmp_path):
    (tmp_path / "weights.pt.part").write_bytes(CONTENT + b"x")
    assert download(server.url, tmp_path / "weights.pt", sha256=SHA256).read_bytes() == CONTENT


def test_a_server_that_cannot_resume_starts_again(server, tmp_path):
    server.resumes = False
    (tmp_path / "weights.pt.part").write_bytes(b"something else")
    assert download(server.url, tmp_path / "weights.pt").read_bytes() == CONTENT


def test_a_server_that_sends_nothing_is_given_up_and_the_part_kept(server, tmp_path):
    server.drop_after = 0
    (tmp_path / "weights.pt.part").write_bytes(CONTENT[:10])
    with pytest.raises(OSError, match="keeps breaking off; run again"):
        download(server.url, tmp_path / "weights.pt")
    assert (tmp_path / "weights.pt.part").read_bytes() == CONTENT[:10]
    assert not (tmp_path / "weights.pt").exists()


def test_a_wrong_checksum_is_not_accepted(server, tmp_path):
    with pytest.raises(ValueError, match=f"has the sha256 {SHA256}, expected abcdef01"):
        download(server.url, tmp_path / "weights.pt", sha256="abcdef01")
    assert [file.name for file in tmp_path.iterdir() if "weights.pt" in file.name] == ["weights.pt.lock"]
    download(server.url, tmp_path / "weights.pt", sha256=SHA256[:8])  # the first digits are enough


def test_an_answer_of_the_server_is_passed_on(server, tmp_path):
    server.status = 403
    with pytest.raises(OSError, match="the server answers 403 Forbidden"):
        download(server.url, tmp_path / "weights.pt")
    assert len(server.ranges) == 1


def info_at(*sources: str, sha256: str | None = SHA256):
    return replace(tower_info("vit_b16.openai"), sources=sources, sha256=sha256)


def test_fetching_uses_the_second_source_where_the_first_fails(server):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{unused.getsockname()[1]}/other.pt"
        path = fetch_weights(info_at(dead, server.url))
    assert path == cache_dir() / "towers" / "vit_b16.openai" / "weights.pt"
    assert path.read_bytes() == CONTENT
    server.status = 500
    assert fetch_weights(info_at(dead, server.url)) == path


def test_when_nothing_works_every_reason_and_the_cure_are_given(server):
    server.status = 404
    with pytest.raises(WeightsUnavailableError) as caught:
        fetch_weights(info_at(server.url))
    message = str(caught.value)
    assert "127.0.0.1" in message and "404" in message and server.url in message
    assert str(cache_dir() / "towers" / "vit_b16.openai") in message
    assert "\n" not in message


@pytest.mark.parametrize("name", ["OVSEG_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_nothing_is_asked_but_what_is_here_is_used(server, monkeypatch, name):
    monkeypatch.setenv(name, "1")
    assert is_offline()
    with pytest.raises(WeightsUnavailableError, match="switched off"):
        fetch_weights(info_at(server.url, "hf:owner/repository"))
    assert server.ranges == []
    file = cache_dir() / "towers" / "vit_b16.openai" / "open_clip_model.safetensors"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x")
    assert fetch_weights(info_at(server.url, "hf:owner/repository")) == file
    monkeypatch.setenv(name, "0")
    assert not is_offline()


def test_the_hubs_own_cache_is_looked_into():
    """In the layout that the Hub's client keeps on disk."""
    folder = cache_dir() / "hub" / "models--owner--repository"
    file = folder / "snapshots" / "abc" / "open_clip_pytorch_model.bin"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x")
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    assert fetch_weights(info_at("hf:owner/repository"), allow_download=False) == file


def test_hub_rows_take_the_file_that_the_repository_has(monkeypatch, tmp_path):
    asked = []

    class Answer:
        def __enter__(self):
            return self

        def __exit__(self, *args):
            pass

    def urlopen(request, timeout):
        asked.append((request.get_method(), request.full_url))
        if request.full_url.endswith(".safetensors"):
            raise module.urllib.error.HTTPError(request.full_url, 404, "Not Found", {}, None)
        return Answer()

    def hf_hub_download(repository, name, cache_dir):
        assert (repository, cache_dir) == ("owner/repository", tmp_path / "cache" / "hub")
        return f"/somewhere/{name}"

    monkeypatch.setattr(module.urllib.request, "urlopen", urlopen)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", hf_hub_download)
    assert fetch_weights(info_at("hf:owner/repository")).name == "open_clip_pytorch_model.bin"
    assert {method for method, _ in asked} == {"HEAD"}
    assert asked[0][1] == "https://huggingface.co/owner/repository/resolve/main/open_clip_model.safetensors"


def test_progress_is_shown_on_standard_error_only(server, tmp_path, capsys):
    download(server.url, tmp_path / "weights.pt")
    assert capsys.readouterr().out == ""
