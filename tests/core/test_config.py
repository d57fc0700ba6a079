from typing import Annotated, Literal

import pytest
from pydantic import Field

from coseglib.core.config import Config, Count, Share, profile_fields, read_yaml
from coseglib.core.errors import CosegError


class Quick(Config):
    steps: Count = 10
    rate: Annotated[float, Field(gt=0)] | None = 0.5
    crop: tuple[Share, Share] = (0.5, 1.0)
    sides: tuple[int, ...] = ()
    kind: Literal["a", "b"] = "a"
    fast: bool = False
    name: str = ""
    options: dict = Field({})


def test_text_is_read_as_the_fields_type():
    given = {"steps": "1e3", "rate": "1e-4", "crop": "0.2, 0.4", "sides": "64", "fast": "true", "name": "12"}
    quick = Quick(**given, options="{width: 1e-2}")
    assert (quick.steps, quick.rate, quick.crop, quick.sides) == (1000, 1e-4, (0.2, 0.4), (64,))
    assert (quick.fast, quick.name, quick.options) == (True, "12", {"width": 0.01})
    assert Quick(rate="none").rate is None and Quick(steps="012").steps == 12 and Quick(sides="[]").sides == ()


def test_fields_are_plain_and_make_the_same_again():
    quick = Quick(sides=(64, 96), rate=None)
    assert quick.fields()["sides"] == [64, 96] and Quick(**quick.fields()) == quick


def test_a_configuration_stays_as_it_is_and_others_are_made_of_it():
    quick = Quick()
    with pytest.raises(Exception, match="frozen"):
        quick.steps = 3
    assert quick.replaced(steps=3).steps == 3 and quick.steps == 10
    with pytest.raises(CosegError, match="steps = 0: must be 1 or more"):
        quick.replaced(steps=0)
    with pytest.raises(CosegError, match="stepps: no such field; one of steps, rate"):
        quick.replaced(stepps=1)


def test_defaults_are_checked_too():
    class Wrong(Config):
        steps: Count = 0

    with pytest.raises(CosegError, match="steps = 0: must be 1 or more"):
        Wrong()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no fields"),
        ("# nothing\n", "holds no fields"),
        ("- steps\n", "holds no fields"),
        ("steps: 1\nsteps: 2\n", "steps stands there twice"),
        ("a:\n  steps: 1\n  steps: 2\n", "steps stands there twice"),
        ("a: [\n", "not the YAML of a configuration"),
        ("al:\n  steps: 1\n", "al: no such section of a profile; one of all, a, b"),
        ("all:\n", "holds nothing for a; add a section of that name"),
        ("b:\n  steps: 1\n", "holds nothing for a; add a section of that name"),
        ("stepps: 1\n", "stepps: no such field; one of steps, rate"),
        ("a:\n  stepps: 1\n", "stepps: no such field; one of steps, rate"),
        ("all:\n  1: 2\n", "1: no such field"),
        ("method: b\nsteps: 1\n", "is of method b, not a"),
        ("all: 3\n", "section all = 3: must hold fields"),
    ],
)
def test_a_damaged_profile_is_one_line_that_names_it(tmp_path, text, words):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(CosegError, match=words) as error:
        profile_fields(file, tmp_path / "none", Quick, ("a", "b"), "a")
    assert str(error.value).startswith(str(file)) and "\n" not in str(error.value)


def test_a_methods_own_section_stands_over_the_shared_one_and_that_over_the_top(tmp_path):
    (tmp_path / "p.yaml").write_text("a b:\n  sides: [2]\nall:\n  steps: 2\n  sides: [1]\nsteps: 1\nkind: b\nb:\n")
    assert profile_fields(tmp_path / "p.yaml", tmp_path, Quick, "abc", "a") == {"steps": 2, "sides": [2], "kind": "b"}
    assert profile_fields("p", tmp_path, Quick, "abc", "c") == {"steps": 2, "sides": [1], "kind": "b"}
    with pytest.raises(CosegError, match="q: no such profile; one of p, or a YAML file"):
        profile_fields("q", tmp_path, Quick, "abc", "a")


def test_numbers_of_yaml_are_what_they_look_like(tmp_path):
    (tmp_path / "n.yaml").write_text("a: 1e-4\nb: 012\nc: 0x10\nd: 1.5\ne: -3\nf: .inf\n")
    want = {"a": 1e-4, "b": 12, "c": 16, "d": 1.5, "e": -3, "f": float("inf")}
    assert read_yaml(tmp_path / "n.yaml") == want
