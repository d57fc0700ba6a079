import pytest

from coseglib.core.errors import CosegError
from coseglib.data.synthetic import load_synthetic
from coseglib.evaluation import tables
from coseglib.evaluation.tables import evaluation_table
from coseglib.models.checkpoints import load_model, sha256
from coseglib.scoring.rows import evaluate, partner_swap, refusal


@pytest.fixture
def groups(monkeypatch):
    """Three small groups of four in the place of every data set."""
    found = load_synthetic(groups=3, photos=4, size=32)
    monkeypatch.setattr(tables, "load", lambda name, root=None: found)
    return found


def test_a_row_a_group_and_the_mean_over_groups_last(checkpoint, groups, tiny):
    table = evaluation_table(load_model(checkpoint), "synthetic", limit=2)
    assert list(table.columns) == [
        "dataset", "group", "images", "P", "J", "protocol", "checkpoint sha256", "precision", "seconds",
    ]  # fmt: skip
    assert list(table.group) == [g.name for g in groups] + ["all"]
    assert list(table.images) == [2, 2, 2, 6]
    assert set(table["checkpoint sha256"]) == {sha256(checkpoint)}
    rows = evaluate(tiny("ca"), groups, limit=2)
    by_hand = [rows[rows.group == g.name].J.sum() / 2 for g in groups]
    assert table.J.tolist() == pytest.approx([*by_hand, sum(by_hand) / 3])


def test_there_are_seconds_unless_a_limit_cuts_a_group(checkpoint, groups):
    """A group is encoded whole for the few that are scored: the time is not theirs."""
    model = load_model(checkpoint)
    for limit, known in ((None, True), (4, True), (3, False)):
        table = evaluation_table(model, "synthetic", limit=limit)
        assert table.seconds.notna().all() == known and table.seconds.notna().any() == known


def test_partner_swap_is_the_mean_over_questions(checkpoint, groups, tiny):
    table = evaluation_table(load_model(checkpoint), "synthetic", "partner-swap")
    questions = partner_swap(tiny("ca"), groups)
    last = table.iloc[-1]
    assert last.group == "all" and last.images == len(questions) == table.images[:-1].sum()
    assert last.score == pytest.approx(sum(questions.J_asked - questions.J_other) / len(questions))
    assert set(table.protocol) == {"partner-swap"}


def test_refusal_counts_photographs_and_gives_an_auroc(checkpoint, groups, tiny):
    table = evaluation_table(load_model(checkpoint), "synthetic", "refusal")
    answers = refusal(tiny("ca"), groups)
    yes, no = answers[answers.common == 1].score, answers[answers.common == 0].score
    beaten = sum((a > b) + 0.5 * (a == b) for a in yes for b in no) / (len(yes) * len(no))
    assert table.AUROC.iloc[-1] == pytest.approx(beaten)
    assert table.images.iloc[-1] == len(yes) == table.images[:-1].sum()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"protocol": "unheard"}, "no such protocol; one of common"),
        ({"partner": "nobody"}, "no such partner"),
        ({"protocol": "refusal", "limit": 2}, "leave out --partner and --limit"),
        ({"protocol": "partner-swap", "partner": "self"}, "leave out --partner and --limit"),
    ],
)
def test_what_a_protocol_does_not_know_is_refused(checkpoint, groups, options, told):
    with pytest.raises(CosegError, match=told):
        evaluation_table(load_model(checkpoint), "synthetic", **options)
