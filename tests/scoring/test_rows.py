import dataclasses

import pandas as pd
import pytest
import torch

from coseglib.answering.answers import Answer, Engine
from coseglib.answering.masks import foreground_score
from coseglib.core.errors import CosegError
from coseglib.data.record import Group, Photo
from coseglib.scoring import metrics
from coseglib.scoring.rows import _counted, evaluate, partner_swap, refusal, swap_questions


def _photo(name: str, classes: tuple[str, ...] = ("a",), shape=(40, 56), path=None) -> Photo:
    generator = torch.Generator().manual_seed(sum(map(ord, name)))
    image = torch.randint(0, 256, (3, *shape), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, len(classes) + 1, shape, generator=generator, dtype=torch.uint8)
    return Photo("made", name, classes, lambda: image, lambda: labels, path)


@pytest.fixture
def groups():
    """Two classes; the photograph "both" stands in both groups."""
    both = _photo("both", ("a", "b"))
    a = Group("made", "a", (*(_photo(f"a{i}", shape=(40 + i, 56)) for i in range(3)), both), ("a",))
    b = Group("made", "b", (both, *(_photo(f"b{i}", ("b",)) for i in range(2))), ("b",))
    return [a, b]


@torch.no_grad()
def _mask(model, photo, partners):
    """The mask of a photograph attended by the mean of its partners, written out."""
    from torchvision.transforms.v2 import functional as tvf

    def inputs(p):
        return tvf.resize(p.image(), [64, 64], antialias=True)[None].float() / 255

    alpha = torch.stack([model.attention(model.encode(inputs(p)))[0] for p in partners]).mean(0)
    logits = model.answer(model.encode(inputs(photo)), alpha)
    size = photo.image().shape[-2:]
    logits = torch.nn.functional.interpolate(logits, size=size, mode="bilinear")[0]
    return logits.argmax(0).to(torch.uint8)


@pytest.mark.parametrize("partner", ["group", "self", "other"])
def test_a_table_has_every_photograph_once_and_its_own_jaccard(tiny, groups, partner):
    model = tiny("ca", "workbook")
    table = evaluate(model, groups, partner=partner)
    assert list(zip(table.group, table.name, strict=True)) == [(g.name, p.name) for g in groups for p in g.photos]
    for g, group in enumerate(groups):
        for photo in group.photos:
            partners = {"group": group.photos, "self": (photo,), "other": groups[1 - g].photos}[partner]
            want = _mask(model, photo, partners)
            row = table[(table.group == group.name) & (table.name == photo.name)].iloc[0]
            assert pytest.approx(metrics.jaccard(want, photo.mask(group.targets)), abs=2e-3) == row.J
            assert row.counted == want.numel()


def test_dense_crfs_on_several_processes_are_those_of_one(tiny, groups, monkeypatch):
    model = tiny("ca", "workbook")
    model.post = "crf"
    alone, swap = evaluate(model, groups, partner=("group", "self")), partner_swap(model, groups)
    monkeypatch.setattr("coseglib.answering.masks.MANY", 1)
    monkeypatch.setattr("joblib.cpu_count", lambda: 2)
    many = evaluate(model, groups, partner=("group", "self"))
    pd.testing.assert_frame_equal(many.drop(columns="seconds"), alone.drop(columns="seconds"))
    pd.testing.assert_frame_equal(partner_swap(model, groups), swap)


def test_partners_asked_in_one_go_have_the_rows_of_those_asked_apart(tiny, groups):
    model = tiny("ca", "workbook")
    together = evaluate(model, groups, partner=("group", "self", "other"))
    for partner, some in together.groupby("partner"):
        apart = evaluate(model, groups, partner=partner)
        assert some.name.to_list() == apart.name.to_list()
        assert some.J.to_list() == pytest.approx(apart.J.to_list(), abs=2e-3)


def test_a_protocol_of_pairs_gives_each_photograph_one_partner_of_its_group(tiny, groups, monkeypatch):
    asked, plain = [], Engine.answers

    def spy(engine, questions, how):
        names = [p.name for p in engine.photos.photos]
        asked.extend((names[i], [names[j] for j in partners]) for i, partners in questions)
        return plain(engine, questions, how)

    monkeypatch.setattr(Engine, "answers", spy)
    table = evaluate(tiny(), groups[:1], "dcnet")
    assert len(table) == 4
    for name, partners in asked:
        assert len(partners) == 1 and partners[0] != name


