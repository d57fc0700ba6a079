"""Single-image networks in ONNX form: what they answer, what FILE.json says, and what is refused."""

import builtins
import hashlib
import json

import numpy as np
import pytest
import torch

onnx = pytest.importorskip("onnx", reason="onnx and onnxruntime are an extra")
pytest.importorskip("onnxruntime", reason="onnx and onnxruntime are an extra")
from toy_onnx import BIAS, RED, elsewhere, red, write  # noqa: E402

from coseglib.answering import load  # noqa: E402
from coseglib.answering.answers import Engine, whole_group  # noqa: E402
from coseglib.answering.floors import build_floor, is_floor  # noqa: E402
from coseglib.answering.saliency import read_network  # noqa: E402
from coseglib.core.errors import CosegError  # noqa: E402
from coseglib.data import load as load_set  # noqa: E402
from coseglib.scoring import metrics  # noqa: E402
from coseglib.scoring.rows import evaluate, partner_swap  # noqa: E402


def beside(file, **settings):
    file.with_suffix(".json").write_text(json.dumps(settings))
    return f"onnx:{file}"


def by_hand(images):
    """The toy's logits of images (N, 3, H, W) in [0, 1], written another way: a loop over channels."""
    z = torch.full(images[:, 0].shape, float(BIAS[0]))
    for c, weight in enumerate(RED[0]):
        z = z + float(weight) * images[:, c]
    return z


@pytest.fixture
def images():
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("sigmoid", [False, True])
def test_a_network_answers_with_imagenet_s_normalisation_its_first_output_and_a_sigmoid_where_it_is_needed(
    tmp_path, images, sigmoid
):
    network = read_network(f"onnx:{red(tmp_path / 'toy.onnx', sigmoid=sigmoid)}")
    torch.testing.assert_close(network.maps(images), by_hand(images).sigmoid(), rtol=0, atol=1e-5)
    assert network.size == 64 and network.settings == {}
    assert network.sha256 == hashlib.sha256((tmp_path / "toy.onnx").read_bytes()).hexdigest()


def test_a_json_beside_the_file_says_mean_std_size_output_and_range(tmp_path, images):
    file = red(tmp_path / "toy.onnx", side="S", normalised=False)
    name = beside(file, mean=[0, 0, 0], std=[1, 1, 1], size=64, output="maps", range=[-9, 7])
    expected = ((by_hand(images) + 9) / 16).clamp(0, 1)
    torch.testing.assert_close(read_network(name).maps(images), expected, rtol=0, atol=1e-5)
    plain = read_network(beside(file, size=64))
    assert not torch.allclose(plain.maps(images), expected, atol=0.01)
    changed = read_network(beside(file, size=64, output=0, range="logits"))
    assert changed.sha256 != plain.sha256  # other answers, another name in tables


def test_half_precision_and_pictures_of_other_sizes_are_taken(tmp_path):
    network = read_network(f"onnx:{red(tmp_path / 'toy.onnx', kind=onnx.TensorProto.FLOAT16)}")
    picture = torch.zeros(3, 100, 40, dtype=torch.uint8)
    picture[0, 50:] = 255
    p = network.map_of(picture)
    assert p.shape == (64, 64) and p.dtype == torch.float32
    assert p[40:].min() > 0.99 and p[:24].max() < 0.3


def test_it_is_a_floor_that_every_question_gets_the_same_answer_from(tmp_path):
    """J by hand: masks are where the toy's logit is above 0, at the network's size, enlarged."""
    floor = build_floor(f"onnx:{red(tmp_path / 'toy.onnx')}")
    assert is_floor(f"onnx:{tmp_path / 'toy.onnx'}") and floor.card["name"] == "onnx:toy.onnx" and floor.alone
    groups = load_set("synthetic")[:2]
    photos = groups[0].photos[:3]
    for answer in Engine(floor, photos).answers(whole_group(3)):
        inputs = torch.nn.functional.interpolate(
            photos[answer.photo].image()[None], size=(64, 64), mode="bilinear", antialias=True
        )
        z = by_hand(inputs.float() / 255)[0]
        inside = z.abs() < 6  # beyond it no more is known of 8 bits
        torch.testing.assert_close((answer.logits[1] - answer.logits[0])[inside], z[inside], rtol=0, atol=1e-3)
    rows = evaluate(floor, groups, partner=("group", "self", "other"), limit=2)
    assert rows.groupby(["group", "name"]).J.nunique().eq(1).all() and rows.J.nunique() > 1
    assert abs(partner_swap(floor, load_set("synthetic")).score.mean()) < 1e-9


def test_a_side_that_is_no_multiple_of_32_is_fed_from_the_next_one(tmp_path):
    floor = build_floor(f"onnx:{red(tmp_path / 'toy.onnx', side=70)}")
    assert floor.input_size == 96 and floor(torch.rand(1, 1, 3, 96, 96)).logits.shape == (1, 1, 2, 96, 96)


