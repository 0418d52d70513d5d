from __future__ import annotations

import copy
import os
import subprocess
import sys
import threading
from dataclasses import replace

import pytest
import torch

from ovseg.vocab import cache as cache_module
from ovseg.vocab.cache import TextCache, bank_key, weights_hash

_ROWS = {f"word {i}": torch.randn(1, 8) for i in range(5)}


@pytest.fixture
def cache(tmp_path) -> TextCache:
    return TextCache(tmp_path / "text")


def _file(cache: TextCache):
    (path,) = cache.folder.iterdir()
    return path


def test_rows_come_back_by_word(cache):
    cache.put("key", _ROWS)
    got = cache.get("key", ["word 3", "unknown", "word 0"])
    assert list(got) == ["word 3", "word 0"]
    assert all(torch.equal(got[word], _ROWS[word]) for word in got)
    assert cache.get("other key", list(_ROWS)) == {}


def test_rows_are_added_to_those_of_earlier_runs(cache):
    cache.put("key", {"a": torch.ones(1, 8)})
    cache.put("key", {"日本 ": torch.zeros(1, 8)})
    assert set(cache.get("key", ["a", "日本 "])) == {"a", "日本 "}


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "half"])
def test_a_damaged_file_is_a_miss_and_is_rebuilt(cache, damage):
    cache.put("key", _ROWS)
    path = _file(cache)
    data = path.read_bytes()
    path.write_bytes(
        {"truncated": data[:-1], "empty": b"", "text": b"x" * 100, "half": data[: len(data) // 2]}[damage]
    )
    assert cache.get("key", list(_ROWS)) == {}
    assert not path.exists()
    cache.put("key", _ROWS)
    assert len(cache.get("key", list(_ROWS))) == 5


def test_a_flipped_bit_loses_that_row_only(cache):
    cache.put("key", _ROWS)
    path = _file(cache)
    data = bytearray(path.read_bytes())
    at = data.index(_ROWS["word 2"].numpy().tobytes())
    data[at] ^= 1
    path.write_bytes(data)
    assert set(cache.get("key", list(_ROWS))) == set(_ROWS) - {"word 2"}
    cache.put("key", {"word 2": _ROWS["word 2"]})
    assert len(cache.get("key", list(_ROWS))) == 5


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    cache = TextCache(tmp_path / "file" / "text")
    cache.put("key", _ROWS)
    assert cache.get("key", list(_ROWS)) == {}


def test_a_file_keeps_its_newest_rows(cache, monkeypatch):
    monkeypatch.setattr(cache_module, "_FILE_BYTES", 3 * 8 * 4)
    cache.put("key", _ROWS)
    assert list(cache.get("key", list(_ROWS))) == ["word 2", "word 3", "word 4"]


def test_the_folder_loses_what_was_not_used_for_longest(cache, monkeypatch):
    for key in ("old", "new"):
        cache.put(key, _ROWS)
    os.utime(cache.folder / "old.safetensors", (1, 1))
    os.utime(cache.folder / "new.safetensors", (2, 2))
    cache.get("old", ["word 0"])
    monkeypatch.setattr(
        cache_module, "_FOLDER_BYTES", int(2.5 * (cache.folder / "old.safetensors").stat().st_size)
    )
    cache.put("newest", _ROWS)
    assert {path.stem for path in cache.folder.iterdir()} == {"old", "newest"}


def test_the_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("OVSEG_CACHE", str(tmp_path))
    assert TextCache().folder == tmp_path / "text"


def test_readers_and_writers_at_once_never_see_half_a_file(cache):
    wrong: list[object] = []

    def work(seed: int) -> None:
        for i in range(20):
            cache.put("key", {f"{seed} {i}": torch.full((1, 8), float(seed))})
            for word, row in cache.get("key", [f"{s} {i}" for s in range(4)]).items():
                if not torch.equal(row, torch.full((1, 8), float(word.split()[0]))):
                    wrong.append((word, row))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert [path.name for path in cache.folder.iterdir()] == ["key.safetensors"]


def test_the_key_holds_everything_that_decides_a_row(clip):
    base = bank_key(clip.text, "bpe", ("{}",), "mean")
    assert bank_key(clip.text, "bpe", ("{}",), "mean") == base
    others = [
        bank_key(clip.text, "other", ("{}",), "mean"),
        bank_key(clip.text, "bpe", ("a {}",), "mean"),
        bank_key(clip.text, "bpe", ("{}",), "keep"),
    ]
    activation = copy.deepcopy(clip.text)
    activation.config = replace(
        activation.config, blocks=replace(activation.config.blocks, activation="quick_gelu")
    )
    others.append(bank_key(activation, "bpe", ("{}",), "mean"))
    assert len({base, *others}) == 5


def test_the_weights_hash_follows_the_weights(clip):
    tower = clip.text
    base = weights_hash(tower)
    assert weights_hash(copy.deepcopy(tower)) == base
    with torch.no_grad():
        tower.ln_final.bias[0] += 1
    changed = weights_hash(tower)
    assert changed != base
    tower.to(torch.bfloat16)
    assert weights_hash(tower) not in (base, changed)


def test_the_weights_hash_is_the_same_in_another_process(clip, tmp_path):
    torch.save(clip.text.state_dict(), tmp_path / "text.pt")
    code = (
        "import sys, torch\n"
        "from torch import nn\n"
        "from ovseg.vocab.cache import weights_hash\n"
        "class Flat(nn.Module):\n"
        "    def named_parameters(self, *a, **k): return torch.load(sys.argv[1]).items()\n"
        "print(weights_hash(Flat()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "text.pt")], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == weights_hash(clip.text)
