"""References: what is learned from marks, that it says which object is meant, and what is refused."""

import json

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from coseglib.answering.answers import Engine, Question
from coseglib.answering.masks import masks
from coseglib.answering.reference import CLIP, DOUBTED, TRUSTED, C, Reference, evidence_of, fit, positions
from coseglib.cli import main as cli
from coseglib.core.errors import CosegError
from coseglib.data import load
from coseglib.data.images import read_mask, write_png
from coseglib.models.checkpoints import load_model
from coseglib.scoring.metrics import jaccard
from coseglib.scoring.references import reference_rows, split, swap_by_reference
from coseglib.scoring.rows import partner_swap, swap_questions

SYSTEMS = ("ca-scenes", "ssnm-scenes", "pfcc-scenes")  # one of each kind


@pytest.fixture(scope="module")
def drawn():
    return load("synthetic")


@pytest.fixture(scope="module")
def swaps(drawn):
    """Questions about scenes that hold two kinds of object: the mask of the other kind is not what the group says."""
    return swap_questions(drawn, partners=4)[:8]


def test_without_an_answer_to_begin_with_it_is_balanced_logistic_regression():
    torch.manual_seed(0)
    x, inside = torch.randn(200, 5), torch.rand(200) < 0.2
    x[inside] += 1
    weight, bias = fit(x, inside, torch.zeros(200))
    other = LogisticRegression(C=C, class_weight="balanced", tol=1e-8).fit(x.numpy(), inside.numpy())
    torch.testing.assert_close(weight, torch.from_numpy(other.coef_[0]).float(), rtol=0, atol=2e-3)
    assert bias == pytest.approx(float(other.intercept_[0]), abs=2e-3)


def test_where_the_system_is_right_little_is_learned():
    torch.manual_seed(0)
    x, inside = torch.nn.functional.normalize(torch.randn(400, 30), dim=1), torch.arange(400) < 80
    right = torch.where(inside, CLIP, -CLIP)
    (agreed, _), (contradicted, _) = fit(x, inside, 5 * right), fit(x, inside, -right)
    assert agreed.norm() < 0.2 * contradicted.norm()


def test_a_group_that_holds_two_things_follows_the_reference(drawn):
    """Scenes with a star and a ring each: alone the group means the one, by a reference the one that is marked."""
    pictures = {p.name: p for group in drawn for p in group.photos if {1, 2} <= set(p.labels().unique().tolist())}
    scenes, model, j = list(pictures.values()), load_model("ca-scenes"), {}
    for kind in ("star", "ring"):
        engine, group = Engine(model, scenes), range(len(scenes))
        evidence = evidence_of(engine, [Reference(scenes[0], scenes[0].mask((kind,)))], group)
        others = [Question(i, group) for i in group[1:]]
        for answer, mask in masks(model, engine.answers(others, evidence=evidence)):
            for of in ("star", "ring"):
                j.setdefault((kind, of), []).append(jaccard(mask, scenes[answer.photo].mask((of,))))
    j = {key: sum(values) / len(values) for key, values in j.items()}
    assert j["star", "star"] > j["star", "ring"] + 0.2 and j["ring", "ring"] > j["ring", "star"] + 0.2, j


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_reference_says_which_of_two_objects_is_meant(name, drawn, swaps):
    """Partners that show the one kind, and a reference among them in which it is marked: J of that kind goes up, not
    that of the other one."""
    model, rows = load_model(name), []
    targets = {group.name: group.targets for group in drawn}
    for swap in swaps:
        engine, group = Engine(model, [*swap.partners, swap.photo]), range(len(swap.partners))
        asked, other = (swap.photo.mask(targets[kind]) for kind in (swap.asked, swap.other))
        marks = swap.partners[0].mask(targets[swap.asked])
        evidence = evidence_of(engine, [Reference(swap.partners[0], marks)], group)
        for said in (None, evidence):
            ((_, mask),) = masks(model, engine.answers([Question(len(group), group)], evidence=said))
            rows.append((jaccard(mask, asked), jaccard(mask, other)))
    (alone, wrong), (told, still) = torch.tensor(rows).view(-1, 2, 2).mean(dim=0).tolist()
    assert told > alone - 0.02 and told - still > alone - wrong - 0.02 and told - still > 0.4, (
        alone,
        wrong,
        told,
        still,
    )


