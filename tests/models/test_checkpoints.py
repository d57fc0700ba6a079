import copy
import hashlib
import json
import os
import stat

import pytest
import torch
from safetensors.torch import save_file

from coseglib.core.errors import CosegError
from coseglib.core.paths import CHECKPOINTS, SCENES
from coseglib.models import METHODS
from coseglib.models.checkpoints import FORMAT, find, load_model, read_tensors, save_model, write_tensors

CONFIG = {"method": "ca", "backbone": "mobilenet_v2"}


@torch.no_grad()
@pytest.mark.parametrize("variant", ["paper", "workbook"])
def test_a_saved_model_answers_as_before(tiny, tmp_path, variant):
    model, pair = tiny("ca", variant), torch.rand(1, 2, 3, 64, 64)
    digest = save_model(tmp_path / "m.safetensors", model, CONFIG)
    loaded = load_model(tmp_path / "m.safetensors")
    torch.testing.assert_close(loaded(pair).logits, model(pair).logits)
    assert loaded.card["sha256"] == digest == hashlib.sha256((tmp_path / "m.safetensors").read_bytes()).hexdigest()
    assert (loaded.variant, loaded.input_size, loaded.backbone.origin) == (variant, 64, "tf-slim")


@torch.no_grad()
def test_half_precision_halves_the_file_and_keeps_the_vectors_exact(tiny, tmp_path):
    model = tiny("fca", "workbook")
    save_model(tmp_path / "full.safetensors", model, {**CONFIG, "method": "fca"})
    save_model(tmp_path / "half.safetensors", model, {**CONFIG, "method": "fca"}, half=True)
    full, half = ((tmp_path / f"{n}.safetensors").stat().st_size for n in ("full", "half"))
    assert half < 0.55 * full
    pair = torch.rand(1, 2, 3, 64, 64)
    loaded = load_model(tmp_path / "half.safetensors", folded=False)
    torch.testing.assert_close(loaded(pair).logits, model(pair).logits, rtol=0.05, atol=0.05)
    for (name, a), b in zip(model.state_dict().items(), loaded.state_dict().values(), strict=True):
        if a.ndim <= 1 and not name.endswith("num_batches_tracked"):
            assert torch.equal(a, b), name


def test_what_cannot_be_loaded_is_named_in_one_line(tiny, tmp_path):
    good = tmp_path / "good.safetensors"
    save_model(good, tiny("ca"), CONFIG)
    tensors, header = read_tensors(good)

    def refuse(name: str, message: str, **options):
        with pytest.raises(CosegError, match=message) as caught:
            load_model(tmp_path / name, **options)
        assert name in str(caught.value) and "\n" not in str(caught.value)

    refuse("none.safetensors", "no such checkpoint")
    (tmp_path / "cut.safetensors").write_bytes(good.read_bytes()[:1000])
    refuse("cut.safetensors", "not a readable safetensors file")
    torch.save({"evil": torch.nn.Linear(1, 1)}, tmp_path / "pickle.safetensors")
    refuse("pickle.safetensors", "not a readable safetensors file")
    save_file(tensors, tmp_path / "foreign.safetensors", {"format": "pt"})
    refuse("foreign.safetensors", "no checkpoint of this project")
    write_tensors(tmp_path / "newer.safetensors", tensors, {**header, "format": "coseg-2"})
    refuse("newer.safetensors", "update the project")
    write_tensors(tmp_path / "state.safetensors", tensors, {"format": FORMAT, "kind": "state"})
    refuse("state.safetensors", "training state")
    refuse("good.safetensors", "holds a ca model, csa was asked for", expect="csa")
    write_tensors(tmp_path / "other.safetensors", tensors, {**header, "method": "fca"})
    refuse("other.safetensors", "do not fit fca on mobilenet_v2")
    (tmp_path / "good.json").write_text(json.dumps({"sha256": "0" * 64}))
    refuse("good.safetensors", "SHA-256")


def test_one_bit_of_a_weight_or_of_the_header_is_found_out(tiny, tmp_path):
    file = tmp_path / "model.safetensors"
    save_model(file, tiny(), {"method": "ca", "backbone": "mobilenet_v2"})
    sound = bytearray(file.read_bytes())
    for place in (len(sound) - 2, sound.index(b"input_size") + len('input_size\\": ')):
        damaged = sound.copy()
        damaged[place] ^= 1  # a weight's last digits; 64 pixels become 74, say
        file.write_bytes(damaged)
        with pytest.raises(CosegError, match="damaged"):
            load_model(file)
    file.write_bytes(sound)
    load_model(file)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("not JSON", "cannot be read as JSON"),
        ("", "cannot be read as JSON"),
        ("[1]", "holds no names with values"),
        ('{"version": "4.5", "shapes": []}', "has no sha256"),
    ],
)
def test_a_json_beside_a_checkpoint_that_is_no_card_is_one_line(checkpoint, text, told):
    checkpoint.with_suffix(".json").write_text(text)
    with pytest.raises(CosegError, match=f"model.json: {told}.*move it away") as error:
        load_model(checkpoint)
    assert "\n" not in str(error.value)


