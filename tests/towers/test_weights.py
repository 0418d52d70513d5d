"""Loading CLIP by name and from files in every published layout, and what is said when that fails."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from tiny_clips import RESNET, VIT, flat, save_embedded, save_openai_archive, tiny_clip

from ovseg.towers import table
from ovseg.towers.checkpoints import CheckpointError, read_state_dict
from ovseg.towers.clip import architecture
from ovseg.towers.converters import to_hf_clip
from ovseg.towers.infer import infer_config
from ovseg.towers.weights import list_towers, load_clip, tower_info


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("OVSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OVSEG_OFFLINE", "1")


@pytest.fixture
def clip():
    return tiny_clip()


def same_embeddings(loaded, model, tolerance=1e-6):
    """Of the vision and the text tower."""
    image = torch.randn(2, 3, 64, 64)
    tokens = loaded.tokenizer(["a cat", "two dogs"])
    with torch.no_grad():
        for got, wanted in (
            (loaded.model.encode_image(image), model.encode_image(image)),
            (loaded.model.encode_text(tokens), model.encode_text(tokens)),
        ):
            torch.testing.assert_close(got, wanted, atol=tolerance, rtol=0)


# ---- the table


def test_the_table_agrees_with_open_clips_pretrained_tables():
    from open_clip.pretrained import get_pretrained_cfg

    rows = [tower_info(name) for name in list_towers() if tower_info(name).arch]
    assert len(rows) >= 30
    for row in rows:
        cfg = get_pretrained_cfg(row.arch.removesuffix("-quickgelu"), row.tag)
        assert cfg, row
        assert row.activation == ("quick_gelu" if cfg.get("quick_gelu") else "gelu")
        assert (row.mean, row.std) == (tuple(cfg["mean"]), tuple(cfg["std"]))
        assert row.sources[-1] == "hf:" + cfg["hf_hub"].rstrip("/")
        config = architecture(row.arch)
        assert config.text.blocks.activation == row.activation
        size = config.vision.image_size
        assert row.image_size == (size if isinstance(size, int) else size[0])
        if row.source.startswith("http"):
            assert row.source == cfg["url"] and row.sha256 and row.sha256 in row.source


def test_openai_metaclip_and_dfn_weights_get_quickgelu_and_others_do_not():
    for name in list_towers():
        tag = name.split(".")[1]
        if tag in ("openai", "metaclip", "dfn"):
            assert tower_info(name).activation == "quick_gelu", name
        elif tag in ("laion2b", "datacomp"):
            assert tower_info(name).activation == "gelu", name


def test_tags_that_only_open_clip_knows():
    info = tower_info("vit_b16.laion400m_e31")
    assert (info.arch, info.tag) == ("ViT-B-16", "laion400m_e31")
    assert tower_info("vit_b32.metaclip_400m").arch == "ViT-B-32-quickgelu"
    assert tower_info("vit_b16_plus_240.laion400m_e32").image_size == 240


def test_unknown_names_list_the_near_ones():
    with pytest.raises(ValueError, match=r"unknown tower 'vit_b16.opnai'; near: .*vit_b16.openai"):
        tower_info("vit_b16.opnai")
    with pytest.raises(ValueError, match=r"near: vit_b16.openai, vit_b16.laion400m, vit_b16.laion2b"):
        load_clip("vit_b16")


def test_reading_the_table_imports_neither_torch_nor_open_clip():
    code = (
        "import sys; from ovseg.towers.table import list_towers, tower_info\n"
        "assert 'vit_b16.openai' in list_towers('vit_b16.*'); assert 'rn50.openai' not in list_towers('vit_b16.*')\n"
        "assert tower_info('vit_l14_336.openai').licence == 'MIT'\n"
        "assert not {'torch', 'open_clip'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_loading_makes_no_initial_values(clip, tmp_path):
    """They would cost seconds for large towers, and on the meta device an import of two seconds."""
    path = save_embedded(clip, tmp_path, "x")
    code = (
        "import sys, torch; from ovseg.towers.weights import load_clip; before = torch.random.get_rng_state()\n"
        f"load_clip({str(path)!r}); assert torch.equal(before, torch.random.get_rng_state())\n"
        "assert not {'torch._dynamo', 'torch._inductor', 'open_clip'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_embedded_weights(clip, tmp_path, monkeypatch):
    save_embedded(clip, tmp_path, "vit_tiny.test")
    monkeypatch.setattr(table, "ASSETS", tmp_path)
    table._table.cache_clear()
    try:
        assert list_towers()[0] == "vit_tiny.test"
        loaded = load_clip("vit_tiny.test")
        assert loaded.info.background_words == ("white paper",)
        assert loaded.info.licence == "CC-BY-4.0"
        assert loaded.info.mean == (0.5, 0.5, 0.5)
        assert loaded.tokenizer.context_length == 16
        same_embeddings(loaded, clip, tolerance=5e-3)  # fp16 in the file
        assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}
        half = load_clip("vit_tiny.test", dtype=torch.bfloat16)
        assert {p.dtype for p in half.model.parameters()} == {torch.bfloat16}
        with pytest.raises(ValueError, match="was trained with 'gelu'"):
            load_clip("vit_tiny.test", activation="quick_gelu")
        with pytest.raises(ValueError, match="arch= is for weight files"):
            load_clip("vit_tiny.test", arch="ViT-B-16")
    finally:
        table._table.cache_clear()


def test_without_a_network_it_is_said_what_to_put_where(tmp_path):
    with pytest.raises(OSError, match=r"vit_b16.openai are not on this machine") as caught:
        load_clip("vit_b16.openai")
    message = str(caught.value)
    assert "OVSEG_OFFLINE" in message and "/ViT-B-16.pt or https://huggingface.co/timm/" in message
    assert str(tmp_path / "cache" / "towers" / "vit_b16.openai") in message
    with pytest.raises(OSError, match="downloads are not allowed here"):
        load_clip("vit_b16.openai", allow_download=False)


def test_weights_put_into_the_cache_by_hand_are_found_and_checked(tmp_path):
    folder = tmp_path / "cache" / "towers" / "vit_b16.openai"
    folder.mkdir(parents=True)
    save_openai_archive(tiny_clip().state_dict(), folder / "ViT-B-16.pt")
    with pytest.raises(CheckpointError, match=r"another\s+tower") as caught:
        load_clip("vit_b16.openai")
    assert "visual.positional_embedding (17, 64), expected (197, 768)" in str(caught.value)


# ---- files


@pytest.mark.parametrize("name", ["w.pt", "w.bin", "w.safetensors"])
def test_open_clip_files(clip, tmp_path, name):
    path = tmp_path / name
    if name.endswith("safetensors"):
        save_file(flat(clip.state_dict()), path)
    else:
        torch.save(flat(clip.state_dict()), path)
    config = replace(infer_config(clip.state_dict(), "gelu"), name="")
    with pytest.raises(ValueError, match=r"activation='quick_gelu' for\s+weights of OpenAI"):
        load_clip(path)
    loaded = load_clip(str(path), activation="gelu")
    assert loaded.model.config == config
    assert config.vision.blocks.heads == 1  # 64 wide, as always in CLIP where nothing says otherwise
    path.with_suffix(".json").write_text(json.dumps({"model_cfg": VIT}))
    same_embeddings(load_clip(path), clip)


def test_a_training_checkpoint_of_open_clip(clip, tmp_path):
    weights = {f"module.{name}": value for name, value in flat(clip.state_dict()).items()}
    torch.save({"epoch": 3, "name": "run", "state_dict": weights, "optimizer": {}}, tmp_path / "epoch_3.pt")
    (tmp_path / "epoch_3.json").write_text(json.dumps({"model_cfg": VIT}))
    same_embeddings(load_clip(tmp_path / "epoch_3.pt"), clip)


@pytest.mark.parametrize("cfg", [VIT, RESNET], ids=["vit", "resnet"])
def test_openai_archive(tmp_path, cfg):
    cfg = {**cfg, "quick_gelu": True}
    cfg["vision_cfg"] = {**cfg["vision_cfg"], "head_width": 64}
    cfg["text_cfg"] = {**cfg["text_cfg"], "heads": 1}
    clip = tiny_clip(cfg)
    save_openai_archive(clip.state_dict(), tmp_path / "o.pt")
    loaded = load_clip(tmp_path / "o.pt")
    assert loaded.info.activation == "quick_gelu"
    same_embeddings(loaded, clip, tolerance=2e-2)  # fp16 in the file
    with pytest.raises(ValueError, match="was trained with 'quick_gelu'"):
        load_clip(tmp_path / "o.pt", activation="gelu")


HF_CONFIG = {
    "model_type": "clip",
    "projection_dim": 32,
    "text_config": {
        "hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2,
        "max_position_embeddings": 16, "hidden_act": "gelu",
    },
    "vision_config": {
        "hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2,
        "image_size": 64, "patch_size": 16, "hidden_act": "gelu",
    },
}  # fmt: skip


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
def test_hugging_face_folder(clip, tmp_path, weights):
    state_dict = {name: value.contiguous() for name, value in to_hf_clip(clip.state_dict()).items()}
    if weights.endswith("bin"):
        torch.save(state_dict, tmp_path / weights)
    else:
        save_file(state_dict, tmp_path / weights)
    (tmp_path / "config.json").write_text(json.dumps(HF_CONFIG))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.1, 0.2, 0.3]}))
    for path in (tmp_path, tmp_path / weights):
        loaded = load_clip(path)
        same_embeddings(loaded, clip)
        assert loaded.info.mean == (0.1, 0.2, 0.3) and loaded.info.activation == "gelu"
    with pytest.raises(ValueError, match="was trained with 'gelu'"):
        load_clip(tmp_path, activation="quick_gelu")


def test_hugging_face_defaults_are_those_of_its_clip_config(tmp_path):
    from ovseg.towers.infer import config_from_hf

    config = config_from_hf({"model_type": "clip", "vision_config": {}, "text_config": {}})
    known = architecture("ViT-B-32-quickgelu")
    assert (config.vision, config.text) == (known.vision, known.text)
    with pytest.raises(ValueError, match="'siglip' model"):
        config_from_hf({"model_type": "siglip", "vision_config": {}})


def test_open_clip_folder(clip, tmp_path):
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": VIT, "preprocess_cfg": {}}))
    with pytest.raises(FileNotFoundError, match=r"no open_clip_model.safetensors or"):
        load_clip(tmp_path)
    save_file(flat(clip.state_dict()), tmp_path / "open_clip_model.safetensors")
    same_embeddings(load_clip(tmp_path), clip)
    with pytest.raises(FileNotFoundError, match=r"neither open_clip_config.json nor config.json"):
        load_clip(tmp_path.parent)


def test_what_shapes_do_not_tell_comes_from_the_table():
    """H/14 has heads of 80; CLIPA is pooled by the mean. Only shapes are read here, on the meta device."""
    from ovseg.towers.clip import CLIP

    for name in (
        "ViT-H-14",
        "ViT-bigG-14-CLIPA",
        "RN50x4",
        "ViT-B-32-256",
        "ViT-H-14-worldwide",
        "ViT-M-16-alt",
    ):
        wanted = architecture(name)
        shapes = CLIP.without_values(wanted).state_dict()
        assert replace(infer_config(shapes, "gelu"), name=name) == wanted
    wanted = architecture("ViT-L-14-336-quickgelu")
    shapes = CLIP.without_values(wanted).state_dict()
    assert replace(infer_config(shapes, "quick_gelu"), name=wanted.name) == wanted
    with pytest.raises(ValueError, match="unknown activation 'relu'"):
        infer_config(shapes, "relu")


def test_the_architecture_can_be_named(clip, tmp_path):
    save_file(flat(clip.state_dict()), tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match="does not fit the architecture"):
        load_clip(tmp_path / "w.safetensors", arch="ViT-S-16")


# ---- what is wrong with a file is said


class Malice:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code was run')",))


def broken(kind, path, clip):
    weights = flat(clip.state_dict())
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "html":
        path.write_bytes(b"<html>404 not found, sorry</html>")
    elif kind == "pickle":
        path.write_bytes(pickle.dumps({"state_dict": Malice()}))
    elif kind == "torch pickle":
        torch.save({"state_dict": weights, "args": Malice()}, path)
    elif kind in ("cut zip", "cut safetensors"):
        torch.save(weights, path) if kind == "cut zip" else save_file(weights, path)
        path.write_bytes(path.read_bytes()[:5000])
    elif kind == "cut archive":
        save_openai_archive(clip.state_dict(), path)
        path.write_bytes(path.read_bytes()[:5000])
    elif kind == "nan":
        weights["visual.proj"][3, 4] = float("nan")
        torch.save(weights, path)
    elif kind == "no tensors":
        torch.save({"lr": 0.1}, path)
    elif kind == "a tensor":
        torch.save(torch.zeros(3), path)
    elif kind == "other model":
        torch.save({"fc.weight": torch.zeros(3)}, path)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("empty", "is empty"),
        ("html", "is not a weight file"),
        ("pickle", "refused: it holds more than tensors"),
        ("torch pickle", "refused: it holds more than tensors"),
        ("cut zip", "damaged or truncated"),
        ("cut safetensors", "damaged or truncated"),
        ("cut archive", "damaged or truncated"),
        ("nan", "not finite, or empty tensors, in visual.proj"),
        ("no tensors", "holds no tensors"),
        ("a tensor", "holds a Tensor, not named tensors"),
        ("other model", "not a CLIP state dict of a known layout"),
    ],
)
def test_bad_files_are_named_with_the_cure(clip, tmp_path, kind, message):
    path = tmp_path / "w.pt"
    broken(kind, path, clip)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_clip(path, activation="gelu")
    assert str(path) in str(caught.value)


def test_a_missing_file_is_said():
    with pytest.raises(FileNotFoundError, match=r"no weight file at nowhere.pt"):
        load_clip("nowhere.pt")


def test_missing_and_unexpected_names_are_listed(clip, tmp_path):
    weights = flat(clip.state_dict())
    for name in [name for name in weights if name.startswith("ln_final")]:
        del weights[name]
    weights["visual.head.weight"] = torch.zeros(1)
    save_file(weights, tmp_path / "w.safetensors")
    (tmp_path / "w.json").write_text(json.dumps({"model_cfg": VIT}))
    with pytest.raises(CheckpointError) as caught:
        load_clip(tmp_path / "w.safetensors")
    message = str(caught.value)
    assert "2 tensors missing (text.ln_final.weight, text.ln_final.bias)" in message
    assert "1 tensors unexpected (visual.head.weight)" in message


def test_an_option_of_open_clip_that_we_do_not_have_is_refused(clip, tmp_path):
    path = save_embedded(clip, tmp_path, "odd", {**VIT, "text_cfg": {**VIT["text_cfg"], "qk_norm": True}})
    with pytest.raises(ValueError, match=r"this one has text_cfg.qk_norm"):
        load_clip(path)


def test_another_vocabulary_is_refused(tmp_path):
    cfg = {**VIT, "text_cfg": {**VIT["text_cfg"], "vocab_size": 300}}
    path = save_embedded(tiny_clip(cfg), tmp_path, "odd", cfg)
    with pytest.raises(ValueError, match="vocabulary of 300 tokens"):
        load_clip(path)


def test_reading_keeps_what_is_stored(clip, tmp_path):
    path = save_embedded(clip, tmp_path, "x")
    assert {value.dtype for value in read_state_dict(path).values()} == {torch.float16}


def test_the_same_weights_under_the_quirks_of_other_code(clip):
    """MaskCLIP's code runs OpenAI's weights with the plain GELU and another epsilon."""
    other = clip.with_config(clip.config.with_vision(activation="quick_gelu", ln_eps=1e-3))
    assert other.visual.proj is clip.visual.proj
    assert other.config.vision.blocks.activation == "quick_gelu"
    assert other.visual.ln_post.eps == other.visual.blocks[0].ln_1.eps == 1e-3
    assert clip.config.vision.blocks.activation == "gelu" and other.config.text == clip.config.text
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert (other.encode_image(image) - clip.encode_image(image)).abs().max() > 1e-4