def test_the_score_is_added_to_the_clipped_answer(tiny):
    model, images = tiny(), [torch.randint(256, (3, 64, 64), dtype=torch.uint8) for _ in range(3)]
    mask = torch.zeros(64, 64, dtype=torch.uint8)
    mask[:32] = 1
    engine, group = Engine(model, images), range(3)
    evidence = evidence_of(engine, [Reference(images[0], mask)], group)
    plain, told = (next(engine.answers([Question(1, group)], evidence=said)).logits for said in (None, evidence))
    x = positions(engine.encode([engine.photos.read(1)]))[0]  # (D, h, w)
    score = torch.zeros(x.shape[1:])
    for i in range(x.shape[1]):
        for j in range(x.shape[2]):
            score[i, j] = sum((x[:, i, j] - evidence.mean) * evidence.weight) + evidence.bias
    score = torch.nn.functional.interpolate(score[None, None], size=plain.shape[-2:], mode="bilinear")[0, 0]
    expected = (plain[1] - plain[0]).clamp(-CLIP, CLIP) + evidence.strength * score
    assert TRUSTED <= evidence.strength <= DOUBTED
    torch.testing.assert_close(told[1] - told[0], expected, rtol=1e-3, atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("method", ["ca", "fca", "csa"])
def test_a_system_trained_by_example_answers_by_the_attention_over_what_is_marked(awake, method):
    model, images = awake(method), [torch.randint(256, (3, 64, 64), dtype=torch.uint8) for _ in range(4)]
    mask = torch.zeros(64, 64, dtype=torch.uint8)
    mask[:32] = 1
    engine, group = Engine(model, images), range(3)
    given = [Reference(images[3], mask), Reference(images[2], mask)]
    assert evidence_of(engine, given, group).pool is None
    model.card = {"by_example": True}
    evidence = evidence_of(engine, given, group)
    maps = engine.encode([engine.photos.read(place) for place in (0, 2, 3)])
    theirs = model.attention([m[1:] for m in maps], torch.stack([mask, mask]))
    torch.testing.assert_close(evidence.pool.context(), theirs.mean(dim=0), rtol=1e-4, atol=1e-5)
    context = theirs.mean(dim=0)
    if method == "fca":  # with its own, as in training
        context = (theirs.sum(dim=0) + model.attention([m[:1] for m in maps])[0]) / 3
    want = evidence.add(model.answer([m[:1] for m in maps], context), [m[:1] for m in maps])
    found = next(engine.answers([Question(0, group)], evidence=evidence)).logits
    torch.testing.assert_close(found[1] - found[0], want[0, 1] - want[0, 0], rtol=1e-3, atol=1e-3)


def test_of_two_things_in_every_picture_the_one_marked_in_the_reference_is_asked_for(drawn):
    """Attention over the mask of the one says it better than the whole group's, which says both."""
    model, swap = load_model("ca-scenes"), {False: [], True: []}
    for first, second in zip(drawn, drawn[1:] + drawn[:1], strict=True):
        scenes = [p for p in first.photos if p in second.photos]
        group, engine = range(len(scenes)), Engine(model, scenes)
        for by_example, asked in ((way, kind) for way in swap for kind in (first.name, second.name)):
            model.card = {**model.card, "by_example": by_example}
            evidence = evidence_of(engine, [Reference(scenes[0], scenes[0].mask((asked,)))], group)
            questions = [Question(i, group) for i in group[1:]]
            for answer, mask in masks(model, engine.answers(questions, evidence=evidence)):
                j = {of: jaccard(mask, scenes[answer.photo].mask((of,))) for of in (first.name, second.name)}
                swap[by_example].append(2 * j[asked] - sum(j.values()))
    usual, over_the_mask = (sum(scores) / len(scores) for scores in swap.values())
    assert over_the_mask > usual + 0.1, (usual, over_the_mask)


@pytest.mark.parametrize(
    ("marks", "said"),
    [
        ({}, "takes a mask, a box or points"),
        ({"mask": torch.ones(8, 9, dtype=torch.uint8)}, "its mask is 9 × 8, the photograph 96 × 64"),
        ({"mask": torch.zeros(64, 96, dtype=torch.uint8)}, "marks nothing"),
        ({"mask": torch.ones(64, 96, dtype=torch.uint8)}, "marks everything"),
        ({"box": (10, 10, 97, 20)}, "is not within 0,0,96,64"),
        ({"box": (20, 10, 20, 20)}, "is not within"),
        ({"box": (0, 0, 96, 64)}, "the whole photograph"),
        ({"points": ((96, 3),)}, "point 96,3 is outside the photograph's 96 × 64"),
        ({"points": ((5, 3),), "not_points": ((-1, 3),)}, "point -1,3 is outside"),
        ({"box": (1, 1, 9, 9), "points": ((5, 3),)}, "give one of them"),
    ],
)
def test_marks_that_cannot_be_meant_are_refused_in_one_line(tiny, marks, said):
    image = torch.zeros(3, 64, 96, dtype=torch.uint8)
    with pytest.raises(CosegError, match=said) as error:
        evidence_of(Engine(tiny(), [image, image]), [Reference(image, **marks)], range(2))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["box", "points"])
