import copy
import dataclasses

import nbformat
import pandas as pd
import pytest
import torch

from coseglib.answering.floors import build_floor
from coseglib.core.devices import precision_of
from coseglib.core.errors import CosegError
from coseglib.core.paths import NOTEBOOKS
from coseglib.data.record import Group
from coseglib.data.reported import anchors, reported
from coseglib.data.synthetic import load_synthetic
from coseglib.evaluation import benchmark
from coseglib.evaluation import systems as of_systems
from coseglib.evaluation.benchmark import (
    CHANGES,
    available_sets,
    evaluations,
    group_table,
    markdown,
    paper_rows,
    photo_rows,
    question_rows,
    question_table,
    score_table,
    scored_part,
    with_papers,
)
from coseglib.evaluation.systems import System, load_systems, own_floors, shipped
from coseglib.models.checkpoints import save_model
from coseglib.scoring import metrics
from coseglib.scoring.metrics import PROTOCOLS
from coseglib.scoring.rows import evaluate, partner_swap, refusal


@pytest.fixture(scope="module")
def groups() -> list[Group]:
    """Three groups of four scenes; the first photograph shows nothing of what its group asks for."""
    found = load_synthetic(groups=3, photos=4, size=40)
    blank = dataclasses.replace(found[0].photos[0], read_labels=lambda: torch.zeros(40, 40, dtype=torch.uint8))
    return [dataclasses.replace(found[0], photos=(blank, *found[0].photos[1:])), *found[1:]]


@pytest.fixture
def ca(checkpoint) -> System:
    return load_systems([checkpoint], floors=())[0]


def test_systems_answer_in_32_bits_on_every_machine(ca, monkeypatch):
    """What a table compares must not depend on what the processor can do."""
    monkeypatch.setattr("coseglib.core.devices.cpu_has_bfloat16", lambda: True)
    assert precision_of(ca.model.precision, "cpu") == "32-true" != precision_of("auto", "cpu")


@pytest.fixture
def ellipse() -> System:
    return System("ellipse", build_floor("ellipse"))


@pytest.fixture
def run_again(monkeypatch) -> list[str]:
    """The protocols of all evaluations that were run."""
    ran: list[str] = []

    def spy(model, groups, protocol, *more, **options):
        ran.append(protocol)
        return evaluate(model, groups, protocol, *more, **options)

    monkeypatch.setattr(benchmark, "evaluate", spy)
    return ran


def quiet(text: str) -> None:
    pass


def test_every_protocol_and_partner_has_the_figures_of_an_evaluation_of_its_own(ca, groups, tmp_path):
    rows = photo_rows([ca], groups, tmp_path / "rows.csv", say=quiet)
    table = score_table(rows, [ca])
    for protocol in PROTOCOLS:
        for partner in ("group", "self", "other") if protocol in ("common", "multiclass") else ("group",):
            alone = metrics.aggregate(evaluate(ca.model, groups, protocol, partner), protocol)
            ours = table[(table.protocol == protocol) & (table.partner == partner)]
            assert ours.group.tolist() == [*(g.name for g in groups), "all"]
            assert ours.J.tolist() == pytest.approx(alone.J.tolist(), abs=2e-3), (protocol, partner)
            assert ours.P.tolist() == pytest.approx(alone.P.tolist(), abs=2e-3), (protocol, partner)
    assert len(table) == (8 + 4) * 4 and set(table.checkpoint) == {ca.sha256[:8]}


def test_protocols_that_count_the_same_share_one_evaluation_and_changes_ask_for_no_further_one():
    shared = evaluations()
    assert len(shared) == 5 and len(PROTOCOLS) == 8
    assert set(evaluations(CHANGES)) < set(shared)
    fields = [dataclasses.asdict(p) for p in CHANGES]
    for before, after in zip([0, 0, 0, 2, 0, 0, 0, 0], range(8), strict=True):
        changed = [
            k for k in ("average", "size", "threshold", "empty", "context") if fields[before][k] != fields[after][k]
        ]
        assert len(changed) == (after > 0)
    odd = dataclasses.replace(PROTOCOLS["common"], name="odd", context="pair", threshold="mean+std")
    with pytest.raises(CosegError, match=r"odd: no protocol .* is pair, own, mean\+std"):
        evaluations([odd])


