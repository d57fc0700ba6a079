"""Choosing by validation: figures are those of `evaluate`, the mean decides, what is known is not asked again."""

import pytest
import torch

from coseglib.data.synthetic import load_synthetic
from coseglib.evaluation import choosing
from coseglib.evaluation.choosing import choice_rows, main, read_choices
from coseglib.evaluation.shipping import as_shipped
from coseglib.models.checkpoints import load_model, save_model
from coseglib.scoring.metrics import aggregate
from coseglib.scoring.rows import evaluate


@pytest.fixture
def runs(tmp_path, monkeypatch, tiny):
    """Two files of one small CA, and drawn groups in the place of photographs."""
    seen = load_synthetic("val", groups=2, photos=4, size=48)
    unseen = load_synthetic("test", groups=("leaf", "bolt"), photos=4, size=48)
    monkeypatch.setattr(choosing, "validation_groups", lambda: seen)
    monkeypatch.setattr(choosing, "unseen_groups", lambda: unseen)
    files = []
    for seed in (1, 2):
        model, generator = tiny("ca"), torch.Generator().manual_seed(seed)
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
        files.append(str(tmp_path / f"{seed}.safetensors"))
        about = {"method": "ca", "backbone": "mobilenet_v2", "training": {"data": "synthetic"}, "step": seed}
        save_model(files[-1], model, about | {"seconds": 1.0, "device": "1 × CPU", "precision": "32-true"})
    return files, seen, unseen


def test_a_row_is_what_evaluate_says_of_the_model_as_shipped(runs):
    (first, second), seen, unseen = runs
    rows = choice_rows([first, f"{first}+{second}"], photographs=0, say=lambda text: None)
    assert rows.model.tolist() == [first, f"{first}+{second}"] and rows.looks.tolist() == [1, 1]
    model = as_shipped(first)
    j = [float(aggregate(evaluate(model, groups), "common").J.iloc[-1]) for groups in (seen, unseen)]
    assert [rows.seen[0], rows.unseen[0]] == pytest.approx(j) and rows["mean"][0] == pytest.approx(sum(j) / 2)
    assert rows.sha256[0] == model.card["sha256"] != rows.sha256[1]


def test_a_plus_b_is_the_mean_of_the_weights_and_a_letter_twice_counts_twice(runs):
    (first, second), _, _ = runs
    one, other = (dict(load_model(file, folded=False).named_parameters()) for file in (first, second))
    mean = dict(as_shipped(first, average=[first, second]).named_parameters())
    unfolded = [name for name in one if name in mean and "backbone" not in name]
    assert len(unfolded) > 5
    for name in unfolded:
        assert torch.allclose(mean[name], (2 * one[name] + other[name]) / 3, atol=1e-3), name


def test_rows_are_kept_and_the_best_stands_first(runs, tmp_path, monkeypatch, capsys):
    (first, second), _, _ = runs
    out = tmp_path / "choices.csv"
    assert main([first, second, "--looks", "1", "2", "-o", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()[4:]
    means = [float(line.split()[lines[0].split().index("mean")]) for line in lines[1:]]
    assert len(means) == 4 and means == sorted(means, reverse=True) and len(read_choices(out)) == 4

    def asked_again(*_):
        raise AssertionError("asked again")

    monkeypatch.setattr(choosing, "figures_of", asked_again)
    assert main([second, "-o", str(out)]) == 0 and len(read_choices(out)) == 4


def test_what_is_wrong_is_one_line(runs, tmp_path, capsys):
    (first, _), _, _ = runs
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n")
    assert main([first, "-o", str(other)]) == 1
    assert "move it away" in capsys.readouterr().err and other.read_text() == "a,b\n1,2\n"
    assert main([f"{first}+none"]) == 1 and "none" in capsys.readouterr().err
