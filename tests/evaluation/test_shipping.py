import json

import pytest
import torch

from coseglib.core.errors import CosegError
from coseglib.data.synthetic import load_synthetic
from coseglib.evaluation import shipping
from coseglib.evaluation.cards import cards
from coseglib.evaluation.shipping import again, as_shipped, common_from, measure, of_card, ship
from coseglib.models.checkpoints import load_model, save_model
from coseglib.scoring.metrics import aggregate, best_threshold
from coseglib.scoring.rows import evaluate, partner_swap, refusal


@pytest.fixture
def run(tiny, tmp_path):
    """A run's folder with an untrained model, as `train` leaves it."""
    about = {"method": "ca", "backbone": "mobilenet_v2", "step": 3, "seconds": 90.0, "precision": "32-true"}
    about |= {"device": "1 × CPU, 1 threads", "training": {"data": "synthetic", "seed": 7}}
    save_model(tmp_path / "run" / "model.safetensors", tiny("ca", "workbook"), about)
    return tmp_path / "run"


@pytest.fixture
def few_scenes(monkeypatch):
    groups = load_synthetic("test", groups=3, photos=4, size=48)
    monkeypatch.setattr("coseglib.evaluation.shipping.load", lambda name, root=None: groups)
    return groups


def test_a_card_states_what_the_shipped_file_scores(run, few_scenes, tmp_path):
    path = ship(run, "ca-small", tmp_path / "shipped", say=lambda _: None)
    card = json.loads(path.with_suffix(".json").read_text())
    model = load_model(path, precision=card["measured"]["precision"])
    assert (card["sha256"], card["steps"], card["minutes"], card["seeds"]) == (model.card["sha256"], 3, 1.5, [7])
    scored = aggregate(evaluate(model, few_scenes))
    assert card["figures"]["synthetic"]["group"]["J"] == pytest.approx(scored.J.iloc[-1], abs=1e-4)
    swap = 100 * partner_swap(model, few_scenes).score.mean()
    assert card["figures"]["synthetic"]["partner_swap"]["points"] == pytest.approx(swap, abs=1e-2)
    assert model.card["common_from"] == card["common_from"] == common_from(card["figures"])
    unsure = refusal(model, few_scenes)
    score, right = best_threshold(unsure.score, unsure.common)
    assert card["figures"]["synthetic"]["refusal_from"] == {"score": round(score, 4), "right": round(right, 4)}
    assert sorted(p.name for p in path.parent.iterdir()) == ["ca-small.json", "ca-small.safetensors"]


def test_a_model_as_shipped_is_the_file_that_ship_writes_and_a_shipped_one_stays_as_it_is(run, few_scenes, tmp_path):
    path = ship(run, "ca-small", tmp_path / "shipped", say=lambda _: None, post="crf")
    of_run, of_file = as_shipped(run, post="crf"), as_shipped(path)
    assert of_run.card["sha256"] == of_file.card["sha256"] == load_model(path).card["sha256"]
    assert (of_run.post, of_run.precision, of_file.post, of_file.precision) == ("crf", "32-true") * 2
    assert sorted(p.name for p in path.parent.iterdir()) == ["ca-small.json", "ca-small.safetensors"]


def test_what_was_trained_on_a_folder_of_ones_own_is_not_shipped_nor_what_started_from_it(run, tiny, tmp_path):
    own = {**load_model(run / "model.safetensors").card, "training": {"data": "folder", "folder": "mine", "seed": 0}}
    later = {**own, "training": {"data": "real", "seed": 0}, "started_from": own}
    for about in (own, later):
        save_model(tmp_path / "own.safetensors", tiny("ca", "workbook"), about)
        with pytest.raises(CosegError, match="was trained on a folder of one's own, which may hold test photographs"):
            ship(tmp_path / "own.safetensors", "own", tmp_path / "shipped", say=lambda _: None)
    assert not (tmp_path / "shipped").exists()


def test_a_card_alone_leaves_no_weights_and_knows_no_limit(run, few_scenes, tmp_path, monkeypatch):
    monkeypatch.setattr("coseglib.evaluation.shipping.LARGEST", 1000)
    with pytest.raises(CosegError, match="--card-only measures"):
        ship(run, "ca-large", tmp_path / "cards", say=lambda _: None)
    (run / "log.csv").write_text("step,loss\n3,0.5\n")
    path = ship(run, "ca-large", tmp_path / "cards", say=lambda _: None, card_only=True)
    assert sorted(p.name for p in path.parent.iterdir()) == ["ca-large.json", "ca-large.log.csv"]
    card = json.loads(path.read_text())
    assert card["bytes"] > 1000 and set(card["figures"]["synthetic"]) >= {"group", "self", "other", "partner_swap"}