def test_a_box_or_a_point_says_nearly_what_a_mask_says(kind, drawn, swaps):
    model, targets, j = load_model("ca-scenes"), {group.name: group.targets for group in drawn}, []
    for swap in swaps[:4]:
        mask = swap.partners[0].mask(targets[swap.asked])
        rows, columns = (mask == 1).nonzero(as_tuple=True)
        marks = {"box": (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)}
        if kind == "points":
            middle = len(rows) // 2
            marks = {"points": ((int(columns[middle]), int(rows[middle])),)}
        engine, group = Engine(model, [*swap.partners, swap.photo]), range(len(swap.partners))
        for reference in (Reference(swap.partners[0], mask), Reference(swap.partners[0], **marks)):
            evidence = evidence_of(engine, [reference], group)
            ((_, found),) = masks(model, engine.answers([Question(len(group), group)], evidence=evidence))
            j.append(jaccard(found, swap.photo.mask(targets[swap.asked])))
    by_mask, by_mark = torch.tensor(j).view(-1, 2).mean(dim=0).tolist()
    assert by_mark > by_mask - 0.1, (by_mask, by_mark)


def test_what_is_not_meant_is_taken_with_a_box_and_alone_beside_another_reference(drawn):
    scene, other = drawn[0].photos[:2]
    engine, group = Engine(load_model("ca-scenes"), [scene, other]), range(2)
    rows, columns = (scene.mask(drawn[0].targets) == 1).nonzero(as_tuple=True)
    bounds = int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1
    place = int(columns[len(columns) // 2]), int(rows[len(rows) // 2])
    boxed = Reference(scene, box=bounds)
    told = [[boxed], [Reference(scene, box=bounds, not_points=(place,))]]
    told.append([boxed, Reference(other, not_points=((3, 3),))])
    z = []
    for references in told:
        (answer,) = engine.answers([Question(0, group)], evidence=evidence_of(engine, references, group))
        z.append(answer.logits[1])
    row, column = (int(p * m / s) for p, m, s in zip(place[::-1], z[0].shape, scene.image().shape[-2:], strict=True))
    assert z[1][row, column] < z[0][row, column] and not z[2].equal(z[0])
    with pytest.raises(CosegError, match="says only what is not meant"):
        evidence_of(engine, told[2][1:], group)


def test_marks_that_change_ask_the_network_nothing_again(drawn):
    model, calls = load_model("ca-scenes"), []
    engine, plain = Engine(model, drawn[0].photos[:2]), model.encode
    picture = engine.photos.read(0)
    model.encode = lambda images: calls.append(len(images)) or plain(images)
    first = evidence_of(engine, [Reference(picture, points=((30, 30),))], range(2))
    asked = len(calls)
    assert evidence_of(engine, [Reference(picture, box=(10, 10, 60, 60))], range(2)).bias != first.bias
    again = evidence_of(engine, [Reference(picture, points=((30, 30),))], range(2))
    assert again.weight.equal(first.weight) and len(calls) == asked
    evidence_of(engine, [Reference(picture, points=((30, 30),))], (0,))  # another group: its own answer is another
    assert len(calls) > asked


def test_references_are_nested_and_none_is_scored(drawn):
    model, groups = load_model("ca-scenes"), drawn[:2]
    rows = reference_rows(model, groups, (0, 1))
    references, asked = split(groups[0])
    names = {groups[0].photos[i].name for i in asked}
    assert len(references) == 5 and len(asked) == len(groups[0]) - 5 and not set(references) & set(asked)
    assert set(rows[rows.group == groups[0].name].name) == names and set(rows.references) == {0, 1}
    alone, one = (rows[rows.references == count].J.mean() for count in (0, 1))
    assert one > alone - 0.05


def test_swap_by_reference_asks_the_questions_of_partner_swap(drawn):
    model = load_model("csa-scenes")
    plain, told = partner_swap(model, drawn[:3], partners=4), swap_by_reference(model, drawn[:3], 1)
    assert set(told.columns) == set(plain.columns) and sorted(told.photo) == sorted(plain.photo)
    assert told.score.mean() > plain.score.mean() - 0.05


def test_segment_takes_a_reference_and_says_so(tmp_path, capsys, drawn, swaps):
    swap = swaps[0]
    for name, photo in (("asked", swap.photo), *((f"p{i}", p) for i, p in enumerate(swap.partners[:2]))):
        (tmp_path / "in").mkdir(exist_ok=True)
        write_png(tmp_path / "in" / f"{name}.png", photo.image())
    targets = {group.name: group.targets for group in drawn}
    write_png(tmp_path / "marks.png", 255 * swap.partners[0].mask(targets[swap.asked]))
    command = ["segment", tmp_path / "in", "-o", tmp_path / "out", "--checkpoint", "ca-scenes"]
    more = ["--reference", tmp_path / "in" / "p0.png", "--reference-mask", tmp_path / "marks.png"]
    assert cli.main([str(a) for a in (*command, *more)]) == 0
    told = json.loads((tmp_path / "out" / "result.json").read_text())
    assert told["references"] == [{"file": str(tmp_path / "in" / "p0.png")}] and len(told["photos"]) == 3
    mask = read_mask(tmp_path / "out" / "masks" / "asked.png")
    asked, other = (swap.photo.mask(targets[kind]) for kind in (swap.asked, swap.other))
    assert jaccard(mask, asked) > jaccard(mask, other)
    for wrong, said in (
        (["--box", "1,1,9,9"], "marks a --reference, which is missing"),
        ([*more, "--box", "1,1,9,9"], "one of them"),
        ([*more[:2], "--box", "1,1,9"], "4 whole numbers of pixels"),
        ([*more[:2], *more[:2], "--point", "3,3"], "are for a single one"),
        ([*more, *more[:2]], "1 masks for 2 references"),
        ([*more[:2]], "takes a mask, a box or points"),
    ):
        capsys.readouterr()
        assert cli.main([str(a) for a in (*command, *wrong)]) == 1
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