def test_a_protocol_at_the_networks_size_counts_the_networks_pixels(tiny, groups):
    assert set(evaluate(tiny(), groups, "ssnm").counted) == {64 * 64}


def test_the_order_of_the_photographs_changes_nothing(tiny, groups):
    model = tiny("ca")
    turned = [Group("made", g.name, g.photos[::-1], g.targets) for g in groups]
    a, b = (evaluate(model, gs).sort_values(["group", "name"]).J.to_list() for gs in (groups, turned))
    assert a == pytest.approx(b, abs=2e-3)


def test_photographs_without_masks_and_unknown_names_are_refused(tiny, groups):
    bare = [Group("mine", "x", (Photo("mine", "x1", (), groups[0].photos[0].read_image),), ())]
    with pytest.raises(CosegError, match="has no mask"):
        evaluate(tiny(), bare)
    with pytest.raises(CosegError, match="one of group, self, other"):
        evaluate(tiny(), groups, partner="friend")
    with pytest.raises(CosegError, match=r"no such protocol; one of .*common"):
        evaluate(tiny(), groups, protocol="mine")


def test_a_swap_question_never_has_its_own_photograph_as_partner(groups):
    questions = swap_questions(groups, partners=2)
    assert [(q.photo.name, q.asked, q.other) for q in questions] == [("both", "a", "b"), ("both", "b", "a")]
    for q in questions:
        assert len(q.partners) == 2 and "both" not in {p.name for p in q.partners}
        assert {p.name[0] for p in q.partners} == {q.asked}


def test_the_same_file_in_two_folders_is_one_photograph(tmp_path):
    for name in ("one.jpg", "two.jpg"):
        (tmp_path / name).write_bytes(b"the same bytes")
    (tmp_path / "three.jpg").write_bytes(b"others")
    a = Group(
        "made", "a", (_photo("a/1", path=tmp_path / "one.jpg"), _photo("a/3", path=tmp_path / "three.jpg")), ("a",)
    )
    b = Group("made", "b", (_photo("b/1", ("b",), path=tmp_path / "two.jpg"), _photo("b/2", ("b",))), ("b",))
    questions = swap_questions([a, b])
    assert {q.photo.name: [p.name for p in q.partners] for q in questions} == {"a/1": ["a/3"], "b/1": ["b/2"]}


def test_the_swap_score_is_the_difference_of_two_jaccards(tiny, groups):
    model = tiny("ca", "workbook")
    table = partner_swap(model, groups, partners=20)
    for row, question in zip(table.itertuples(), swap_questions(groups, 20), strict=True):
        mask = _mask(model, question.photo, question.partners)
        asked, other = (metrics.jaccard(mask, question.photo.mask((c,))) for c in (row.asked, row.other))
        assert row.score == pytest.approx(asked - other, abs=4e-3)


def test_a_model_that_ignores_its_partners_scores_nothing(tiny, groups):
    model = tiny("ca")
    model.attended = lambda f, alpha, level: f
    table = partner_swap(model, groups)
    assert table.score.sum() == pytest.approx(0, abs=1e-6)  # a/b and b/a cancel: saliency
    with pytest.raises(CosegError, match="no photograph stands in two groups"):
        partner_swap(model, groups[:1])


def test_refusal_asks_each_photograph_with_and_without_a_common_class(tiny, groups):
    table = refusal(tiny(), groups)
    assert set(table.name) == {"a0", "a1", "a2", "b0", "b1"}  # "both" holds both classes: no group is foreign to it
    for row in table.itertuples():
        assert row.partner == "both" or (row.partner[0] == row.group) == bool(row.common)
        assert not (row.partner == "both" and not row.common)
        assert 0 <= row.score <= 1
    assert (table.common == 1).sum() == (table.common == 0).sum() == 5


def test_the_foreground_score_is_the_mean_of_the_200_highest():
    logits = torch.zeros(2, 64, 64)
    logits[1].view(-1)[:100] = 30.0
    assert foreground_score(logits) == pytest.approx((100 * 1.0 + 100 * 0.5) / 200)