def test_nothing_is_evaluated_twice_and_a_killed_run_goes_on(ca, ellipse, groups, tmp_path, run_again, monkeypatch):
    kept, some = tmp_path / "rows.csv", (PROTOCOLS["common"], PROTOCOLS["ssnm"])

    def killed(*given, **options):
        if len(run_again) == 1:
            raise KeyboardInterrupt
        return spy(*given, **options)

    spy = benchmark.evaluate
    monkeypatch.setattr(benchmark, "evaluate", killed)
    monkeypatch.setattr(benchmark, "cpu_count", lambda: 1)  # one part after the other
    with pytest.raises(KeyboardInterrupt):
        photo_rows([ca, ellipse], groups, kept, some, say=quiet)
    monkeypatch.setattr(benchmark, "evaluate", spy)
    first = photo_rows([ca, ellipse], groups, kept, some, say=quiet)
    assert run_again == ["common", "ssnm", "common", "ssnm"]
    said: list[str] = []
    again = photo_rows([ca, ellipse], groups, kept, some, say=said.append)
    assert len(run_again) == 4 and all(line.endswith("done before") for line in said) and len(said) == 4
    pd.testing.assert_frame_equal(
        score_table(again, [ca, ellipse], some), score_table(first, [ca, ellipse], some), atol=1e-6
    )
    # a seed draws pairs, a mask or a photograph may change under its name: then it is another run
    photo_rows([ca], groups, kept, some[:1], seed=1, say=quiet)
    photo_rows([ca], groups[:2], kept, some[:1], say=quiet)
    assert len(run_again) == 6
    photo_rows([ca, ellipse], groups, kept, some, say=quiet)
    assert len(run_again) == 6


def test_rows_of_a_floor_that_looks_may_be_kept_apart_and_are_in_one_table(ca, ellipse, groups, tmp_path, run_again):
    looks = System("looks", copy.deepcopy(ellipse.model))
    looks.model.alone, looks.model.name = False, "looks"
    looks.model._card = {**ellipse.model.card, "sha256": "f" * 64}
    kept, apart, common = tmp_path / "rows.csv", tmp_path / "floor.csv", (PROTOCOLS["common"],)
    rows = photo_rows([ca, ellipse, looks], groups, kept, common, say=quiet, floors_kept=apart)
    assert set(rows.checkpoint) == {ca.sha256, ellipse.sha256, "f" * 64}
    assert set(pd.read_csv(apart).checkpoint) == {"f" * 64} and "f" * 64 not in kept.read_text()
    kept.unlink()
    ran = len(run_again)
    photo_rows([looks], groups, kept, common, say=quiet, floors_kept=apart)
    assert len(run_again) == ran and not kept.exists()
    assert photo_rows([], groups, kept, common, say=quiet, floors_kept=apart).empty


def test_a_floor_that_looks_at_nothing_has_for_every_partner_what_it_would_have_been_asked(ellipse, groups, tmp_path):
    common = (PROTOCOLS["common"],)
    table = score_table(photo_rows([ellipse], groups, tmp_path / "rows.csv", common, say=quiet), [ellipse], common)
    for partner, some in table.groupby("partner"):
        asked = metrics.aggregate(evaluate(ellipse.model, groups, partner=partner))
        assert some.J.tolist() == pytest.approx(asked.J.tolist())
    assert table.partner.nunique() == 3 and set(table.method) == {"floor"} and set(table["trained on"]) == {"nothing"}


def not_alone(floor):
    """A floor that says of itself that it sees the whole group, as `features` does."""
    seeing = copy.copy(floor)
    seeing.alone = False
    return seeing


def test_features_are_asked_little_unless_one_is_patient(ellipse):
    slow = System("features", not_alone(ellipse.model))
    common, pair = "group, own, argmax", "pair, own, argmax"
    partners = ("group", "self", "other")
    assert benchmark._asked(slow, common, partners, False) == ("group", "self")
    assert benchmark._asked(slow, pair, partners, False) == ()
    assert benchmark._asked(slow, common, partners, True) == partners
    assert benchmark._asked(ellipse, pair, partners, False) == ("group",)


def _trained(tiny, file, seed: int, steps: int = 7) -> str:
    model = tiny("ca")
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator)
    training = {"seed": seed, "steps": steps, "data": "synthetic", "start": f"runs/{seed}"}
    save_model(file, model, {"method": "ca", "backbone": "mobilenet_v2", "training": training})
    return str(file)


