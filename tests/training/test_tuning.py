"""One's own masks: what trains and what is kept aside, that the start is among the choices, every kind, resuming."""

import csv
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from coseglib.cli import main as cli
from coseglib.core.errors import CosegError
from coseglib.core.paths import REPOSITORY
from coseglib.data.images import read_mask, write_png
from coseglib.data.record import Photo
from coseglib.data.synthetic import load_synthetic
from coseglib.models.checkpoints import load_model, read_tensors
from coseglib.training import loop
from coseglib.training.configuration import load_profile
from coseglib.training.loop import cached_photographs, train
from coseglib.training.runs import training_folder
from coseglib.training.tuning import KEPT_ASIDE, kept_aside, own_folder, tuned_config

SMALL = {"steps": 4, "groups": 2, "cache_side": 64, "input_size": 64, "log_every": 2, "save_every": 2}
SMALL |= {"validate_every": 2, "warmup": 1, "precision": "32-true"}


def drawn(root: Path, groups=("star", "gear"), photos: int = 5) -> Path:
    """A folder of one's own: scenes that hold one group's kind each."""
    for group in groups:
        (alone,) = load_synthetic("val", (group,), photos, size=64)
        for i, photo in enumerate(alone.photos):
            for part, pixels in (("images", photo.image()), ("ground_truth", 255 * alone.mask(i))):
                (root / part / group).mkdir(parents=True, exist_ok=True)
                write_png(root / part / group / f"{i}.png", torch.as_tensor(pixels))
    return root


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    return drawn(tmp_path_factory.mktemp("own") / "mine")


def small(folder: Path, start: str = "ca-scenes", **fields):
    return tuned_config("tune", None, start, folder, SMALL | fields)


def weights(file: Path) -> dict[str, torch.Tensor]:
    return read_tensors(file)[0]


def same(one: Path, two: Path) -> bool:
    return all(torch.equal(value, weights(two)[name]) for name, value in weights(one).items())


@pytest.mark.parametrize("kind", ["ca", "fca", "csa", "pfcc", "dcnet", "ssnm"])
def test_every_kind_goes_on_and_its_card_says_from_what_and_on_what(kind, mine, tmp_path, capsys):
    start = load_model(f"{kind}-scenes", folded=False)
    config = small(mine, f"{kind}-scenes", group_size=2, input_size=start.input_size)
    assert (config.method, config.backbone, config.variant) == (kind, "resnet10", "workbook")
    model = load_model(train(config, tmp_path / "run"), folded=False)
    card, folder = model.card, own_folder(mine)
    assert [card["started_from"][name] for name in ("name", "sha256")] == [f"{kind}-scenes", start.card["sha256"]]
    said = {name: card["data_folder"][name] for name in ("groups", "photographs", "kept_aside", "content")}
    assert said == {"groups": 2, "photographs": 10, "kept_aside": sum(folder.aside), "content": folder.content}
    before, best = (card["data_folder"][name] for name in ("J_before", "J"))
    assert before == pytest.approx(folder.jaccard_aside(start, 20))
    assert best == pytest.approx(folder.jaccard_aside(model, 20)) and best >= before
    last = capsys.readouterr().out.strip().splitlines()[-1]
    told = "no better than" if best == before else f"{before:.3f} as {kind}-scenes, {best:.3f} tuned"
    assert told in last and f"{sum(folder.aside)} photographs kept aside" in last


def test_a_system_that_names_classes_names_those_of_the_folder_and_keeps_the_rest(mine):
    start = load_model("ssnm-scenes", folded=False)
    config = small(mine, "ssnm-scenes", group_size=2)
    model = loop._initial_model(config, len(cached_photographs(config).classes))
    ours, theirs = model.state_dict(), start.state_dict()
    other = {name for name in ours if ours[name].ndim and not torch.equal(ours[name], theirs[name])}
    assert model.categories == 2 and model.options["width"] == 96
    assert other == {"classifier.weight", "classifier.bias"}


def test_a_fifth_is_kept_aside_by_name_and_newcomers_move_nobody():
    def photo(i: int) -> Photo:
        return Photo("folder", f"dogs/{i}.jpg", ("dogs",), lambda: None)

    many = [photo(i) for i in range(1000)]
    aside = set(kept_aside(many))
    assert abs(len(aside) / 1000 - KEPT_ASIDE) < 0.03
    for count in (50, 200, 700):
        assert set(kept_aside(many[:count])) == aside & set(many[:count])
    assert [len(kept_aside(many[:count])) for count in (1, 2, 3, 4)] == [0, 0, 1, 1]
    for first in range(0, 999, 3):  # of three that are all below the share, two train
        assert len(kept_aside(many[first : first + 3])) == 1


def test_what_is_kept_aside_and_its_copies_in_other_groups_never_train(tmp_path):
    folder = drawn(tmp_path / "mine")
    aside = {p.path for p in kept_aside(own_folder(folder).groups[0].photos)}
    name = min(aside).name
    shutil.copy(folder / "images" / "gear" / name, folder / "images" / "star" / f"copy{name}")
    shutil.copy(folder / "ground_truth" / "star" / name, folder / "ground_truth" / "star" / f"copy{name}")
    own = own_folder(folder)
    chosen = {p.content() for group, n in zip(own.groups, own.aside, strict=True) for p in group.photos[:n]}
    assert len(own.training) + sum(own.aside) == 11 and own.aside[1] == 2
    assert not chosen & {p.content() for p in own.training}


