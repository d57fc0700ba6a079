"""Checkpoints under their papers' protocols: the rows are those of `evaluate`, and what is not here is said."""

import pytest

from coseglib.core.errors import CosegError
from coseglib.data.synthetic import load_synthetic
from coseglib.evaluation import own_protocols
from coseglib.evaluation.own_protocols import main, measure_own_protocols, protocols_asked, read_own_protocols
from coseglib.evaluation.systems import load_systems
from coseglib.scoring.metrics import aggregate
from coseglib.scoring.rows import evaluate


@pytest.fixture
def here(tmp_path, monkeypatch, checkpoint):
    """Drawn groups in the place of MSRC-7 and of VOC's pairs, nothing else; one small CA."""
    (system,), groups, loaded = load_systems([checkpoint], floors=()), load_synthetic(groups=2, photos=3), []

    def load(name):
        loaded.append(name)
        if name not in ("msrc7", "voc-val"):
            raise CosegError(f"{name}: not found; see data/README.md")
        return groups

    monkeypatch.setattr(own_protocols, "load", load)
    monkeypatch.setattr(own_protocols, "load_systems", lambda **_: [system])
    monkeypatch.setattr(own_protocols, "TABLE", tmp_path / "by_protocol.csv")
    monkeypatch.setattr(own_protocols, "KEPT", tmp_path / "runs")
    return system, groups, loaded


def test_every_set_and_protocol_of_a_paper_is_asked_for_and_nothing_of_the_thesis():
    wanted = protocols_asked()
    assert wanted["chen2018", "internet"] == ["chen2018", "chen2018-instant"]
    assert wanted["chen2018", "voc-test-pairs"] == ["chen2018-pairs"] and wanted["zhang2020", "pascal"] == ["ssnm"]
    assert {d for _, d in wanted} >= {"msrc7", "icoseg8", "pascal", "internet", "internet-full"}
    assert len({paper for paper, _ in wanted}) == 4 and not any("thesis" in paper for paper, _ in wanted)


def test_rows_are_those_of_evaluate_and_sets_that_are_missing_are_said(here):
    system, groups, loaded = here
    said: list[str] = []
    table = measure_own_protocols(say=said.append)
    assert set(loaded) == {"msrc7", "voc-val", "icoseg8", "internet", "internet-full"}
    assert [line for line in said if line.startswith(f"{system.name}, internet: internet: not found")]
    assert set(table.dataset) == {"msrc7", "voc-test-pairs"}
    assert set(table[table.dataset == "voc-test-pairs"]["measured on"]) == {"voc-val"}
    for protocol in ("chen2018", "chen2018-instant", "chen2018-pairs"):
        rows = table[table.protocol == protocol]
        want = aggregate(evaluate(system.model, groups, protocol), protocol)
        assert rows.group.tolist() == want.group.tolist() and rows.J.tolist() == pytest.approx(want.J.tolist())
    again = read_own_protocols()
    assert again.J.tolist() == pytest.approx(table.J.tolist(), abs=1e-6) and set(again.checkpoint) == {
        system.sha256[:8]
    }


def test_a_set_is_measured_alone_and_the_others_stay(here, capsys):
    measure_own_protocols(say=lambda text: None)
    before = read_own_protocols()
    assert main(["--dataset", "msrc7"]) == 0 and "chen2018-instant" in capsys.readouterr().out
    after = read_own_protocols()
    assert len(after) == len(before) and set(after.dataset) == set(before.dataset)
    assert main(["--dataset", "imagenet"]) == 1
    assert "imagenet: no paper reports it; one of " in capsys.readouterr().err


def test_a_card_without_weights_is_measured_from_its_run(here, monkeypatch, capsys):
    """As all others, under the card's name; their rows stay."""
    system, _, _ = here
    measure_own_protocols(say=lambda text: None)
    monkeypatch.setattr(own_protocols, "of_card", lambda run, name: {("runs/one", "printed"): system.model}[run, name])
    assert main(["--run", "runs/one", "printed", "--dataset", "msrc7"]) == 0
    table = read_own_protocols()
    assert set(table[table.system == "printed"].dataset) == {"msrc7"} and system.name in set(table.system)
    one, other = (table[(table.system == name) & (table.dataset == "msrc7")].J for name in ("printed", system.name))
    assert one.tolist() == pytest.approx(other.tolist())