def test_a_cards_model_is_made_again_from_its_run_and_from_no_other(run, few_scenes, tiny, tmp_path):
    home = [tmp_path / "cards"]
    path = ship(run, "ca-card", home[0], say=lambda _: None, card_only=True)
    card, model = json.loads(path.read_text()), of_card(run, "ca-card", home)
    assert model.card["sha256"] == card["sha256"] and (model.looks, model.post) == (card["looks"], card["post"])
    scored = aggregate(evaluate(model, few_scenes))
    assert card["figures"]["synthetic"]["group"]["J"] == pytest.approx(scored.J.iloc[-1], abs=1e-4)
    about = {k: v for k, v in load_model(run / "model.safetensors").card.items() if k in shipping.FROM_RUN}
    other = tiny("ca", "workbook")
    next(other.parameters()).data.add_(0.1)
    save_model(tmp_path / "other" / "model.safetensors", other, about)
    with pytest.raises(CosegError, match="is not the run that the card ca-card is of"):
        of_card(tmp_path / "other", "ca-card", home)
    with pytest.raises(CosegError, match=r"none: no such card in .*--card-only writes it"):
        of_card(run, "none", home)


def test_a_measurement_in_progress_is_no_card(run, few_scenes, tmp_path, monkeypatch):
    """What is kept set by set lies beside the cards, meanwhile and after it was killed."""
    ship(run, "ca-done", tmp_path / "cards", say=lambda _: None)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(shipping, "provenance", killed)
    with pytest.raises(KeyboardInterrupt):
        ship(run, "ca-killed", tmp_path / "cards", say=lambda _: None)
    assert (tmp_path / "cards" / ".ca-killed.figures.json").is_file()
    assert [card["name"] for card in cards(tmp_path / "cards")] == ["ca-done"]


def test_the_log_goes_with_the_weights(run, few_scenes, tiny, tmp_path):
    (run / "log.csv").write_text("step,loss\n3,0.5\n")
    shipped = tmp_path / "shipped"
    ship(run, "ca-small", shipped, say=lambda _: None)
    assert (shipped / "ca-small.log.csv").read_bytes() == (run / "log.csv").read_bytes()
    (run / "log.csv").unlink()  # shipped anew, from a run that has none: the other run's log would be a lie
    ship(run, "ca-small", shipped, say=lambda _: None)
    assert sorted(p.name for p in shipped.iterdir()) == ["ca-small.json", "ca-small.safetensors"]


def test_whether_anything_is_common_is_asked_of_validation_photographs_first():
    scenes, photos, chance = ({"score": 0.7, "right": right} for right in (0.6, 0.8, 0.55))
    found = {"msrc7": {"group": {}}, "synthetic": {"refusal_from": scenes}, "pascal": {"refusal_from": photos}}
    assert common_from(found) == {**scenes, "on": "synthetic"}
    assert common_from({**found, "voc-val": {"refusal_from": photos}}) == {**photos, "on": "voc-val"}
    assert common_from({"pascal": {"refusal_from": photos}}) is None  # a test set decides nothing
    assert common_from({**found, "voc-val": {"refusal_from": chance}}) is None  # nor does a coin


def test_a_run_that_started_from_another_counts_both(run, few_scenes, tiny, tmp_path):
    first = dict(load_model(run / "model.safetensors").card)
    about = {**first, "step": 5, "seconds": 30.0, "started_from": first, "training": {"data": "synthetic", "seed": 8}}
    save_model(tmp_path / "second.safetensors", tiny("ca", "workbook"), about)
    path = ship(tmp_path / "second.safetensors", "ca-small", tmp_path / "shipped", say=lambda _: None)
    card = json.loads(path.with_suffix(".json").read_text())
    assert (card["steps"], card["minutes"], card["seeds"]) == (8, 2.0, [7, 8])


def test_what_a_run_was_kept_from_stands_on_its_card(run, few_scenes, tiny, tmp_path):
    about = {**load_model(run / "model.safetensors").card, "kept_apart": ["msrc7-field"]}
    save_model(tmp_path / "apart.safetensors", tiny("ca", "workbook"), about)
    path = ship(tmp_path / "apart.safetensors", "ca-small", tmp_path / "shipped", say=lambda _: None)
    assert json.loads(path.with_suffix(".json").read_text())["kept_apart"] == ["msrc7-field"]