def test_seeds_of_one_recipe_are_a_row_of_mean_and_sd_from_three_on(tiny, groups, tmp_path):
    files = [_trained(tiny, tmp_path / f"tiny-s{seed}.safetensors", seed) for seed in range(3)]
    other = _trained(tiny, tmp_path / "other.safetensors", 0, steps=8)
    some, common = load_systems([*files, other], floors=()), (PROTOCOLS["common"],)
    rows = photo_rows(some, groups, tmp_path / "rows.csv", common, ("group",), say=quiet)
    table = score_table(rows, some, common)
    assert table.system.unique().tolist() == ["tiny", "other"]
    each = [metrics.aggregate(evaluate(s.model, groups)).J for s in some]
    family, single = table[table.system == "tiny"], table[table.system == "other"]
    of_all = pd.concat(each[:3], axis=1)
    assert family.J.tolist() == pytest.approx(of_all.mean(axis=1).tolist(), abs=1e-6)
    assert family["sd J"].tolist() == pytest.approx(of_all.std(axis=1, ddof=1).tolist(), abs=1e-6)
    assert set(family.seeds) == {"0, 1, 2"} and family.checkpoint[0] == ", ".join(s.sha256[:8] for s in some[:3])
    assert single["sd J"].isna().all() and set(single["trained on"]) == {"drawn scenes of the training split"}
    assert " ± " in markdown(table, paper_rows("synthetic"))
    apart = score_table(rows, some[:2], common)  # two are no spread
    assert apart.system.unique().tolist() == ["tiny-s0", "tiny-s1"] and apart["sd J"].isna().all()


def test_the_two_questions_have_the_figures_of_an_evaluation_of_its_own(ca, ellipse, tmp_path, monkeypatch):
    found = load_synthetic(groups=3, photos=4, size=40)
    monkeypatch.setattr(benchmark, "load", lambda name, root=None: found)
    kept = tmp_path / "asked.csv"
    rows = question_rows([ca, ellipse], "synthetic", kept, limit=3, say=quiet)
    table = question_table(rows, [ca, ellipse]).set_index("method")
    swap, unsure = partner_swap(ca.model, found), refusal(ca.model, found, limit=3)
    assert table.swap["ca"] == pytest.approx(swap.score.mean(), abs=1e-6) and table.questions["ca"] == len(swap)
    assert table.AUROC["ca"] == pytest.approx(metrics.auroc(unsure.score, unsure.common))
    assert table.photographs["ca"] == len(unsure) / 2
    assert table.swap["floor"] == pytest.approx(0) and table.AUROC["floor"] == 0.5  # saliency at its plainest
    said: list[str] = []
    again = question_table(question_rows([ca, ellipse], "synthetic", kept, limit=3, say=said.append), [ca, ellipse])
    assert len(said) == 4 and all(line.endswith("done before") for line in said)
    pd.testing.assert_frame_equal(again.set_index("method"), table, atol=1e-6)
    assert question_rows([System("features", not_alone(ellipse.model))], "synthetic", kept, say=quiet).empty


def test_papers_rows_name_their_source_their_protocol_and_their_errata():
    paper = paper_rows("icoseg8").set_index(["source", "system", "group"])
    row = paper.loc[("li2021dcnet, table III", "DCNet", "all")]
    assert row.J == 0.91 and "table V prints 0.9" in row.note and row.protocol == "dcnet" and row.own
    assert paper.loc[("chen2018, table 5", "CA-instant", "all")].protocol == "chen2018-instant"
    assert "43 s for the whole set" in paper.loc[("chen2018, table 5", "CA-instant", "all")].note
    quoted = paper.loc[("chen2018, table 3", "DOCS li2018", "bear2")]
    assert not quoted.own and quoted.protocol == "as quoted"
    network = paper_rows("pascal").query("system == 'SSNM-HRNet'")
    assert set(network.backbone) == {"HRNet"} and len(network) == 21
    part = paper_rows("pascal").query("system == 'SSNM -f_spa'").iloc[0]
    assert part.ablation and part.note == "ablation" and part.backbone == "" and not network.ablation.any()
    for dataset in ("msrc7", "icoseg8", "pascal", "internet"):
        table = reported(dataset=dataset)
        figures = paper_rows(dataset)
        assert figures[["P", "J"]].notna().sum().sum() == table.metric.isin(["P", "J"]).sum()
        assert set(figures.protocol) <= {*PROTOCOLS, "as quoted"}
    assert paper_rows("synthetic").empty and "source" in paper_rows("synthetic")