def test_every_group_is_asked_for_whatever_it_is_called_and_however_small_it_is(tmp_path):
    folder = drawn(tmp_path / "mine")
    for part in ("images", "ground_truth"):
        (folder / part / "star").rename(folder / part / "building")  # a name of what surrounds objects in MSRC
    for file in (folder / "ground_truth" / "building").iterdir():
        speck = torch.zeros_like(read_mask(file))
        speck[30:33, 30:33] = 255  # .2 % of the picture
        write_png(file, speck)
    config = small(folder)
    sampler = loop.build_batches(config, cached_photographs(config))
    assert len(sampler.usable) == 2 and {plan.targets[0] for plan in map(sampler.plain, _generators(20))} == {1, 2}


def test_a_single_group_is_asked_plainly_and_several_by_what_partners_tell_too(mine, tmp_path):
    config = small(drawn(tmp_path / "mine", ("star",)))
    for folder, kinds in ((config.folder, {"plain"}), (mine, {"plain", "hard", "empty"})):
        sampler = loop.build_batches(config.replaced(folder=str(folder)), cached_photographs(small(folder)))
        assert {plan.kind for plan in map(sampler.plan, _generators(30))} == kinds


def _generators(count: int):
    return [np.random.default_rng(i) for i in range(count)]


def _without_masks(folder: Path) -> None:
    shutil.rmtree(folder / "ground_truth")


def _broken(folder: Path) -> None:
    (folder / "ground_truth" / "star" / "0.png").unlink()
    (folder / "images" / "gear" / "1.png").write_bytes(b"none")
    write_png(folder / "ground_truth" / "gear" / "2.png", torch.zeros(9, 9, dtype=torch.uint8))


def _left(folder: Path, *names: str) -> None:
    for part in ("images", "ground_truth"):
        for file in (folder / part).glob("*/*"):
            if f"{file.parent.name}/{file.stem}" not in names:
                file.unlink()


def _unmarked(folder: Path) -> None:
    for file in sorted((folder / "ground_truth" / "gear").iterdir())[1:]:
        write_png(file, torch.zeros(64, 64, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (_without_masks, "no masks to train on; they go into"),
        (_broken, r"3 faults: .*2\.png: 9 × 9 pixels.*0\.png; .*`coseg doctor .*mine` lists all"),
        (lambda f: _left(f, "star/0", "star/1", "star/2", "gear/0"), "group gear: one photograph has no partner; add"),
        (lambda f: _left(f, "star/0", "star/1", "gear/0", "gear/1"), "no group has three photographs"),
        (_unmarked, "group gear: . of its photographs train and have something marked, group_size is 2; add some, or"),
    ],
)
def test_a_folder_that_cannot_train_is_refused_in_one_line_before_anything_is_written(tmp_path, harm, told):
    folder = drawn(tmp_path / "mine")
    harm(folder)
    with pytest.raises(CosegError) as error:
        train(small(folder), tmp_path / "run", quiet=True)
    assert re.search(told, str(error.value)) and "\n" not in str(error.value), error.value
    assert not (tmp_path / "run").exists()


def test_groups_of_two_train_beside_larger_ones(tmp_path):
    folder = drawn(tmp_path / "mine")
    _left(folder, "star/0", "star/1", "star/2", "gear/0", "gear/1")
    assert own_folder(folder).aside == (0, 1)
    train(small(folder, steps=2), tmp_path / "run", quiet=True)


def test_the_start_is_kept_where_nothing_is_better(mine, tmp_path, capsys):
    still = small(mine, learning_rate=0.0, backbone_learning_rate=0.0)
    model = train(still, tmp_path / "run")
    assert "no better than ca-scenes" in capsys.readouterr().out.splitlines()[-1]
    assert load_model(model).card["step"] == 0
    spoilt = train(small(mine, learning_rate=0.5), tmp_path / "other", quiet=True)
    for file in (model, spoilt):
        (want, found) = (load_model(one, folded=False).state_dict() for one in ("ca-scenes", file))
        assert all(torch.equal(value, found[name]) for name, value in want.items())


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_batch_norms_keep_their_statistics_and_learn_their_weights(mine, tmp_path, frozen):
    config = small(mine, frozen_norms=frozen, validate_every=0, average=0.0)
    found = load_model(train(config, tmp_path / "run", quiet=True), folded=False).state_dict()
    start = load_model("ca-scenes", folded=False).state_dict()
    means = [name for name in start if name.endswith("running_mean")]
    assert all(torch.equal(start[name], found[name]) == frozen for name in means) and means
    assert all(not torch.equal(start[n], found[n.replace("running_mean", "weight")]) for n in means)


