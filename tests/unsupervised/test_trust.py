import math

import pytest
import torch

from coseglib.cli.main import main
from coseglib.data.images import write_jpg
from coseglib.data.synthetic import load_synthetic
from coseglib.data.synthetic.scenes import CATEGORIES
from coseglib.models.checkpoints import load_model
from coseglib.unsupervised.clustered import ClusterJob
from coseglib.unsupervised.configuration import load_online
from coseglib.unsupervised.learner import co_segment
from coseglib.unsupervised.trust import EVEN, agreement, evenness, judge, propose_classes, stillness

DRAWN = {"backbone": "resnet10", "extractor": "resnet10", "input_size": 192, "epochs": 3, "precision": "32-true"}


def _config(**fields):
    return load_online("workbook").replaced(**DRAWN, **fields)


def _scenes(*kinds, photos=16):
    """Scenes that all hold these kinds."""
    groups = load_synthetic(groups=kinds, photos=photos if len(kinds) == 1 else 2 * photos)
    return [p for p in groups[0].photos if all(p in g.photos for g in groups)]


def _noise(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 256, (3, 96, 96), dtype=torch.uint8, generator=generator) for _ in range(count)]


def test_maps_that_are_the_same_in_all_photographs_are_still_and_unlike_ones_are_not():
    torch.manual_seed(0)
    one = torch.rand(1, 3, 8, 8)
    assert math.isclose(stillness(one.expand(6, 3, 8, 8)), 1, rel_tol=1e-9)
    assert stillness(torch.full((4, 3, 8, 8), 1 / 3)) == 1
    assert abs(stillness(torch.rand(10, 3, 32, 32)) - 1 / 10) < 0.02
    assert math.isnan(stillness(one))


@pytest.mark.parametrize(
    ("pairs", "still", "alike", "learned"),
    [
        (0.60, 0.1, 0.6, True),
        (0.72, 0.1, 0.6, True),  # one sign is not enough
        (0.60, 0.6, 0.6, True),
        (0.72, 0.1, 0.1, False),
        (0.6937, 0.6, math.nan, False),  # ellipses in the middle, at chance
        (0.60, 0.9, 0.9, False),  # the same map everywhere, whatever else
        (0.60, math.nan, math.nan, True),
    ],
)
def test_two_signs_of_three_or_maps_that_do_not_move_say_that_nothing_was_learned(pairs, still, alike, learned):
    found = judge(pairs, still, alike)
    assert bool(found.why) != learned and "\n" not in found.why
    assert set(found.about()) == {"pairs", "still", "alike"}


def test_noise_has_nothing_to_learn_and_scenes_have():
    noise = co_segment(_noise(10), 2, _config())
    assert noise.trust.why
    scenes = co_segment(_scenes("triangle", "flower"), 2, _config())
    assert not scenes.trust.why and scenes.trust.still < noise.trust.still


def test_the_number_of_kinds_in_drawn_scenes_is_proposed_and_how_sure():
    """Four of one kind and four of two, others' kinds among them: `reports/trials.md` has all 16."""
    right, asked = 0, [(c,) for c in CATEGORIES[:4]] + [CATEGORIES[k : k + 2] for k in (0, 2, 4, 6)]
    for kinds in asked:
        said = []
        number, rows = propose_classes(ClusterJob(_scenes(*kinds), 1, _config()), said.append)
        right += number == len(kinds)
        assert 0 <= rows.set_index("classes").sure[number] <= 1 and f"classes: {number}," in said[0]
        assert rows.classes.tolist() == [1, 2, 3, 4, 5]
    assert right >= 6


def test_of_few_photographs_one_class_is_proposed_and_nothing_is_sure():
    number, rows = propose_classes(ClusterJob(_noise(3), 1, _config()))
    assert number == 1 and rows.sure.tolist() == [0]


def test_a_cluster_that_is_in_half_of_the_photographs_is_not_even():
    job = ClusterJob(_noise(4), 2, _config(axes=4))
    x = torch.zeros(4, 4, 6, 6)
    x[:2, 0], x[2:, 1] = 1, 1  # two kinds, each in two photographs
    s = torch.full((4, 6, 6), 0.9)
    assert evenness(job, x, s, 2) == pytest.approx(0.5) and EVEN > 0.5
    x[:, :, 3:] = 0
    x[:, 1, 3:], x[:, 0, :3], x[:, 1, :3] = 1, 1, 0  # now both in all
    assert evenness(job, x, s, 2) == pytest.approx(1)


def test_agreement_is_not_asked_of_one_class_or_of_few_photographs():
    job = ClusterJob(_noise(4), 2, _config(axes=4))
    assert all(math.isnan(a) for a in agreement(job, 1)) and len(agreement(job, 2, 3)) == 3


@pytest.fixture
def folder(tmp_path):
    """A function (name, pictures) -> a folder with these as photographs."""

    def write(name, pictures):
        (tmp_path / name).mkdir()
        for k, picture in enumerate(pictures):
            write_jpg(tmp_path / name / f"{k:02d}.jpg", picture)
        return str(tmp_path / name)

    return write


def test_a_run_that_has_learned_nothing_says_so_writes_its_masks_and_ends_with_3(folder, tmp_path, capsys):
    fields = [word for name, value in DRAWN.items() for word in ("--set", f"{name}={value}")]
    learning = ["--method", "multiclass", "--classes", "2", *fields]
    noise, scenes = folder("noise", _noise(8)), folder("scenes", [p.image() for p in _scenes("triangle", "flower")])
    assert main(["segment", noise, "-o", str(tmp_path / "out"), *learning]) == 3
    assert "nothing was learned" in capsys.readouterr().out
    assert len(list((tmp_path / "out" / "masks").glob("*.png"))) == 8
    assert main(["segment", scenes, "-o", str(tmp_path / "good"), *learning]) == 0
    run = ["train", "--output", str(tmp_path / "run"), "--photos", noise, *learning]
    assert main(run) == 3 and load_model(tmp_path / "run").card["nothing_learned"]


def test_classes_that_are_not_given_are_proposed_said_and_kept(folder, tmp_path, capsys):
    fields = [word for name, value in DRAWN.items() for word in ("--set", f"{name}={value}")]
    scenes = folder("scenes", [p.image() for p in _scenes("triangle", "flower")])
    learning = ["--method", "multiclass", "--classes", "auto", *fields]
    run = ["train", "--output", str(tmp_path / "run"), "--photos", scenes, *learning]
    assert main(run) == 0
    assert "classes: 2," in "".join(capsys.readouterr())
    card = load_model(tmp_path / "run").card
    assert card["options"]["classes"] == 2 and [row["classes"] for row in card["classes_proposed"]] == [1, 2, 3, 4, 5]
    assert main([*run, "--resume"]) == 0 and "done before" in "".join(capsys.readouterr())
