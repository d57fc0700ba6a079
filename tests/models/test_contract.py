"""What every model of the registry keeps, whatever it is. A further paper is tested by being registered.

The shipped checkpoints' logits are pinned in `pinned_logits.json`. Where a change of them is meant, make it anew:

    python tests/models/test_contract.py
"""

import json
import math
from pathlib import Path

import pytest
import torch

from coseglib.core.errors import CosegError
from coseglib.core.paths import CHECKPOINTS, SCENES
from coseglib.data.record import VOID
from coseglib.data.reported import reported
from coseglib.models import METHODS, load_model
from coseglib.models.contract import LOOKS, POSTS, ContextModel, GroupModel, PartnerModel
from coseglib.scoring.metrics import PROTOCOLS

BASES = {"context": ContextModel, "partner": PartnerModel, "group": GroupModel}
SMALL = {"ssnm": {"categories": 3, "width": 16}, "pfcc": {"kernels": (3, 5), "width": 8}, "multiclass": {"classes": 2}}
EVERY = [(method, variant) for method, model in METHODS.items() for variant in model.VARIANTS]
CLOSE = {"rtol": 1e-3, "atol": 1e-4}
PINNED = Path(__file__).with_name("pinned_logits.json")

every = pytest.mark.parametrize(("method", "variant"), EVERY, ids=["-".join(e) for e in EVERY])


@pytest.fixture
def build(awake):
    return lambda method, variant: awake(method, variant, **SMALL.get(method, {}))


def _group(n: int, height: int = 64, width: int = 64):
    return torch.rand(1, n, 3, height, width, generator=torch.Generator().manual_seed(n))


@pytest.mark.parametrize("method", METHODS)
def test_a_class_states_the_facts_that_others_ask_for(method):
    model = METHODS[method]
    assert model.kind in BASES and issubclass(model, BASES[model.kind]) and model.post in POSTS and model.looks in LOOKS
    assert model.paper.protocol in PROTOCOLS and all(shape.startswith("(B, N") for shape in model.EXTRAS.values())
    printed = set(reported(paper=model.paper.key).method)
    assert set(model.paper.systems) <= printed | {"SA+MA"}  # the thesis prints gains of this one alone
    assert model.online == (method == "multiclass")


@every
def test_a_new_model_has_an_empty_card_and_the_options_that_it_was_given(build, method, variant):
    model = build(method, variant)
    assert (
        not model.card and model.options == SMALL.get(method, {}) and set(model.options) <= set(METHODS[method].options)
    )
    assert (model.variant, model.input_size) == (variant, 64)


@torch.no_grad()
@every
@pytest.mark.parametrize("n", [1, 2, 5])
def test_any_number_of_images_gets_logits_of_their_size(build, method, variant, n):
    model = build(method, variant)
    for size in ((64, 64), (64, 96)):
        logits = model(_group(n, *size)).logits
        assert logits.shape == (1, n, model.classes + 1, *size) and logits.dtype == torch.float32
        assert logits.isfinite().all()


@every
def test_sizes_that_do_not_fit_are_refused_in_one_line(build, method, variant):
    model = build(method, variant)

    def refuse(what, message, *given):
        with pytest.raises(ValueError, match=message) as caught:
            what(*given)
        assert "\n" not in str(caught.value)

    for size in ((60, 64), (64, 63), (63, 63)):
        refuse(model, "both sides must be multiples of 32", _group(2, *size))
        refuse(model.encode, "both sides must be multiples of 32", _group(2, *size)[0])
    refuse(model, r"must be \(B, N, 3, H, W\)", _group(2)[0])
    refuse(model.encode, r"must be \(B, 3, H, W\)", _group(2))
    refuse(model, r"weights of \(2, 2\): must be \(1, 2, 2\)", _group(2), torch.eye(2))
    for wrong in ({"variant": "other"}, {"input_size": 100}, {"input_size": 0}):
        refuse(type(model), "one of paper, workbook|multiple of 32", *({"backbone": model.backbone} | wrong).values())


@torch.no_grad()
@every
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_gives_finite_float32_logits(build, method, variant, half):
    model = build(method, variant)
    with torch.autocast("cpu", half):
        output = model(_group(3))
    assert output.logits.dtype == torch.float32 and output.logits.isfinite().all()
    assert all(output.extra(name).float().isfinite().all() for name in output.extras)