def test_an_unknown_name_lists_what_is_shipped():
    with pytest.raises(CosegError, match=r"ca-vgg19: no such checkpoint; shipped: "):
        load_model("ca-vgg19")


def test_a_write_that_fails_leaves_the_old_file(tiny, tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    write_tensors(path, {"a": torch.ones(2)}, {"format": FORMAT})

    def full_disk(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr("os.replace", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_tensors(path, {"a": torch.zeros(2)}, {"format": FORMAT})
    monkeypatch.undo()
    assert read_tensors(path)[0]["a"].tolist() == [1, 1]
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


SHIPPED = [path for folder in (CHECKPOINTS, SCENES) for path in sorted(folder.glob("*.safetensors"))]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_a_shipped_checkpoint_has_a_card_with_its_checksum_and_is_small(path):
    card = json.loads(path.with_suffix(".json").read_text())
    assert load_model(path.stem).card["sha256"] == card["sha256"]
    assert path.stat().st_size <= (3e6 if path.parent == SCENES else 8 * 2**20)
    assert {"trained_on", "steps", "minutes", "seeds", "figures"} <= set(card)


@torch.no_grad()
@pytest.mark.parametrize("variant", ["paper", "workbook"])
@pytest.mark.parametrize("method", METHODS)
def test_every_system_comes_back_from_its_file(tiny, tmp_path, method, variant):
    options = {"ssnm": {"categories": 3, "width": 16}, "pfcc": {"kernels": (3, 5), "width": 8}}.get(method, {})
    model, group = tiny(method, variant, **options), torch.rand(1, 3, 3, 64, 64)
    save_model(tmp_path / "m.safetensors", model, {"method": method, "backbone": "mobilenet_v2"})
    again = load_model(tmp_path / "m.safetensors", method)
    assert again.options == options
    torch.testing.assert_close(again(group).logits, model(group).logits)


def test_a_folder_named_like_a_shipped_checkpoint_does_not_hide_it_and_a_runs_folder_is_a_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = find("ca-mobilenet_v2")
    for folder in ("ca-mobilenet_v2", "run", "empty"):
        (tmp_path / folder).mkdir()
    for folder in ("ca-mobilenet_v2", "run"):
        (tmp_path / folder / "model.safetensors").write_bytes(b"a model")
    assert find("ca-mobilenet_v2") == shipped
    assert find("run").read_bytes() == find(tmp_path / "ca-mobilenet_v2").read_bytes() == b"a model"
    with pytest.raises(CosegError, match="empty: no such checkpoint; shipped: "):
        find("empty")
    (tmp_path / "ca-scenes").write_bytes(b"a file")
    assert find("ca-scenes").parent == SCENES and find("./ca-scenes").read_bytes() == b"a file"


def test_everybody_whom_the_umask_lets_can_read_a_model(tmp_path):
    before = os.umask(0o022)
    try:
        write_tensors(tmp_path / "m.safetensors", {"a": torch.ones(2)}, {"format": FORMAT})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "m.safetensors").stat().st_mode) == 0o644


def test_a_header_holds_no_number_that_json_does_not_know(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_tensors(tmp_path / "m.safetensors", {"a": torch.ones(2)}, {"format": FORMAT, "threshold": float("inf")})
    assert not list(tmp_path.iterdir())


def test_a_card_is_frozen_and_a_model_that_was_loaded_can_be_copied(checkpoint):
    model = load_model(checkpoint)
    with pytest.raises(TypeError):
        model.card["sha256"] = "0"
    assert copy.deepcopy(model).card == model.card and model.card["method"] == "ca"


def test_how_a_multi_class_model_ends_in_masks_is_what_it_was_trained_with(tiny, tmp_path):
    for post in ("argmax", "crf"):
        config = {"method": "multiclass", "backbone": "mobilenet_v2", "training": {"post": post}}
        save_model(tmp_path / "m.safetensors", tiny("multiclass"), config)
        assert load_model(tmp_path / "m.safetensors").post == post
    assert load_model(tmp_path / "m.safetensors", post="argmax").post == "argmax"