def test_averaged_runs_ship_the_mean_of_their_weights_and_name_each(run, few_scenes, tiny, tmp_path):
    one, other = load_model(run / "model.safetensors", folded=False), tiny("ca", "workbook")
    with torch.no_grad():
        for p in other.parameters():
            p.add_(1)
    save_model(tmp_path / "later.safetensors", other, {**one.card, "step": 9})
    path = ship(run, "ca-small", tmp_path / "shipped", say=lambda _: None, average=[tmp_path / "later.safetensors"])
    mean = load_model(path, folded=False)
    for name, value in one.named_parameters():
        wanted = (value + other.get_parameter(name)) / 2
        torch.testing.assert_close(mean.get_parameter(name), wanted, rtol=2e-3, atol=2e-3)  # fp16
    assert [a["step"] for a in json.loads(path.with_suffix(".json").read_text())["averaged"]] == [3, 9]


def test_another_model_is_not_averaged_in(run, few_scenes, tiny, tmp_path):
    save_model(tmp_path / "other.safetensors", tiny("ca", "paper"), load_model(run / "model.safetensors").card)
    with pytest.raises(CosegError, match="is another model"):
        ship(run, "ca-small", tmp_path / "shipped", say=lambda _: None, average=[tmp_path / "other.safetensors"])


def test_a_checkpoint_too_large_is_refused_and_leaves_nothing(run, few_scenes, tmp_path, monkeypatch):
    monkeypatch.setattr("coseglib.evaluation.shipping.LARGEST", 1000)
    with pytest.raises(CosegError, match="the limit is 8"):
        ship(run, "ca-small", tmp_path / "shipped", say=lambda _: None)
    assert list((tmp_path / "shipped").iterdir()) == []


def test_a_measurement_that_was_killed_goes_on_with_the_sets_that_are_missing(run, few_scenes, tmp_path, monkeypatch):
    model, kept, ran = load_model(run / "model.safetensors"), tmp_path / "figures.json", []

    def killed(*given, **options):
        raise KeyboardInterrupt

    whole = measure(model, say=lambda _: None)
    monkeypatch.setattr(shipping, "partner_swap", killed)
    with pytest.raises(KeyboardInterrupt):
        measure(model, kept, say=lambda _: None)
    monkeypatch.setattr(shipping, "partner_swap", partner_swap)
    monkeypatch.setattr(shipping, "evaluate", lambda *given, **options: ran.append(given))
    said = []
    assert measure(model, kept, say=said.append) == whole and not ran
    assert said[0] == "synthetic: P and J: done before"
    monkeypatch.setattr(shipping, "evaluate", evaluate)
    monkeypatch.setattr(shipping, "code_hash", lambda: "other code")
    again_said = []
    assert measure(model, kept, say=again_said.append) == whole and "done before" not in again_said[0]


def test_a_card_is_measured_anew_and_its_weights_stay_as_they_are(run, few_scenes, tmp_path, monkeypatch):
    shipped, cards = tmp_path / "shipped", tmp_path / "cards"
    path = ship(run, "ca-small", shipped, say=lambda _: None)
    card, weights = json.loads(path.with_suffix(".json").read_text()), path.read_bytes()
    old = {**card, "figures": {}, "engine": "earlier", "withdrawn": "another rule"}
    path.with_suffix(".json").write_text(json.dumps(old))
    cards.mkdir()
    (cards / "ca-crf.json").write_text(json.dumps({**old, "name": "ca-crf", "post": "crf"}))
    (cards / "ca-large.json").write_text(json.dumps({**old, "name": "ca-large", "sha256": "0"}))
    posts = []
    monkeypatch.setattr(shipping, "measure", lambda model, *given: posts.append(model.post) or measure(model, *given))
    for name, file in (("ca-small", shipped / "ca-small.json"), ("ca-crf", cards / "ca-crf.json")):
        assert again(name, say=lambda _: None, homes=(shipped, cards)) == file
    assert path.read_bytes() == weights
    small, crf = (json.loads(f.read_text()) for f in (shipped / "ca-small.json", cards / "ca-crf.json"))
    assert {k: v for k, v in small.items() if k != "withdrawn"} == card and small["withdrawn"] == "another rule"
    assert load_model(path).card["withdrawn"] == "another rule"
    assert posts == ["argmax", "crf"] and crf["figures"].keys() == card["figures"].keys() and "engine" not in crf
    assert sorted(p.name for p in shipped.iterdir()) == ["ca-small.json", "ca-small.safetensors"]
    with pytest.raises(CosegError, match="ca-large: its weights are not in the repository"):
        again("ca-large", homes=(shipped, cards))
    with pytest.raises(CosegError, match="nobody: no such card; one of ca-small"):
        again("nobody", homes=(shipped, cards))