def test_the_page_keeps_the_papers_rows_apart_and_its_figures_are_those_of_the_table(ca, ellipse, groups, tmp_path):
    table = score_table(photo_rows([ca, ellipse], groups, tmp_path / "rows.csv", say=quiet), [ca, ellipse])
    fake = paper_rows("msrc7").assign(group="all")
    page = markdown(table, fake)
    theirs, ours, floor, wide = page.split("\n\n**")
    assert "chen2018, table 1" in theirs and ca.name not in theirs and ca.sha256[:8] in ours
    assert "ellipse" in floor and "ellipse" not in ours and groups[0].name in wide
    common = table[(table.protocol == "common") & (table.group == "all") & (table.system == ca.name)]
    for row in common.itertuples():
        assert f"| {row.J:.3f} |" in next(line for line in ours.splitlines() if f"| {row.partner} " in line)
    both = with_papers(table, fake)
    assert (both.source == "measured here").sum() == len(table) and len(both) == len(table) + len(fake)
    of_groups = group_table(table[table.protocol == "common"], fake.iloc[:0])
    assert list(of_groups.columns) == [*(g.name for g in groups), "all"]
    assert of_groups.loc[("measured here", ca.name), "all"] == pytest.approx(
        common[common.partner == "group"].J.iloc[0]
    )
    pascal = paper_rows("pascal")
    aero = table[table.protocol == "common"].replace({"group": {groups[0].name: "Aero"}})
    assert group_table(aero, pascal).loc[("zhang2020, table 4", "SSNM-HRNet"), "Aero"] == 0.82


def test_others_figures_stand_in_a_block_of_their_own_where_there_are_any(ca, groups, tmp_path):
    table = score_table(photo_rows([ca], groups, tmp_path / "rows.csv", say=quiet), [ca])
    assert benchmark.ELSEWHERE not in markdown(table, paper_rows("synthetic"), [ca])
    page = markdown(table.assign(dataset="pascal"), paper_rows("pascal"), [ca])
    theirs = next(block for block in page.split("\n\n**") if block.startswith(benchmark.ELSEWHERE))
    for row in anchors("pascal").itertuples():
        (line,) = [line for line in theirs.splitlines() if line.startswith(f"| {row.method} ")]
        assert f"| {row.J:.3f} |" in line and row.supervision in line and row.source in line
    assert "measured here" not in theirs.split("\n", 1)[1]


def test_a_table_of_the_field_s_photographs_says_who_learned_from_them(ca, groups, tmp_path):
    real = copy.copy(ca.model)
    real.card = {**ca.model.card, "training": {"data": "real"}}
    some = [System(ca.name, real)]
    table = score_table(photo_rows(some, groups, tmp_path / "rows.csv", say=quiet), some)
    note = f"msrc7-field is no test of {ca.name}: 9 of its 15 photographs trained it"
    assert note in markdown(table.assign(dataset="msrc7-field"), paper_rows(""), some)
    assert note not in markdown(table.assign(dataset="msrc7"), paper_rows(""), some)
    real.card = {**real.card, "kept_apart": ["msrc7-field"]}
    assert "no test of" not in markdown(table.assign(dataset="msrc7-field"), paper_rows(""), some)


