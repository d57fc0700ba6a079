import json
import stat
import subprocess
from contextlib import contextmanager

import pytest
import torch
from hand_made import SIX_STEPS

from coseglib.core.errors import CosegError
from coseglib.models import build_model
from coseglib.models.checkpoints import load_model, read_tensors, save_model
from coseglib.training import loop
from coseglib.training.configuration import load_profile
from coseglib.training.loop import begin, build_optimiser, train
from coseglib.training.state import Progressed, find_state


def test_a_folder_in_use_is_refused_without_resume(config, tmp_path):
    (tmp_path / "state.safetensors").write_bytes(b"something")
    with pytest.raises(CosegError, match="add --resume"):
        train(config, tmp_path, quiet=True)


def test_a_finished_model_is_not_written_over(config, tmp_path):
    model = train(config, tmp_path, quiet=True)
    (tmp_path / "state.safetensors").unlink()
    before = model.read_bytes()
    with pytest.raises(CosegError, match="already holds a run; add --resume"):
        train(config, tmp_path, quiet=True)
    with pytest.raises(CosegError, match=r"model\.safetensors: was trained with seed = 0, not 1"):
        train(config.replaced(seed=1), tmp_path, resume=True, quiet=True)
    with pytest.raises(CosegError, match=r"model\.safetensors: is there, and state\.safetensors, .* is not; choose"):
        train(config, tmp_path, resume=True, quiet=True)
    assert model.read_bytes() == before


def test_nor_is_one_that_was_learned_without_masks(config, tiny, tmp_path):
    model = tmp_path / "model.safetensors"
    save_model(model, tiny("multiclass", classes=2), {"method": "multiclass", "training": config.fields()})
    before = model.read_bytes()
    with pytest.raises(CosegError, match="already holds a run; add --resume"):
        train(config, tmp_path, quiet=True)
    with pytest.raises(CosegError, match="was trained with method = multiclass, not ca"):
        train(config, tmp_path, resume=True, quiet=True)
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [before]


def test_another_configuration_cannot_resume_a_run(config, tmp_path):
    train(config, tmp_path, quiet=True)
    changed = load_profile("smoke", "ca", {**SIX_STEPS, "learning_rate": 0.5})
    with pytest.raises(CosegError, match=r"trained with learning_rate = 0\.002, not 0\.5"):
        train(changed, tmp_path, resume=True, quiet=True)


def test_a_refused_resume_leaves_every_file_as_it_was(config, tmp_path):
    train(config.replaced(steps=2), tmp_path, quiet=True)
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(CosegError, match="steps = 2, not 3"):
        train(config.replaced(steps=3), tmp_path, resume=True, quiet=True)
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_resume_that_is_refused_late_does_so_too(config, tmp_path, monkeypatch):
    train(config, tmp_path, quiet=True)
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}

    def refuse(*_):
        raise CosegError("no class with two photographs")

    monkeypatch.setattr(loop, "build_batches", refuse)
    with pytest.raises(CosegError, match="no class"):
        train(config.replaced(log_every=1), tmp_path, resume=True, quiet=True)
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_other_photographs_are_refused_unless_they_are_wanted_and_the_card_says_so(config, tmp_path, monkeypatch):
    def killed(run):
        original(run)
        if run.at.step == 5:
            raise KeyboardInterrupt

    original, drawn = loop.Run.step, loop.synthetic_photos
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(loop.Run, "step", killed)
        train(config, tmp_path, quiet=True)
    monkeypatch.setattr(loop, "synthetic_photos", lambda *given, **more: drawn(*given, **more)[:-8])
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(CosegError, match=r"was trained on 48 photographs .* here are 40 .* add --resume-anyway"):
        train(config, tmp_path, resume=True, quiet=True)
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before
    card = load_model(train(config, tmp_path, resume=True, quiet=True, anyway=True)).card
    assert [(w["since"], w["photographs"], w["processes"]) for w in card["trained_with"]] == [(0, 48, 1), (3, 40, 1)]
    train(config, tmp_path, resume=True, quiet=True)  # these are the run's own now


def test_another_number_of_processes_is_refused_as_well(tmp_path):
    now = {"photographs": 48, "content": "ab" * 32, "processes": 2}
    at = Progressed(3, trained_with=[{"since": 0, **now}])
    at.go_on_with(now, False, tmp_path)
    with pytest.raises(
        CosegError, match=r"was trained on 48 photographs \(abababab\) in 2 processes, here are .* in 1 "
    ):
        at.go_on_with(now | {"processes": 1}, False, tmp_path)
    assert len(at.trained_with) == 1
    young = Progressed(3)  # of a state that says nothing of it
    young.go_on_with(now, False, tmp_path)
    assert young.trained_with == [{"since": 3, **now}]


