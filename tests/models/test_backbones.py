import json

import pytest
import torch
from torch.nn import functional as F

from coseglib.core.errors import CosegError
from coseglib.models.backbones import BACKBONES, SameConv2d, build_backbone


@pytest.mark.parametrize("name", BACKBONES)
def test_a_pyramid_has_the_strides_and_channels_it_states(name):
    net = build_backbone(name, weights=None).eval()
    with torch.no_grad():
        maps = net(torch.rand(1, 3, 64, 96))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (c, 64 // s, 96 // s) for c, s in zip(net.channels, net.strides, strict=True)
    ]
    assert net.embed(maps[-1]).shape[1] == net.embedding_channels


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