@torch.no_grad()
def test_every_question_is_answered_by_its_own_partners(tiny, groups):
    model, photos = tiny("ca"), [p for g in groups for p in g.photos]
    questions = [(2, (0, 1)), (0, (0,)), (2, (1, 3, 4))]
    found = list(Engine(model, photos).answers(questions))
    assert sorted(answer.number for answer in found) == [0, 1, 2]
    for answer in found:
        i, partners = questions[answer.number]
        want = _mask(model, photos[i], [photos[j] for j in partners])
        got = torch.nn.functional.interpolate(answer.logits[None], size=answer.picture.size, mode="bilinear")[0].argmax(
            0
        )
        assert (got == want).float().mean() > 0.999


def test_partners_do_not_depend_on_what_else_is_asked(tiny, groups):
    """Of questions, pairs and refusal: a limit, another order of groups or other partners change no row that stays."""
    model = tiny("pfcc", "workbook", width=8)
    every = evaluate(model, groups, partner=("group", "self", "other"))
    for some in (evaluate(model, groups), evaluate(model, groups, limit=2), evaluate(model, groups[:1])):
        for row in some.itertuples():
            (same,) = every[
                (every.group == row.group) & (every.name == row.name) & (every.partner == "group")
            ].itertuples()
            assert row.intersection == pytest.approx(same.intersection, abs=2)
    ways = [swap_questions(order, 1) for order in (groups, groups[::-1])]
    drawn = [{(q.photo.name, q.asked): [p.name for p in q.partners] for q in way} for way in ways]
    assert drawn[0] == drawn[1] and len(drawn[0]) == 2
    both, few = refusal(model, groups), refusal(model, groups, limit=1)
    keys = ["group", "name", "partner", "common"]
    assert set(few[keys].itertuples(index=False)) <= set(both[keys].itertuples(index=False))


def test_another_group_takes_two(tiny, groups):
    with pytest.raises(CosegError, match="needs a second group"):
        evaluate(tiny(), groups[:1], partner="other")


def test_the_truth_at_the_networks_size_is_sampled_about_pixel_centres(tiny, monkeypatch):
    """A disc's centroid stays where it is, for masks as for the picture that the network reads."""
    from coseglib.answering.reading import resize_to_input

    y, x = torch.meshgrid(torch.arange(331.0), torch.arange(257.0), indexing="ij")
    places = [(120 + 9 * k, 110 + 4 * k) for k in range(8)]
    discs = [((y - a) ** 2 + (x - b) ** 2 < 90**2).to(torch.uint8) for a, b in places]
    photos = [
        Photo("made", str(k), ("a",), lambda d=d: 255 * d.expand(3, -1, -1), lambda d=d: d) for k, d in enumerate(discs)
    ]
    group, truths, plain = Group("made", "a", tuple(photos), ("a",)), [], metrics.counts
    monkeypatch.setattr(metrics, "counts", lambda pred, truth: truths.append(truth) or plain(pred, truth))
    model = tiny("ca", input_size=96)

    def centroid(mask, axis):
        return float((mask.sum(1 - axis) * torch.arange(mask.shape[axis], dtype=torch.float64)).sum() / mask.sum())

    for protocol in metrics.PROTOCOLS:
        truths.clear()  # three looks at each: counts, P and J
        evaluate(model, [group], protocol)
        pictures = [
            resize_to_input(p.image(), 96)[0] if t.shape[-1] == 96 else d
            for p, t, d in zip(photos, truths[::3], discs, strict=True)
        ]
        for axis in (0, 1):
            off = [
                centroid(t.double(), axis) - centroid(p.double(), axis)
                for t, p in zip(truths[::3], pictures, strict=True)
            ]
            assert abs(sum(off) / len(off)) < 0.05  # a mask sampled from corners is off by .3


def test_a_mask_by_mean_and_deviation_is_what_lies_above_them():
    p = torch.tensor([[0.01, 0.1, 0.2], [0.3, 0.5, 0.6]])  # mean .285, sd .208
    answer = Answer(0, 0, torch.stack([1 - p, p]).log(), None, 0.0)
    rule = dataclasses.replace(metrics.PROTOCOLS["common"], threshold="mean+std")
    mask, _ = _counted(answer, None, torch.zeros(2, 3, dtype=torch.uint8), rule, 64)
    assert mask.dtype == torch.uint8 and mask.tolist() == [[0, 0, 0], [0, 1, 1]]