def test_other_users_can_read_what_a_run_leaves(config, tmp_path):
    with subprocess.Popen(["true"]) as gone:
        (tmp_path / f".model.safetensors.{gone.pid}.part").touch(0o600)  # of a process that was killed
    train(config.replaced(steps=1), tmp_path, quiet=True)
    (tmp_path / "usual").touch()
    assert len({stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir()}) == 1


class _OtherDevice:
    """A Fabric whose set-up moves the model to another device, and is given an optimiser that is still empty."""

    device = torch.device("meta")

    def setup(self, model, optimiser):
        assert not optimiser.state, "the optimiser's state was loaded before the model was on its device"
        before = list(model.parameters())
        moved = dict(zip(map(id, before), model.to(self.device).parameters(), strict=True))
        for group in optimiser.param_groups:  # a GPU's weights stay the same objects, those of "meta" do not
            group["params"] = [moved[id(p)] for p in group["params"]]
        return model, optimiser


@pytest.mark.filterwarnings("ignore:.*copying from a non-meta")
def test_an_optimisers_state_is_loaded_where_its_weights_are(config, tmp_path):
    train(config, tmp_path, quiet=True)
    model = build_model("ca", "mobilenet_v2", weights=None)
    saved = find_state(tmp_path, config, resume=True)
    run = begin(_OtherDevice(), model, build_optimiser(model, config), config, tmp_path, saved)
    moments = [v for entry in run.optimiser.state.values() for k, v in entry.items() if k != "step"]
    assert moments and {v.device.type for v in moments} == {"meta"}
    assert {v.device.type for v in run.average.module.state_dict().values()} == {"meta"}


@contextmanager
def _a_loss_of_nan_at(step: int, monkeypatch):
    original = loop.Run.backward

    def backward(run, batch, part):
        if run.at.step == step:
            monkeypatch.setattr(run.model, "loss", lambda *_: {"loss": torch.tensor(float("nan"))})
        return original(run, batch, part)

    with monkeypatch.context() as patched:
        patched.setattr(loop.Run, "backward", backward)
        yield


def test_after_a_loss_that_is_not_finite_and_only_then_the_rates_may_be_lowered(config, tmp_path, monkeypatch):
    lower = config.replaced(learning_rate=1e-4)
    with (
        _a_loss_of_nan_at(5, monkeypatch),
        pytest.raises(CosegError, match="not finite at step 5; lower learning_rate"),
    ):
        train(config, tmp_path, quiet=True)
    assert json.loads((tmp_path / "stopped.json").read_text())["step"] == 5
    with pytest.raises(CosegError, match="dice = "):  # nothing but the rates
        train(lower.replaced(dice=0.5), tmp_path, resume=True, quiet=True)
    card = load_model(train(lower, tmp_path, resume=True, quiet=True)).card
    earlier = {"until": 3, "learning_rate": 0.002, "backbone_learning_rate": 0.001}
    assert card["training"]["learning_rate"] == 1e-4 and card["earlier_rates"] == [earlier]
    assert read_tensors(tmp_path / "state.safetensors")[1]["earlier_rates"] == [earlier]
    assert not (tmp_path / "stopped.json").exists()
    with pytest.raises(CosegError, match=r"learning_rate = 0\.0001, not 0\.002"):
        train(config, tmp_path, resume=True, quiet=True)


def test_weights_that_no_rate_will_mend_are_not_kept_either(config, tmp_path, monkeypatch):
    def spoilt(run, batch, part):
        return original(run, batch, part) * torch.tensor([1e20 if run.at.step >= 2 else 1.0, 1, 1, 1])

    original = loop.Run.backward
    monkeypatch.setattr(loop.Run, "backward", spoilt)
    with _a_loss_of_nan_at(5, monkeypatch), pytest.raises(CosegError, match="not finite at step 5"):
        train(config.replaced(save_every=1), tmp_path, quiet=True)
    assert read_tensors(tmp_path / "state.safetensors")[1]["step"] == 1


def test_a_last_step_that_spoils_the_weights_is_no_model(config, tmp_path, monkeypatch):
    def spoil(run):
        original(run)
        if run.at.step == 6:
            next(run.model.parameters()).data.fill_(float("inf"))

    original = loop.Run.step
    monkeypatch.setattr(loop.Run, "step", spoil)
    with pytest.raises(CosegError, match="weights are not finite at step 6; lower learning_rate and --resume"):
        train(config.replaced(average=0), tmp_path, quiet=True)
    assert {p.name for p in tmp_path.iterdir()} == {"state.safetensors", "stopped.json", "log.csv", "config.yaml"}
    assert read_tensors(tmp_path / "state.safetensors")[1]["step"] == 3


def test_weights_whose_loss_is_not_finite_are_never_kept(config, tmp_path, monkeypatch):
    often = config.replaced(save_every=1)
    with _a_loss_of_nan_at(4, monkeypatch), pytest.raises(CosegError, match="not finite at step 4"):
        train(often, tmp_path, quiet=True)
    assert read_tensors(tmp_path / "state.safetensors")[1]["step"] == 3
