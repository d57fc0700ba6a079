"""What a session answers is what the library's own functions answer, and nothing is asked of a network twice."""

import json
import math
from functools import partial

import pytest
import torch
from tiny_models import TinyContext, TinyGroup, TinyPartner
from torch.nn import functional as F

from coseglib.analysis.maps import grad_cam, spatial_maps
from coseglib.answering.answers import pooled_context
from coseglib.answering.masks import masks_from_logits, segment_group
from coseglib.core.errors import CosegError
from coseglib.data.images import read_image, read_mask, write_png
from coseglib.data.record import Group, Photo
from coseglib.data.synthetic import load_synthetic
from coseglib.explorer.saved import SETTINGS
from coseglib.explorer.session import KEPT, MOST, SHOWN, Session
from coseglib.scoring.metrics import jaccard

MODELS = (TinyContext, TinyPartner, TinyGroup)


@pytest.fixture(scope="module")
def group() -> Group:
    return load_synthetic(groups=("star", "ring"), photos=6, size=48)[0]


def counted(model, name):
    """How many images go through a model's method from here on."""
    calls, plain = [], getattr(model, name)

    def listening(first, *rest):
        calls.append(len(first[0]) if isinstance(first, list) else len(first))
        return plain(first, *rest)

    setattr(model, name, listening)
    return calls


@pytest.mark.parametrize("kind", MODELS)
def test_with_all_photographs_as_partners_the_masks_are_those_of_segment_group(kind, group):
    session = Session(kind(), group.photos, group.targets)
    for mask, plain in zip(session.masks(own=True), segment_group(kind(), group.photos), strict=True):
        assert (mask != plain).sum() <= 1  # sums in another order


def test_the_smallest_attention_is_pooled_as_segment_group_does(group):
    session = Session(TinyContext(), group.photos)
    session.set_how("min")
    for mask, plain in zip(session.masks(own=True), segment_group(TinyContext(), group.photos, "min"), strict=True):
        assert (mask != plain).sum() <= 1


def test_a_photograph_that_is_no_partner_is_segmented_by_the_partners_context(group):
    model, chosen = TinyContext(), [1, 4]
    session = Session(model, group.photos)
    session.set_partners(chosen)
    context = pooled_context(model, [group.photos[i] for i in chosen])
    torch.testing.assert_close(session.context(), context)
    for mask, plain in zip(session.masks(own=True), segment_group(model, group.photos, context=context), strict=True):
        assert (mask != plain).sum() <= 1


def test_a_partner_model_is_asked_for_each_pair_once_and_never_with_itself(group):
    model = TinyPartner()
    session = Session(model, group.photos)
    session.logits()
    calls = counted(model, "answer")
    session.set_partners([0, 2])
    logits = session.logits()
    assert not calls  # 6 photographs: all pairs were compared before
    f = model.encode(session.inputs)
    for i, asked in ((0, [2]), (2, [0]), (5, [0, 2])):
        p = [model.answer([f[0][[i]]], [f[0][[j]]]).logits.softmax(1)[0] for j in asked]
        torch.testing.assert_close(logits[i].softmax(0), sum(p) / len(p), atol=1e-5, rtol=1e-4)
    calls.clear()
    session.set_partners([3])
    assert len(session.logits()) == 6 and calls == [1]  # alone it asks itself


def test_a_group_model_sees_the_partners_together_and_others_beside_them(group):
    model = TinyGroup()
    session = Session(model, group.photos)
    session.set_partners([0, 1, 2])
    logits, x = session.logits(), session.inputs
    torch.testing.assert_close(logits[:3], list(model(x[None, :3]).logits[0]))
    drawn = session._engine.references(session.partners, model.group_size - 1)
    torch.testing.assert_close(logits[4], model(x[None, [4, *drawn]]).logits[0, 0])