@torch.no_grad()
@every
def test_permuting_a_group_permutes_its_answers(build, method, variant):
    model, group, order = build(method, variant), _group(4), [2, 0, 3, 1]
    torch.testing.assert_close(model(group).logits[:, order], model(group[:, order]).logits, **CLOSE)


@every
def test_void_pixels_change_no_term_of_the_loss(build, method, variant):
    model = build(method, variant)
    if model.online:
        pytest.skip("learns without masks")
    targets = (_group(2)[:, :, 0] > 0.6).to(torch.uint8)
    targets[..., 20:40, 30:] = VOID
    output, classes = model(_group(2)), torch.tensor([[1.0, 0, 1]])
    before = model.loss(output, targets, classes, dice=0.5)
    output.logits = torch.where((targets == VOID)[:, :, None], torch.randn_like(output.logits), output.logits)
    after = model.loss(output, targets, classes, dice=0.5)
    assert before.keys() == after.keys() and all(term.ndim == 0 for term in before.values())
    for name, term in before.items():
        torch.testing.assert_close(after[name], term, msg=name)


@torch.no_grad()
@every
def test_extras_are_those_stated_with_the_shapes_stated(build, method, variant):
    output, known = build(method, variant)(_group(3, 64, 96)), {"B": 1, "N": 3, "H": 64, "W": 96}
    assert set(output.extras) == set(METHODS[method].EXTRAS)
    for name, stated in METHODS[method].EXTRAS.items():
        shape, letters = output.extra(name).shape, stated.strip("()").split(", ")
        assert len(shape) == len(letters), (name, stated, shape)
        for size, letter in zip(shape, letters, strict=True):
            over = letter.split("/")  # a letter means one number in all extras of an output
            want = int(over[0]) if over[0].isdigit() else known.setdefault(over[0], size)
            assert size == (want // int(over[1]) if over[1:] else want), (name, stated, shape)
    with pytest.raises(CosegError, match="no method offers it"):
        output.extra("nothing")


@torch.no_grad()
@every
def test_answer_is_what_forward_is_made_of(build, method, variant):
    """A pair, by the methods of each kind alone."""
    model, pair = build(method, variant), _group(2)
    if model.kind == "group":
        logits = model.answer(pair).logits[0]
    else:
        maps = model.encode(pair[0])
        if model.kind == "partner":
            logits = model.answer(maps, [m.flip(0) for m in model.reference_maps(maps)]).logits
        else:
            alpha = model.attention(maps)
            assert alpha.shape == (2, model.context_size)
            context = model.pool(alpha) if model.includes_itself else alpha.flip(0)
            logits = model.answer(maps, context)
    torch.testing.assert_close(model(pair).logits[0], logits, **CLOSE)


# Pinned ---------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def sampled(name: str) -> list[float]:
    """A shipped checkpoint's logits of three drawn patterns of 128², at 16 places and channels of each."""
    n, c, y, x = torch.meshgrid(*(torch.arange(k, dtype=torch.float64) for k in (3, 3, 128, 128)), indexing="ij")
    waves = torch.sin(y / (7 + 3 * n) + c) * torch.cos(x / (11 - 2 * n) + n)
    disc = ((y - 40 - 20 * n).square() + (x - 64).square()).sqrt() < 30
    images = torch.where(disc, 0.8 - 0.3 * c + 0.1 * waves, 0.5 + 0.2 * waves).clamp(0, 1).float()
    logits = load_model(name)(images[None]).logits[0].flatten(1)  # (3, 2 · 128²)
    places = [int(k * logits.shape[1] / 16 + 97 * math.sqrt(k)) for k in range(16)]
    return [round(float(v), 6) for v in logits[:, places].flatten()]


SHIPPED = sorted(p.stem for folder in (CHECKPOINTS, SCENES) for p in folder.glob("*.safetensors"))


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_checkpoint_answers_as_it_did(name):
    torch.testing.assert_close(
        torch.tensor(sampled(name)), torch.tensor(json.loads(PINNED.read_text())[name]), rtol=1e-4, atol=1e-4
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    found = {name: sampled(name) for name in SHIPPED}
    PINNED.write_text(json.dumps(found, indent=1).replace("\n  ", " ").replace("\n ]", " ]") + "\n")
