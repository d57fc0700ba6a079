import math

import pandas as pd
import pytest
import torch

from coseglib.core.errors import CosegError
from coseglib.data.sets.multiclass import drawn_groups
from coseglib.evaluation import causes
from coseglib.figures import show_changes
from coseglib.unsupervised.clustered import ClusterJob
from coseglib.unsupervised.configuration import load_online

DRAWN = {"backbone": "resnet10", "extractor": "resnet10", "input_size": 96, "epochs": 1, "precision": "32-true"}


@pytest.fixture
def drawn(monkeypatch):
    config = load_online("workbook").replaced(**DRAWN)
    monkeypatch.setattr(causes, "load_online", lambda profile: config)
    return drawn_groups(1, 4)


def test_rows_are_written_as_they_come_and_not_made_again_and_one_frozen_map_is_computed_once(
    drawn, tmp_path, monkeypatch
):
    calls, described = [], ClusterJob._described
    monkeypatch.setattr(ClusterJob, "_described", lambda job, photos: calls.append(job) or described(job, photos))
    out, wanted = tmp_path / "causes.csv", ["no border", "stride 32", causes.CHOSEN]
    first = causes.measure_causes(drawn, out, wanted, 2, lambda text: None)
    assert len(first) == 4 + 2 * 2 and len(calls) == 2  # the chosen one by CRF, too; two kinds of frozen maps
    assert set(first.post[first.cause != causes.CHOSEN]) == {"argmax"}
    again = causes.measure_causes(drawn, out, wanted, 2, lambda text: None)
    assert len(again) == len(first) and len(calls) == 2
    pd.testing.assert_frame_equal(causes.read_causes(out), again)
    with pytest.raises(CosegError, match="no such cause"):
        causes.measure_causes(drawn, out, ["weather"], 1)
    with pytest.raises(CosegError, match="makes it"):
        causes.read_causes(tmp_path / "none.csv")


def test_labels_are_those_of_the_saved_generators_path(drawn):
    """By argmax, of a photograph whose set is whole: what the engine's answer says at the same size."""
    group, config = drawn[0], load_online("workbook").replaced(**DRAWN)
    job = ClusterJob(group.photos, 2, config)
    model = job.generator()
    with torch.no_grad():
        inputs = torch.stack([torch.nn.functional.interpolate(
            p.image()[None].float() / 255, size=(96, 96), mode="bilinear", antialias=True)[0] for p in group.photos
        ])  # fmt: skip
        wanted = model(inputs[None]).logits[0].argmax(dim=1)
    found = causes.labels_of(job.answers(model), group, "argmax")
    small = [torch.nn.functional.interpolate(f[None, None].float(), size=(96, 96))[0, 0].long() for f in found]
    assert float((torch.stack(small) == wanted).float().mean()) > 0.9


def test_the_summary_compares_with_the_chosen_one_on_the_same_groups_and_seeds():
    rows = [("a", causes.CHOSEN, 0, 0.5), ("a", causes.CHOSEN, 1, 0.7), ("b", causes.CHOSEN, 0, 0.3)]
    rows += [("b", causes.CHOSEN, 1, 0.1), ("a", "SA", 0, 0.4), ("b", "SA", 0, 0.3)]
    table = causes.summary(pd.DataFrame(rows, columns=["group", "cause", "seed", "J"]).assign(post="crf"))
    chosen, changed = table.iloc[0], table.iloc[1]
    assert math.isclose(chosen.J, 0.4) and chosen.sd == pytest.approx(0) and (chosen.seeds, chosen.groups) == (2, 2)
    assert math.isclose(changed.change, 0.35 - 0.4) and changed.seeds == 1
    figure = show_changes(table[table.cause != causes.CHOSEN], "title")
    assert [text.get_text() for text in figure.axes[0].texts] == ["-0.050"]