def test_a_threshold_asks_no_network_and_other_partners_encode_nothing(group):
    model = TinyContext()
    encoded, decoded = counted(model, "encode"), counted(model, "answer")
    session = Session(model, group.photos)
    session.masks()
    assert sum(encoded) == sum(decoded) == 6
    for threshold in (0.1, 0.6, 0.9):
        session.masks(threshold)
    assert sum(encoded) == sum(decoded) == 6
    session.set_partners([0, 1])
    session.masks()
    assert sum(encoded) == 6 and sum(decoded) == 12
    session.set_partners(range(6))
    session.masks()
    assert sum(decoded) == 12  # kept
    for i in range(KEPT + 1):
        session.set_partners([i % 6, (i + 1 + i // 6) % 6])
        session.masks()
    assert len(session._of_group) == KEPT


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.5, 0.8])
def test_foreground_is_where_its_probability_is_above_the_threshold(group, threshold):
    session = Session(TinyContext(), group.photos[:2])
    for mask, logits, o in zip(session.masks(threshold, own=True), session.logits(), session.photos, strict=True):
        assert o.picture.size == (48, 48)
        difference = F.interpolate((logits[1] - logits[0])[None, None], size=o.picture.size, mode="bilinear")[0, 0]
        p = difference.sigmoid()  # bilinear in the logits, as every mask of the project
        sure = (p - threshold).abs() > 1e-5
        assert ((mask == 1) == (p > threshold))[sure].all() and sure.float().mean() > 0.99
    with pytest.raises(ValueError, match="threshold 1"):
        session.masks(1)


def test_shown_masks_have_the_size_of_the_shown_photographs(group, tmp_path):
    write_png(tmp_path / "wide.png", torch.zeros(3, 20, 90, dtype=torch.uint8))
    path = tmp_path / "wide.png"
    wide = Photo("folder", "wide", ("a",), partial(read_image, path), None, path)
    session = Session(TinyContext(), [wide, group.photos[0]])
    assert [tuple(o.shown.shape) for o in session.photos] == [(3, 89, SHOWN), (3, SHOWN, SHOWN)]
    assert [tuple(m.shape) for m in session.masks()] == [(89, SHOWN), (SHOWN, SHOWN)]
    assert [tuple(m.shape) for m in session.masks(own=True)] == [(20, 90), (48, 48)]


def test_j_is_given_where_the_truth_is_known_and_only_there(group):
    session = Session(TinyContext(), group.photos, group.targets)
    masks = session.masks(own=True)
    assert session.scores() == [pytest.approx(jaccard(m, group.mask(i))) for i, m in enumerate(masks)]
    assert Session(TinyContext(), group.photos).scores() == [None] * 6


def test_the_crf_draws_contours_and_is_computed_once(group, monkeypatch):
    from coseglib.explorer import session as module

    calls, plain = [], module.refined
    monkeypatch.setattr(module, "refined", lambda *given: calls.append(1) or plain(*given))
    session = Session(TinyContext(), group.photos[:2])
    by_crf = session.masks(post="crf", own=True)
    session.masks(0.7, "crf")
    assert len(calls) == 2
    expected = plain(session.photos[0].picture.pixels, session.logits()[0])
    assert by_crf[0].equal(masks_from_logits(expected, (48, 48)))
    with pytest.raises(CosegError, match="post = median: one of argmax, crf"):
        session.masks(post="median")


def test_what_cannot_be_read_is_named_and_the_rest_is_shown(group, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    bad = Photo("folder", "broken.jpg", ("a",), partial(read_image, broken), None, broken)
    session = Session(TinyContext(), group.photos[:3])
    before = session.masks()
    with pytest.raises(CosegError, match=r"broken\.jpg: no image format"):
        session.set_photos([bad])
    assert all(a.equal(b) for a, b in zip(session.masks(), before, strict=True))  # nothing is lost
    (fault,) = session.set_photos([group.photos[4], bad, group.photos[5]])
    assert "broken.jpg: no image format" in fault
    assert [o.photo for o in session.photos] == [group.photos[4], group.photos[5]] and session.partners == (0, 1)


def test_what_makes_no_sense_is_refused_and_changes_nothing(group):
    session = Session(TinyPartner(), group.photos)
    with pytest.raises(CosegError, match="no partners"):
        session.set_partners([])
    with pytest.raises(ValueError, match="places from 0 to 5"):
        session.set_partners([0, 6])
    with pytest.raises(CosegError, match="pools the attention of ca, fca and csa"):
        session.set_how("min")
    with pytest.raises(CosegError, match=f"{MOST + 1} photographs: at most {MOST}"):
        session.set_photos([group.photos[0]] * (MOST + 1))
    assert session.partners == tuple(range(6)) and session.how == "mean"
    with pytest.raises(CosegError, match="has no backbone"):
        session.matches(0, 0.5, 0.5)


def test_matches_are_cosines_of_the_attended_features(tiny, group):
    model = tiny("ca", "workbook")
    session = Session(model, group.photos[:3])
    heat = session.matches(1, 0.6, 0.3)
    with torch.no_grad():
        features = model.encode(session.inputs)
        context = model.attention(features).mean(dim=0)
        alpha = context[model.attended_channels[0] :][: model.attended_channels[1]]
        f = alpha[None, :, None, None] * features[3]  # stride 16: 4 x 4 of 64 pixels
    f = f - f.mean(dim=(0, 2, 3), keepdim=True)
    for n in range(3):
        for y in range(4):
            for x in range(4):
                expected = F.cosine_similarity(f[1, :, 2, 1], f[n, :, y, x], dim=0)
                assert float(heat.maps[n][y, x]) == pytest.approx(float(expected), abs=1e-4)
    assert float(heat.maps[1][2, 1]) == pytest.approx(1, abs=1e-4)
    assert heat.limits == (0, pytest.approx(max(float(heat.maps[j].max()) for j in (0, 2))))


def test_models_that_compare_positions_show_their_own_correlation(tiny, group):
    model = tiny("dcnet")
    session = Session(model, group.photos[:3])
    heat = session.matches(0, 0.5, 0.5)
    assert heat.maps[0] is None
    for j in (1, 2):
        own = model.match(session.inputs[0], session.inputs[j], (0.5, 0.5))
        torch.testing.assert_close(heat.maps[j], own)


def test_grad_cam_asks_the_photograph_beside_its_partners(tiny, group):
    model = tiny("csa")
    session = Session(model, group.photos[:4])
    session.set_partners([0, 3])
    heat = session.grad_cam(2)
    own = grad_cam(model, session.inputs[[0, 2, 3]], 1)
    assert heat.maps[1] is None
    torch.testing.assert_close(torch.stack([heat.maps[i] for i in (0, 2, 3)]), own)
    assert session.looks_somewhere and session.spatial_maps().maps[1] is None
    torch.testing.assert_close(session.spatial_maps().maps[3], spatial_maps(model, session.inputs[[0, 3]])[0][1])


def test_saved_masks_are_the_present_ones_and_say_what_made_them(group, tmp_path):
    session = Session(TinyContext(), group.photos[:3])
    session.set_partners([0, 2])
    files = session.save(tmp_path / "out", 0.4)
    assert [f.stem for f in files] == session.names and len(set(session.names)) == 3
    for file, mask in zip(files, session.masks(0.4, own=True), strict=True):
        assert read_image(file).unique().tolist() in ([0, 255], [0], [255]) and read_mask(file).equal(mask)
    made = json.loads((tmp_path / "out" / SETTINGS).read_text())
    assert made["threshold"] == 0.4 and made["group"] == "mean" and made["post"] == "argmax"
    assert made["partners"] == [0, 2] and [e["file"] for e in made["photos"]] == [p.key for p in group.photos[:3]]
    assert len(session.save(tmp_path / "out", 0.6)) == 3  # its own may be replaced
    assert not list((tmp_path / "out").rglob("*.part"))


def test_without_photographs_everything_is_one_line(tmp_path):
    broken = Photo("folder", "x", ("a",), partial(read_image, tmp_path / "x.jpg"), None, tmp_path / "x.jpg")
    for photos, why in (([], "no photographs: give at least one"), ([broken] * 2, r"x\.jpg: no such file")):
        with pytest.raises(CosegError, match=why):
            Session(TinyContext(), photos)
    empty = Session(TinyContext())  # its photographs come later
    asked = (empty.logits, empty.masks, empty.probability, empty.spatial_maps, empty.context, lambda: empty.inputs)
    for ask in (*asked, lambda: empty.save(tmp_path / "out"), lambda: empty.set_partners([])):
        with pytest.raises(CosegError):
            ask()
    assert empty.scores() == [] and not (tmp_path / "out").exists()


def test_masks_of_somebody_else_are_not_overwritten(group, tmp_path):
    session = Session(TinyContext(), group.photos[:1])
    theirs = tmp_path / "masks" / f"{session.names[0]}.png"
    theirs.parent.mkdir()
    theirs.write_bytes(b"theirs")
    with pytest.raises(CosegError, match="masks: is there already, and not from here"):
        session.save(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CosegError, match="file: is a file; name a folder"):
        session.save(tmp_path / "file")
    assert theirs.read_bytes() == b"theirs"


def test_a_second_look_is_taken_as_segment_group_takes_it(tiny, group):
    model = tiny("ca", "workbook")
    model.looks = 2
    session = Session(model, group.photos[:3])
    assert session.logits()[0].shape == (2, 128, 128)
    for mask, plain in zip(session.masks(own=True), segment_group(model, group.photos[:3]), strict=True):
        assert (mask != plain).sum() <= 1


def test_label_maps_of_several_classes_know_no_threshold(tiny, group):
    model = tiny("multiclass", classes=2)
    session = Session(model, group.photos[:3])
    assert session.model.classes == 2 and session.scores() == [None] * 3
    low, high = session.masks(0.1), session.masks(0.9)
    assert all(a.equal(b) and a.max() <= 2 for a, b in zip(low, high, strict=True))
    for mask, plain in zip(session.masks(own=True), segment_group(model, group.photos[:3], post="argmax"), strict=True):
        assert (mask != plain).sum() <= 1
    probability = session.probability().maps[0]
    assert (
        float(probability.min()) >= 0
        and float(probability.max()) <= 1 + 1e-6
        and math.isfinite(float(probability.sum()))
    )