def test_a_saliency_network_of_the_user_s_stands_among_the_floors(groups, tmp_path, monkeypatch):
    """Under the file's name without its folder, asked alone, the same whatever its partners."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from toy_onnx import red

    monkeypatch.delenv("COSEG_SALIENCY", raising=False)
    assert own_floors() == []
    monkeypatch.setenv("COSEG_SALIENCY", str(red(tmp_path / "toy.onnx")))
    (one,) = load_systems([own_floors()[0]], floors=())
    assert one.name == "onnx:toy.onnx" and one.floor and one.blind
    assert one.facts()["trained on"] == "not said; single pictures" and one.facts()["backbone"] == "toy.onnx"
    table = score_table(photo_rows([one], groups, tmp_path / "rows.csv", say=quiet), [one])
    common = table[(table.protocol == "common") & (table.group == "all")]
    assert set(common.partner) == {"group", "self", "other"} and common.J.nunique() == 1
    floors = next(b for b in markdown(table, paper_rows("synthetic")).split("\n\n**") if "floors" in b.split("\n")[0])
    assert "onnx:toy.onnx" in floors and one.sha256[:8] in floors and str(tmp_path) not in floors


def test_shipped_systems_say_what_a_doubter_asks(monkeypatch):
    assert {"ca-mobilenet_v2", "csa-mobilenet_v2"} <= set(shipped())
    (one,) = load_systems(["csa-mobilenet_v2"], floors=())
    facts = one.facts()
    assert facts["trained on"] == "VOC 2012 train list and MSRC v2 training part" and facts["seeds"] == "0"
    assert facts["backbone"] == "mobilenet_v2" and facts["variant"] == "workbook, two looks, CRF" and not one.floor


def test_a_limit_takes_rows_away_and_changes_none(ca, groups, tmp_path):
    common = (metrics.PROTOCOLS["common"],)
    every = photo_rows([ca], groups, tmp_path / "every.csv", common, say=quiet)
    few = photo_rows([ca], groups, tmp_path / "few.csv", common, limit=2, say=quiet)
    key = ["group", "name", "partner"]
    both = few.merge(every, on=key, suffixes=("", " of all"))
    assert len(few) == len(both) == 2 * 3 * len(groups) < len(every)
    assert (both["intersection"] - both["intersection of all"]).abs().max() <= 2  # batches round apart


def test_no_seconds_are_given_where_a_limit_cuts_a_group(ca, ellipse, groups, tmp_path):
    """All of a group is encoded for the few that are scored, so that CA would look six times as slow as it is."""
    common, some, said = (PROTOCOLS["common"],), [ca, ellipse], []
    for limit, known in ((4, True), (2, False)):
        rows = photo_rows(some, groups, tmp_path / f"{limit}.csv", common, limit=limit, say=said.append)
        table = score_table(rows, some, common)
        assert table.seconds.notna().all() == known and table.J.notna().all()
        lines = [line for line in said if " masks" in line]
        assert len(lines) == 2 and all((" s each" in line) == known for line in lines)
        cells = table[table.group == "all"].seconds.map(benchmark.share).unique()
        assert (cells.tolist() == ["–"]) != known
        assert len(markdown(table, paper_rows("synthetic")).splitlines()) > 10
        said.clear()
    kept = tmp_path / "2.csv"
    assert pd.read_csv(kept).seconds.isna().all()
    pd.read_csv(kept).assign(seconds=0.78).to_csv(kept, index=False)  # as earlier runs have kept them
    again = photo_rows(some, groups, kept, common, limit=2, say=said.append)
    assert again.seconds.isna().all() and all(line.endswith("done before") for line in said)


def test_what_was_scored_is_told_where_a_limit_cuts_groups_and_where_it_does_not(groups):
    some = [groups[0], dataclasses.replace(groups[1], photos=groups[1].photos[:2])]
    assert scored_part(some) == scored_part(some, 4) == "6 images"
    assert scored_part(some, 3) == "5 of 6 images, the first 3 of each group"


def test_the_headline_of_the_benchmark_says_how_much_was_scored(groups, capsys):
    """Its cell as it is committed: the best system of few photographs need not be the whole set's."""
    notebook = nbformat.read(NOTEBOOKS / "08_benchmark_tables.ipynb", as_version=4)
    (cell,) = [c for c in notebook.cells if {"finding", "headline"} <= set(c.metadata.get("tags", []))]
    gain = {"system": "a", "J": 0.5, "best floor": "b", "its J": 0.25}
    known = {"gains": [{"set": name, **gain} for name in ("cut", "whole")], "limit": {"cut": 3}}
    known |= {"sets": {"cut": groups, "whole": groups}, "pd": pd, "scored_part": scored_part}
    exec(cell.source, known)
    assert capsys.readouterr().out.splitlines() == [
        "On cut (9 of 12 images, the first 3 of each group) the best system, a, has J 0.50 and the best that learned "
        "nothing, `b`, 0.25.",
        "On whole (12 images) the best system, a, has J 0.50 and the best that learned nothing, `b`, 0.25.",
    ]


def test_data_sets_that_are_missing_are_named_and_wrong_names_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("COSEG_DATA", str(tmp_path))
    said: list[str] = []
    sets = available_sets(["synthetic", "internet"], said.append)
    assert list(sets) == ["synthetic"] and sets["synthetic"]
    assert len(said) == 1 and said[0].startswith("internet: not here (")
    with pytest.raises(CosegError, match="imagenet: no such data set"):
        available_sets(["imagenet"])


def test_of_a_withdrawn_system_the_reason_stands_in_the_place_of_its_figures(ca, groups, tmp_path, monkeypatch):
    away = {"name": "ca-old", "sha256": "0" * 64, "method": "ca", "variant": "paper", "backbone": "vgg16"}
    for module in (of_systems, benchmark):
        monkeypatch.setattr(module, "cards", lambda: [away, {**away, "name": "ca-why", "withdrawn": "another rule"}])
    assert shipped() == ["ca-old"]
    common = (PROTOCOLS["common"],)
    table = score_table(photo_rows([ca], groups, tmp_path / "rows.csv", common, say=quiet), [ca], common)
    assert "ca-why" not in set(table.system)
    rows = [line for line in markdown(table, paper_rows("synthetic")).splitlines() if "ca-why" in line]
    assert len(rows) == 1 and "| withdrawn: another rule |" in rows[0] and "ca-old" not in "".join(rows)
