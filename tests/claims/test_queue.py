"""The queue of trainings: what is asked of a model, what is resumed, what is named."""

import dataclasses

import pandas as pd
import pytest
import torch

from coseglib.answering.answers import Engine
from coseglib.answering.masks import masks_from_logits
from coseglib.claims import papers_claims as papers
from coseglib.claims import queue as ablations
from coseglib.claims.papers_claims import (
    CLAIMS,
    MEAN,
    MIN,
    SEEN,
    STRANGER,
    TWO,
    UNSEEN,
    VARIANTS,
    Training,
    chosen_claims,
    plan,
)
from coseglib.claims.queue import (
    COLUMNS,
    TABLE,
    ablate,
    few,
    read_ablations,
    remaining,
    rows_of,
    several_classes,
    with_stranger,
)
from coseglib.cli import main as cli
from coseglib.core.errors import CosegError
from coseglib.core.files import write_text
from coseglib.data.record import Group, Photo
from coseglib.data.synthetic import load_synthetic
from coseglib.scoring.metrics import jaccard
from coseglib.scoring.rows import evaluate, swap_questions


def quiet(text: str) -> None:
    pass


def test_few_photographs_keep_those_of_two_classes_together():
    groups = load_synthetic(groups=4, photos=12, size=16)
    cut = few(groups, 6)
    assert [len(g) for g in cut] == [6] * 4 and few(groups, 0) == groups
    assert len(swap_questions(cut)) == 4 * 3
    for g in cut:
        assert [p.name for p in g.photos] == [p.name for p in next(o for o in groups if o.name == g.name).photos
                                              if p in g.photos]  # fmt: skip
    places = [p.name for g in groups for p in g.photos]
    kept = [p.name for g in cut for p in g.photos]
    assert all(kept.count(name) == places.count(name) for name in kept)


def _plain(name: str, colour: int) -> Photo:
    labels = torch.zeros(32, 32, dtype=torch.uint8)
    labels[8:20, 8:20] = 1
    image = torch.full((3, 32, 32), colour, dtype=torch.uint8)
    return Photo("made", name, ("thing",), lambda: image, lambda: labels)


def test_the_stranger_is_a_partner_of_every_photograph_and_lacks_the_class(tiny):
    groups = load_synthetic(groups=3, photos=4, size=64)
    model = tiny("ca")
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    for how in (MEAN, MIN):
        rows = with_stranger(model, groups, how)
        assert len(rows) == 12
        for g, group in enumerate(groups):
            names = {p.name for p in group.photos}
            away = groups[(g + 1) % 3].photos + groups[(g + 2) % 3].photos
            stranger = next(p for p in away if p.name not in names and not (p.mask(group.targets) == 1).any())
            photos = [*group.photos, stranger]
            found = [
                jaccard(masks_from_logits(answer.logits, answer.picture.size), group.mask(answer.photo))
                for answer in Engine(model, photos).answers([(i, range(5)) for i in range(4)], how)
            ]
            assert rows[rows.group == group.name].J.tolist() == pytest.approx(found)
    everywhere = Group("made", "thing", (_plain("a", 10), _plain("b", 90)), ("thing",))
    with pytest.raises(CosegError, match="no photograph lacks"):
        with_stranger(model, [everywhere, dataclasses.replace(everywhere, name="again")])


def test_what_is_asked_of_a_model_stands_in_tidy_rows(tiny):
    sets = {SEEN: load_synthetic(groups=3, photos=4, size=64), UNSEEN: load_synthetic(groups=2, photos=3, size=64)}
    model = tiny("ca")
    rows = rows_of(model, sets)
    assert rows.groupby(["set", "how"]).size().to_dict() == {
        (SEEN, MEAN): 4,
        (SEEN, MIN): 4,
        (UNSEEN, MEAN): 3,
        (STRANGER, MEAN): 4,
        (STRANGER, MIN): 4,
    }
    alone = evaluate(model, sets[SEEN], how=MIN).groupby("group", sort=False).J.mean()
    ours = rows[(rows["set"] == SEEN) & (rows.how == MIN) & (rows.group != "all")]
    assert ours.J.tolist() == pytest.approx(alone.tolist())
    assert rows.swap.notna().sum() == rows.AUROC.notna().sum() == 1
    assert set(rows_of(tiny("dcnet"), sets).how) == {MEAN}


