import json

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch.nn import functional as F

from coseglib.core.errors import CosegError
from coseglib.models.backbones import BACKBONES, KNOWN, SameConv2d, build_backbone, sha256


@pytest.mark.parametrize("name", BACKBONES)
def test_a_pyramid_has_the_strides_and_channels_it_states(name):
    net = build_backbone(name, weights=None).eval()
    with torch.no_grad():
        maps = net(torch.rand(1, 3, 64, 96))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (c, 64 // s, 96 // s) for c, s in zip(net.channels, net.strides, strict=True)
    ]
    assert net.embed(maps[-1]).shape[1] == net.embedding_channels


@pytest.mark.parametrize(("name", "sides"), [("vgg16", [50, 25, 12, 6, 3]), ("resnet10", [51, 26, 13, 7, 4])])
def test_of_odd_sides_vgg16_rounds_down_and_the_others_up(name, sides):
    with torch.no_grad():
        maps = build_backbone(name, weights=None).eval()(torch.rand(1, 3, 101, 101))
    assert [m.shape[-1] for m in maps] == sides


@pytest.mark.parametrize(("side", "kernel", "groups"), [(8, 3, 4), (9, 3, 4), (8, 3, 1), (7, 5, 1), (8, 5, 4)])
def test_same_padding_equals_a_loop_over_output_positions(side, kernel, groups):
    torch.manual_seed(0)
    conv = SameConv2d(4, 4, kernel, stride=2, groups=groups).double()
    x = torch.rand(1, 4, side, side, dtype=torch.float64, requires_grad=True)
    out = -(-side // 2)
    total = max((out - 1) * 2 + kernel - side, 0)
    padded = torch.zeros(1, 4, side + total, side + total, dtype=torch.float64)
    before = total // 2
    padded[..., before : before + side, before : before + side] = x
    want = torch.stack(
        [
            F.conv2d(padded[..., 2 * i : 2 * i + kernel, 2 * j : 2 * j + kernel], conv.weight, conv.bias, groups=groups)
            for i in range(out)
            for j in range(out)
        ],
        dim=-1,
    ).reshape(1, 4, out, out)
    got = conv(x)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(*(torch.autograd.grad(y.square().sum(), x, retain_graph=True)[0] for y in (got, want)))


def test_preprocessing_follows_the_weights_origin():
    grey = torch.full((1, 3, 1, 1), 0.5)
    assert build_backbone("mobilenet_v2", None, origin="tf-slim").preprocess(grey).flatten().tolist() == [0, 0, 0]
    want = [(0.5 - m) / s for m, s in zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)]
    torch.testing.assert_close(build_backbone("resnet18", None).preprocess(grey).flatten(), torch.tensor(want))


def test_unknown_names_are_refused_with_the_names_there_are():
    with pytest.raises(CosegError, match="one of vgg16, "):
        build_backbone("vgg17")


def test_a_local_folder_without_the_file_and_no_network_says_what_to_do(tmp_path, monkeypatch):
    def offline(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", offline)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(CosegError, match="set COSEG_WEIGHTS") as caught:
        build_backbone("resnet18", root=tmp_path)
    assert "\n" not in str(caught.value)


def test_a_damaged_weights_file_is_named(tmp_path):
    (tmp_path / "resnet18.safetensors").write_bytes(b"not tensors at all")
    with pytest.raises(CosegError, match=r"resnet18\.safetensors: not a readable"):
        build_backbone("resnet18", root=tmp_path)


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("mobilenet_v2", ("features.1", "features.3", "features.6", "features.13", "features.17")),
        ("resnet50", (None, "layer1", "layer2", "layer3", "layer4")),
    ],
)
def test_features_of_a_fixed_input_equal_the_stored_reference(name, keys, real_weights):
    reference = json.loads((real_weights / "reference.json").read_text())["outputs"][name]
    c, i, j = torch.meshgrid(torch.arange(3), torch.arange(224), torch.arange(224), indexing="ij")
    image = ((7 * i + 13 * j + 29 * c) % 256) / 255
    net = build_backbone(name, root=real_weights).eval()
    with torch.no_grad():
        maps = net(image[None].float())
    for key, f in zip(keys, maps, strict=True):
        if key:
            assert list(f.shape) == reference[key]["shape"]
            assert f.std(unbiased=False).item() == pytest.approx(reference[key]["std"], rel=1e-3)
            first = torch.tensor(reference[key]["first"])
            torch.testing.assert_close(f.flatten()[:8], first, rtol=1e-3, atol=1e-3 * first.abs().max().item())


