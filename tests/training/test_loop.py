import copy
import csv
import hashlib
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from hand_made import SIX_STEPS, TINY

from coseglib.core.errors import CosegError
from coseglib.data.sampler import GroupSampler
from coseglib.models import METHODS
from coseglib.models.checkpoints import load_model, read_tensors
from coseglib.models.losses import boundary_cross_entropy, segmentation_loss
from coseglib.models.semantic_attention import CA
from coseglib.training.configuration import load_profile
from coseglib.training.loop import cached_photographs, train


def _digest(path) -> str:
    tensors, _ = read_tensors(path)
    return hashlib.sha256(b"".join(k.encode() + v.numpy().tobytes() for k, v in sorted(tensors.items()))).hexdigest()


def _run(script: str, cache, *args: str) -> subprocess.CompletedProcess:
    head = f"""
        import os, signal, sys
        import torch
        torch.set_num_threads(1)
        from pathlib import Path
        from coseglib.models import checkpoints
        from coseglib.training import loop as training
        from coseglib.data import cache
        cache.training_set.__defaults__ = (Path({str(cache)!r}), True)
        from coseglib.training.configuration import load_profile
        config = load_profile("smoke", "ca", {SIX_STEPS!r})
    """
    code = textwrap.dedent(head) + textwrap.dedent(script)
    env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, env=env, timeout=240)


def test_a_killed_and_resumed_run_ends_with_the_weights_of_an_undisturbed_one(config, tmp_path, cache):
    train(config, tmp_path / "whole", quiet=True)
    want = _digest(tmp_path / "whole" / "model.safetensors")
    # Killed in step 2 (no state yet), in step 5 (two steps after a state), and while the last state is being replaced.
    killers = {
        "step 2": "n = [0]\nstep = training.Run.step\ndef patched(run):\n    n[0] += 1\n"
        "    step(run)\n    if n[0] == 2: os.kill(os.getpid(), signal.SIGKILL)\ntraining.Run.step = patched",
        "step 5": "n = [0]\nstep = training.Run.step\ndef patched(run):\n    n[0] += 1\n"
        "    step(run)\n    if n[0] == 5: os.kill(os.getpid(), signal.SIGKILL)\ntraining.Run.step = patched",
        "while writing": "n = [0]\nreplace = os.replace\ndef patched(a, b):\n"
        "    n[0] += str(b).endswith('state.safetensors')\n"
        "    if n[0] == 2: os.kill(os.getpid(), signal.SIGKILL)\n    replace(a, b)\nos.replace = patched",
    }
    for name, killer in killers.items():
        out = tmp_path / name
        killed = _run(f"{killer}\ntraining.train(config, {str(out)!r}, quiet=True)", cache)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        train(config, out, resume=True, quiet=True)
        assert _digest(out / "model.safetensors") == want, name
        with open(out / "log.csv", newline="") as file:
            assert [row["step"] for row in csv.DictReader(file)] == ["2", "4", "6"]


def test_two_processes_on_gloo_keep_one_set_of_weights(tmp_path, cache):
    script = tmp_path / "two.py"
    script.write_text(
        textwrap.dedent(f"""
        import hashlib, os, torch
        torch.set_num_threads(1)
        from pathlib import Path
        from coseglib.training import loop as training
        from coseglib.data import cache
        cache.training_set.__defaults__ = (Path({str(cache)!r}), True)
        from coseglib.training.configuration import load_profile
        config = load_profile("smoke", "ca", {SIX_STEPS!r})
        models = []
        optimiser = training.build_optimiser
        training.build_optimiser = lambda model, c: (models.append(model), optimiser(model, c))[1]
        training.train(config, {str(tmp_path / "out")!r}, devices=2, accelerator="cpu", quiet=True)
        weights = b"".join(p.detach().numpy().tobytes() for p in models[0].parameters())
        rank = os.environ.get("LOCAL_RANK", "0")
        Path({str(tmp_path)!r}, "rank" + rank).write_text(hashlib.sha256(weights).hexdigest())
        """)
    )
    env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env=env, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "rank0").read_text() == (tmp_path / "rank1").read_text()
    assert load_model(tmp_path / "out" / "model.safetensors").card["step"] == SIX_STEPS["steps"]


def test_the_loss_falls_in_bfloat16_as_in_fp32(tmp_path):
    last = {}
    for precision in ("32-true", "bf16-mixed"):
        config = load_profile("smoke", "ca", {**TINY, "steps": 24, "groups": 4, "log_every": 6, "precision": precision})
        train(config, tmp_path / precision, quiet=True)
        with open(tmp_path / precision / "log.csv", newline="") as file:
            losses = [float(row["loss"]) for row in csv.DictReader(file)]
        assert losses[-1] < losses[0]
        last[precision] = losses[-1]
    assert last["bf16-mixed"] == pytest.approx(last["32-true"], rel=0.15)