def test_the_queue_runs_each_once_names_what_fails_and_goes_on(tmp_path, monkeypatch):
    ran, wrote = [], []
    train, broken = ablations.train, {"DCNet"}
    monkeypatch.setattr(ablations, "write_text", lambda path, text: wrote.append(path.name) or write_text(path, text))

    def spy(config, folder, **more):
        name = "DCNet" if not config.options else f"DCNet {config.options}"
        ran.append(name)
        if name in broken:
            raise CosegError("the loss is not finite")
        return train(config, folder, **more)

    monkeypatch.setattr(ablations, "train", spy)
    said: list[str] = []
    claims = ("dcnet-dice", "dcnet-two-loops")
    first = ablate(tmp_path, "smoke", claims, 1, said.append)
    assert list(first.failed) == ["DCNet, seed 0"] and "the loss is not finite" in said[-1] and len(ran) == 3
    assert set(first.table.variant) == {"DCNet cross-entropy", "DCNet K = 1"}
    assert "the loss is not finite" in next(tmp_path.glob("dcnet-*/error.txt")).read_text() and wrote == ["error.txt"]
    broken.clear()
    second = ablate(tmp_path, "smoke", claims, 1, said.append)
    assert ran[3:] == ["DCNet"] and not second.failed
    third = ablate(tmp_path, "smoke", claims, 1, said.append)
    assert len(ran) == 4 and said[-1].startswith("3 trainings, 3 done before, 0 to run")
    pd.testing.assert_frame_equal(third.table, read_ablations(tmp_path / TABLE))
    monkeypatch.setattr(ablations, "code_hash", lambda rooms: "other")  # what other code computed is run anew
    assert ablate(tmp_path, "smoke", ["dcnet-dice"], 1, said.append).table.code.value_counts()["other"] == 16
    assert len(ran) == 6 and f"{TABLE}: 2 trainings are of other code and run anew" in said
    table = third.table
    assert list(table.columns) == list(COLUMNS) and len(table) == 3 * (4 + 4)
    assert set(table.checkpoint) <= {ablations.sha256(f) for f in tmp_path.glob("*/model.safetensors")}
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "1 × CPU"
    assert table.device.str.startswith(gpu).all()
    assert not list(tmp_path.glob("*/state.safetensors"))


def test_a_killed_queue_goes_on_with_the_training_it_was_at(tmp_path, monkeypatch):
    train, calls = ablations.train, []

    def killed(config, folder, **more):
        calls.append(folder.name)
        if len(calls) == 2:
            train(config.replaced(), folder, **more)
            raise KeyboardInterrupt
        return train(config, folder, **more)

    monkeypatch.setattr(ablations, "train", killed)
    with pytest.raises(KeyboardInterrupt):
        ablate(tmp_path, "smoke", ["dcnet-dice"], 1, quiet)
    assert len(read_ablations(tmp_path / TABLE)) == 8 and len(list(tmp_path.glob("*/state.safetensors"))) == 1
    monkeypatch.setattr(ablations, "train", train)
    assert len(ablate(tmp_path, "smoke", ["dcnet-dice"], 1, quiet).table) == 16
    assert len(list(tmp_path.glob("dcnet-*"))) == 2