def test_without_the_libraries_one_line_says_what_to_install(tmp_path, monkeypatch):
    file, real = red(tmp_path / "toy.onnx"), builtins.__import__

    def none(name, *more):
        if name.startswith("onnx"):
            raise ImportError(f"No module named {name}", name=name)
        return real(name, *more)

    monkeypatch.setattr(builtins, "__import__", none)
    with pytest.raises(CosegError, match=r"onnx is not installed; pip install onnxruntime onnx$"):
        load(f"onnx:{file}")


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("location", ["weights.bin", "../weights.bin", "/weights.bin", "*/_ORT_MEM_ADDR_/*"])
def test_a_model_that_keeps_a_tensor_in_another_file_is_refused_wherever_that_lies(tmp_path, location, deep):
    """The other file is there and would fit, so nothing else can be the reason."""
    home = tmp_path / "home"
    home.mkdir()
    for folder in (tmp_path, home):
        (folder / "weights.bin").write_bytes(np.zeros(3, np.float32).tobytes())
    file = elsewhere(red(home / "toy.onnx"), location, deep)
    with pytest.raises(CosegError, match="other files are not opened for a model; save it as one file") as refused:
        read_network(f"onnx:{file}")
    assert "\n" not in str(refused.value) and location in str(refused.value)


def test_a_tensor_that_says_elsewhere_but_not_where_is_refused_too(tmp_path):
    model = onnx.load_model_from_string(red(tmp_path / "toy.onnx").read_bytes())
    model.graph.initializer[1].data_location = onnx.TensorProto.EXTERNAL
    (tmp_path / "toy.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(CosegError, match="keeps tensor bias in another file"):
        read_network(f"onnx:{tmp_path / 'toy.onnx'}")


def test_what_is_no_saliency_network_is_refused_in_one_line(tmp_path):
    helper = onnx.helper
    (tmp_path / "none.onnx").write_bytes(b"\x00\x01no model")
    (tmp_path / "empty.onnx").write_bytes(b"")
    value = lambda name, shape, kind=1: helper.make_tensor_value_info(name, kind, shape)  # noqa: E731
    one = [helper.make_node("Identity", ["x"], ["y"])]
    write(tmp_path / "flat.onnx", helper.make_graph(one, "g", [value("x", [1, 10])], [value("y", [1, 10])]))
    wide = value("x", [1, 3, 32, 64]), value("y", [1, 3, 32, 64])
    write(tmp_path / "wide.onnx", helper.make_graph(one, "g", wide[:1], wide[1:]))
    whole = value("x", [1, 3, 32, 32]), value("y", [1, 3, 32, 32])
    write(tmp_path / "three.onnx", helper.make_graph(one, "g", whole[:1], whole[1:]))
    own = [helper.make_node("Magic", ["x"], ["y"], domain="ours")]
    write(tmp_path / "own.onnx", helper.make_graph(own, "g", whole[:1], whole[1:]))
    red(tmp_path / "open.onnx", side="S")
    for name, why in (
        ("none", "no ONNX model"),
        ("empty", "cannot be loaded|takes"),
        ("missing", "No such file"),
        ("flat", "not one picture"),
        ("wide", "not one picture"),
        ("own", "cannot be loaded"),
        ("open", r'leaves the size of its input open; say "size" in .*open\.json'),
    ):
        with pytest.raises(CosegError, match=why) as refused:
            read_network(f"onnx:{tmp_path / name}.onnx")
        assert "\n" not in str(refused.value) and name in str(refused.value)
    with pytest.raises(CosegError, match=r"output y is \(1, 3, 32, 32\), no single map"):
        read_network(f"onnx:{tmp_path / 'three.onnx'}").maps(torch.rand(1, 3, 32, 32))


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"means": [0, 0, 0]}, "means: no such field; one of mean, std"),
        ({"std": [1, 0, 1]}, "std = "),
        ({"mean": [1, True, 1]}, "mean = "),
        ({"range": [1, 1]}, "range = "),
        ({"size": 32}, "size = 32, but the network takes 64"),
        ({"output": "none"}, "has no such output; one of maps, other"),
        ({"output": 2}, "has no such output"),
    ],
)
def test_a_json_that_says_what_cannot_be_is_refused(tmp_path, settings, why):
    with pytest.raises(CosegError, match=why):
        read_network(beside(red(tmp_path / "toy.onnx"), **settings))


def test_a_floor_of_one_s_own_looks_once_and_draws_no_contour(tmp_path):
    name = f"onnx:{red(tmp_path / 'toy.onnx')}"
    with pytest.raises(CosegError, match="--post: a floor"):
        load(name, post="crf")
    assert metrics.aggregate(evaluate(load(name), load_set("synthetic")[:1], limit=1)).J.iloc[-1] >= 0