def test_accumulated_parts_add_up_to_the_mean_of_their_gradients(tmp_path, monkeypatch):
    """What the loop adds in each of two parts is half the gradient of that part's loss, computed here by hand."""
    fields = {**SIX_STEPS, "steps": 1, "groups": 4, "accumulate": 2, "average": 0.0, "stem_every": 1, "dice": 0.5}
    fields |= {"boundary": 0.7, "made": 0.5}
    config, seen = load_profile("smoke", "ca", fields), []

    def watch(model, _):
        seen.append(copy.deepcopy(model))
        weight = model.attention_layers[0].weight
        weight.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.clone()))
        return torch.optim.SGD([{"params": [p], "lr": 0.0} for p in (weight, model.attention_layers[0].bias)])

    monkeypatch.setattr("coseglib.training.loop.build_optimiser", watch)
    train(config, tmp_path, quiet=True)
    model, first, both = seen
    usual = {"groups": 2, "side": 32, "shares": config.shares, "crop": config.crop, "steps": 2}
    sampler = GroupSampler(cached_photographs(config), **usual, made=0.5)
    assert {"made"} < {*sampler[0].kinds, *sampler[1].kinds}
    torch.manual_seed(int(np.random.default_rng((config.seed, 0, 0, 2)).integers(2**62)))  # dropout's, as in the loop
    for part, added in ((0, first), (1, both - first)):
        batch = sampler[part]
        logits = model(batch.images.float() / 255, batch.weights).logits
        loss = segmentation_loss(logits, batch.targets, config.dice)
        loss = loss + 0.7 * boundary_cross_entropy(logits, batch.targets)
        (gradient,) = torch.autograd.grad(loss, model.attention_layers[0].weight)
        torch.testing.assert_close(added, gradient / 2, rtol=1e-3, atol=1e-6)


def test_training_can_start_from_a_checkpoint(config, tmp_path):
    first = train(config, tmp_path / "first", quiet=True)
    still = {**SIX_STEPS, "start": str(first), "learning_rate": 0.0, "backbone_learning_rate": 0.0}
    again = train(load_profile("smoke", "ca", still), tmp_path / "second", quiet=True)
    assert load_model(again).card["started_from"]["sha256"] == load_model(first).card["sha256"]
    one, two = (load_model(path, folded=False).state_dict() for path in (first, again))
    assert all(torch.equal(v, two[k]) for k, v in one.items() if k.endswith(("weight", "bias")))
    with pytest.raises(CosegError, match="its variant is paper, not workbook"):
        train(load_profile("smoke", "ca", {**still, "variant": "workbook"}), tmp_path / "third", quiet=True)


def test_options_are_the_methods_own_and_are_kept_in_the_checkpoint(monkeypatch, tmp_path):
    class Optional(CA):
        def __init__(self, backbone, variant="paper", input_size=224, *, kernels=(1, 3), categories=2):
            super().__init__(backbone, variant, input_size)
            self.kernels, self.categories = kernels, categories

    monkeypatch.setitem(METHODS, "ca", Optional)
    config = load_profile("smoke", "ca", {**SIX_STEPS, "steps": 1, "options.kernels": "[5, 7]"})
    assert config.options == {"kernels": [5, 7]}
    model = load_model(train(config, tmp_path, quiet=True))
    assert (model.kernels, model.categories) == ((5, 7), len(cached_photographs(config).classes))
    with pytest.raises(CosegError, match=r"options\.kernel: ca has no such option; kernels, categories"):
        load_profile("smoke", "ca", {"options.kernel": "3"})
    with pytest.raises(CosegError, match="options = 3: must be names with values"):
        load_profile("smoke", "ca", {"options": 3})


def test_questions_by_example_train_context_models_and_the_card_says_so(tmp_path):
    config = load_profile("smoke", "ca", {**SIX_STEPS, "example_share": 0.5})
    by_example, usual = (
        train(c, tmp_path / str(c.example_share), quiet=True) for c in (config, config.replaced(example_share=0.0))
    )
    assert load_model(by_example).card["by_example"] is True and "by_example" not in load_model(usual).card
    assert _digest(by_example) != _digest(usual)
    with pytest.raises(CosegError, match=r"example_share = 0\.5: is for ca, fca and csa; leave it out for dcnet"):
        load_profile("smoke", "dcnet", {"example_share": 0.5})