@pytest.mark.parametrize("state_is_left", [True, False])
def test_a_queue_killed_before_a_row_was_written_scores_what_was_trained(tmp_path, monkeypatch, state_is_left):
    """The state goes after the row; where it went before, or the table was lost, the finished model is enough."""
    write_table, trained, one = ablations.write_table, [], plan([CLAIMS["dcnet-dice"]], 1)[:1]

    def killed(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(papers, "plan", lambda *given: one)
    monkeypatch.setattr(ablations, "write_table", killed)
    with pytest.raises(KeyboardInterrupt):
        ablate(tmp_path, "smoke", ["dcnet-dice"], 1, quiet)
    (state,) = tmp_path.glob("*/state.safetensors")
    model = ablations.sha256(state.with_name("model.safetensors"))
    if not state_is_left:
        state.unlink()
    monkeypatch.setattr(ablations, "write_table", write_table)
    monkeypatch.setattr("coseglib.training.loop._steps", lambda run, batches, *more: trained.extend(batches))
    outcome = ablate(tmp_path, "smoke", ["dcnet-dice"], 1, quiet)
    assert not outcome.failed and set(outcome.table.checkpoint) == {model} and trained == []
    assert not list(tmp_path.glob("*/state.safetensors"))


def test_variants_of_one_configuration_have_each_a_row_and_are_trained_once(tmp_path, monkeypatch):
    """On the smoke profile's maps PFCC's kernels of 11 and 15 are one size: the second failed, or counted as done."""
    ran, train, said = [], ablations.train, []
    trainings = [Training(VARIANTS[name], 0) for name in ("PFCC 11", "PFCC 15")]
    recipes = [{papers.recipe(papers.config_of(one.variant, p)) for one in trainings} for p in ("smoke", "cpu")]
    assert list(map(len, recipes)) == [1, 2]
    monkeypatch.setattr(ablations, "train", lambda *given, **more: ran.append(given) or train(*given, **more))
    monkeypatch.setattr(papers, "plan", lambda *given: trainings)
    outcome = ablate(tmp_path, "smoke", ["pfcc-sizes"], 1, said.append)
    assert not outcome.failed and len(ran) == 1
    one, other = (rows.drop(columns="variant").reset_index(drop=True) for _, rows in outcome.table.groupby("variant"))
    pd.testing.assert_frame_equal(one, other)
    assert "2/2 PFCC 15, seed 0: the same training as PFCC 11, whose scores it has" in said
    ablate(tmp_path, "smoke", ["pfcc-sizes"], 1, said.append)
    assert said[-1].startswith("2 trainings, 2 done before, 0 to run")
    table = read_ablations(tmp_path / TABLE)
    table[table.variant == "PFCC 11"].to_csv(tmp_path / TABLE, index=False)  # done before under one name alone
    assert set(ablate(tmp_path, "smoke", ["pfcc-sizes"], 1, quiet).table.variant) == {"PFCC 11", "PFCC 15"}
    assert len(ran) == 1


def test_two_queues_do_not_share_a_folder_and_foreign_tables_are_refused(tmp_path):
    with ablations._alone(tmp_path), pytest.raises(CosegError, match="another queue is at work"):
        ablate(tmp_path, "smoke", ["dcnet-dice"], 1, quiet)
    (tmp_path / TABLE).write_text("a,b\n1,2\n")
    with pytest.raises(CosegError, match="no table of `coseg ablate`"):
        ablate(tmp_path, "smoke", ["dcnet-dice"], 1, quiet)
    with pytest.raises(CosegError, match="huge: no such profile"):
        ablate(tmp_path / "new", "huge", say=quiet)
    assert read_ablations(tmp_path / "none.csv").empty


def test_the_multi_class_rows_are_those_of_its_own_table(tmp_path, monkeypatch):
    groups = [dataclasses.replace(g, photos=g.photos[:2]) for g in several_classes("smoke")]
    monkeypatch.setattr(ablations, "several_classes", lambda profile: groups)
    table = ablate(tmp_path, "smoke", ["thesis-crf"], 1, quiet).table
    own = pd.read_csv(next(tmp_path.glob("multiclass-*/groups.csv")))
    for how in ("argmax", "crf"):
        ours, theirs = table[table.how == how], own[own.system == f"SA+MA, {how}"]
        assert ours.group.tolist() == [*(g.name for g in groups), "all"]
        assert ours.J.tolist() == pytest.approx(theirs.J.tolist(), abs=1e-6)
    assert set(table["set"]) == {TWO} and set(table.checkpoint) == {""}


def test_the_time_to_come_is_each_system_s_own_or_the_mean_of_all():
    runs = plan([CLAIMS["ssnm-spa"], CLAIMS["dcnet-dice"]], 1)
    assert remaining(runs, {"SSNM": [2.0, 4.0]}) == 4 * 3
    assert remaining(runs, {"SSNM": [2.0], "DCNet": [10.0, 20.0]}) == 2 * 2 + 2 * 15
    assert remaining(runs, {}) == 0


def test_the_notebook_trains_what_is_missing_or_reads_what_was_kept(tmp_path):
    kept, queue = tmp_path / "kept.csv", tmp_path / "queue"
    with pytest.raises(CosegError, match=r"kept\.csv: no rows; run coseg ablate --profile smoke"):
        ablations.results("smoke", kept, None)
    table = ablations.results("smoke", kept, queue, ["dcnet-dice"], 1, quiet)
    assert set(table.variant) == {"DCNet", "DCNet cross-entropy"} and not list(queue.glob("*/model.safetensors"))
    pd.testing.assert_frame_equal(ablations.results("smoke", kept), table)
    with pytest.raises(CosegError, match="no rows"):
        ablations.results("cpu", kept)
    plan = ablations.planned(chosen_claims(["dcnet"]), "smoke", 2, table).set_index("system")
    assert plan.trainings["DCNet"] == plan.trainings["all"] == 14 and plan.done["DCNet"] == 2
    assert plan.minutes["DCNet"] == pytest.approx(table.drop_duplicates("variant").seconds.mean() * 14 / 60)
    assert ablations.planned(chosen_claims(["thesis-ma"]), "smoke", 1).minutes.isna().iloc[0]


@pytest.mark.parametrize("failed", [{}, {"CA, seed 0": "broken"}])
def test_the_command_passes_its_options_on_and_says_by_its_exit_code_that_a_training_failed(monkeypatch, failed):
    asked = []

    def spy(*given):
        asked.extend(given)
        return ablations.Outcome(pd.DataFrame(), failed)

    monkeypatch.setattr(ablations, "ablate", spy)
    assert cli.main(["ablate", "-o", "runs/x", "--profile", "smoke", "--only", "CA", "--seeds", "2"]) == bool(failed)
    assert [str(asked[0]), *asked[1:4]] == ["runs/x", "smoke", ["CA"], 2]