def test_a_killed_tuning_goes_on_to_the_same_weights_and_the_same_verdict(mine, tmp_path, monkeypatch):
    whole = train(small(mine), tmp_path / "whole", quiet=True)
    step, moved = loop.Run.step, tmp_path / "moved"

    def killed(run):
        step(run)
        if run.at.step == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop.Run, "step", killed)
    with pytest.raises(KeyboardInterrupt):
        train(small(mine), tmp_path / "run", quiet=True)
    monkeypatch.setattr(loop.Run, "step", step)
    shutil.copytree(mine, moved)  # the same photographs elsewhere
    again = train(small(moved), tmp_path / "run", resume=True, quiet=True)
    assert same(whole, again) and same(*(file.with_name("state.safetensors") for file in (whole, again)))
    cards = [load_model(file).card["data_folder"] for file in (whole, again)]
    assert cards[0] == cards[1]
    with open(again.with_name("log.csv"), newline="") as file:
        assert [row["step"] for row in csv.DictReader(file) if row["val_J"]] == ["0", "2", "4"]


def test_another_mask_is_not_resumed_with_unless_that_is_wanted(mine, tmp_path, monkeypatch):
    folder, step = tmp_path / "mine", loop.Run.step
    shutil.copytree(mine, folder)

    def killed(run):
        step(run)
        if run.at.step == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop.Run, "step", killed)
    with pytest.raises(KeyboardInterrupt):
        train(small(folder), tmp_path / "run", quiet=True)
    monkeypatch.setattr(loop.Run, "step", step)
    aside = own_folder(folder).groups[0].photos[0].mask_path  # of what is kept aside, which trains nothing
    write_png(aside, 255 - 255 * read_mask(aside))
    with pytest.raises(CosegError, match="mend that, or add --resume-anyway"):
        train(small(folder), tmp_path / "run", resume=True, quiet=True)
    model = train(small(folder), tmp_path / "run", resume=True, anyway=True, quiet=True)
    assert len(read_tensors(model.with_name("state.safetensors"))[1]["trained_with"]) == 2


def test_what_the_start_decides_can_be_set_and_another_method_is_refused(mine, tmp_path, capsys):
    assert small(mine, "ssnm-scenes").options == {"width": 96, "spatial_loss": "masks"}
    assert small(mine, "ssnm-scenes", **{"options.width": "32"}).options["width"] == 32
    assert tuned_config("scenes", "ca", "ca-scenes").data == "synthetic"
    given = ["train", "--data-folder", str(mine), "--start", "ca-scenes", "-o", str(tmp_path / "run")]
    for more, told in (
        (["--method", "csa"], "holds a ca model, csa was asked for"),
        (["--method", "multiclass"], "--data-folder: multiclass learns on one group, without masks; leave it out"),
        (["--set", "backbone=vgg16"], "its backbone is resnet10, not vgg16; set backbone"),
        (["--set", "data=real"], "data = real, folder = "),
    ):
        assert cli.main([*given, *more]) == 1
        said = capsys.readouterr().err
        assert told in said and said.count("coseg: ") == 1, said
    with pytest.raises(CosegError, match=r"its tensors do not fit ssnm with these options \(first: "):
        train(small(mine, "ssnm-scenes", **{"options.width": "32"}), tmp_path / "run", quiet=True)


def test_without_a_start_it_says_what_it_starts_from(mine, tmp_path, capsys):
    sets = [word for name, value in SMALL.items() for word in ("--set", f"{name}={value}")]
    more = ["--set", "backbone=resnet10", "--set", "variant=workbook"]
    assert cli.main(["train", "--data-folder", str(mine), "-o", str(tmp_path / "run"), *sets, *more]) == 0
    said = capsys.readouterr()
    assert "no --start: it trains from the ImageNet backbone" in said.err
    assert re.search(r"J 0\.\d+ on \d photographs kept aside", said.out)
    assert load_model(tmp_path / "run").card["training"]["frozen_norms"] is False


def test_the_commands_of_the_readme_run(tmp_path, monkeypatch, capsys):
    section = (REPOSITORY / "README.md").read_text(encoding="utf-8").split("### With masks of your own\n")[1]
    commands = re.findall(r"^    \.venv/bin/coseg (.+?)(?:  #.*)?$", section.split("\n#")[0], re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    drawn(Path("mine"))
    shutil.copytree(Path("mine/images/star"), "more")
    assert [command.split()[0] for command in commands] == ["doctor", "train", "segment"]
    for command in commands:
        words = shlex.split(command.replace("ca-mobilenet_v2", "ca-scenes"))
        smoke = ["--set", "steps=2", "--set", "cache_side=64"] if words[0] == "train" else []
        assert cli.main([*words, *smoke]) == 0, capsys.readouterr()
    assert len(list(Path("out/masks").glob("*.png"))) == 5


def test_fields_that_came_later_change_no_recipe_at_their_defaults():
    """Trainings that are there are found again: folders' names as before those fields."""
    config = load_profile("smoke", "ca")
    assert training_folder("x", "ca", config).name == "ca-473a0a2b"
    assert training_folder("x", "ca", config.replaced(frozen_norms=True)).name != "ca-473a0a2b"