@pytest.fixture(scope="module")
def torchvision_resnet(tmp_path_factory):
    """A folder with torchvision's own ResNet-50 (random), under its own name: nothing says where it comes from."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    save_file(torchvision.models.resnet50(weights=None).state_dict(), folder / "resnet50-0676ba61.safetensors")
    return folder


def test_a_file_that_does_not_say_its_origin_is_refused_unless_the_caller_says_it(torchvision_resnet):
    with pytest.raises(CosegError, match=r"does not say where its weights come from.*torchvision\|tf-slim") as caught:
        build_backbone("resnet50", root=torchvision_resnet)
    assert "\n" not in str(caught.value)
    net = build_backbone("resnet50", root=torchvision_resnet, origin="torchvision")
    assert net.stages[2][0].conv1.stride == (1, 1) and net.stages[2][0].conv2.stride == (2, 2)
    assert build_backbone("resnet50", root=torchvision_resnet, origin="caffe-v1").stages[2][0].conv1.stride == (2, 2)


def test_metadata_say_a_files_origin(tmp_path):
    tensors = torchvision.models.mobilenet_v2(weights=None).state_dict()
    for origin in ("torchvision", "tf-slim"):
        save_file(tensors, tmp_path / "mobilenet_v2.safetensors", {"origin": origin})
        assert build_backbone("mobilenet_v2", root=tmp_path).origin == origin
    save_file(tensors, tmp_path / "mobilenet_v2.safetensors", {"origin": "elsewhere"})
    with pytest.raises(CosegError, match="its origin elsewhere is not known"):
        build_backbone("mobilenet_v2", root=tmp_path)


def test_no_file_of_another_network_is_taken_for_one_whose_name_begins_alike(tmp_path, monkeypatch):
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: {})
    for name in ("vgg16_bn.safetensors", "vgg16-bn.safetensors", "vgg16.bn.safetensors"):
        (tmp_path / name).write_bytes(b"another network")
    with pytest.raises(CosegError, match="no ImageNet weights here"):  # the download is tried, the files are not
        build_backbone("vgg16", root=tmp_path)


def test_origins_that_are_not_there_or_fit_no_such_network_are_refused():
    with pytest.raises(CosegError, match="elsewhere: no such origin"):
        build_backbone("vgg16", None, origin="elsewhere")
    with pytest.raises(CosegError, match="vgg16: no caffe-v1 weights"):
        build_backbone("vgg16", None, origin="caffe-v1")
    with pytest.raises(CosegError, match="no tf-slim weights"):
        build_backbone("hrnet_w18", None, origin="tf-slim")
    assert build_backbone("vgg16", None, origin="").origin == "torchvision"


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet50"])
def test_the_files_at_hand_are_known_by_their_checksums(name, real_weights):
    assert sha256(real_weights / f"{name}.fp16.safetensors") in KNOWN


@pytest.mark.parametrize("name", ["mobilenet_v2", "hrnet_w18"])
@pytest.mark.parametrize("learns", [True, False])
def test_a_stem_that_does_not_learn_gets_no_gradient_and_all_that_is_coarser_does(name, learns):
    net = build_backbone(name, None).train()
    net.stem_learns = learns
    sum(m.square().mean() for m in net(torch.rand(2, 3, 64, 64))).backward()
    first = next(net.parameters())
    assert (first.grad is not None) == learns
    if name == "hrnet_w18":
        body = net.stages[0]["body"]
        assert all((p.grad is not None) == learns for p in (*body.conv2.parameters(), *body.layer1.parameters()))
        assert all(p.grad is not None for p in body.stage4.parameters())
    else:
        assert all(p.grad is not None for p in net.stages[-1].parameters())
