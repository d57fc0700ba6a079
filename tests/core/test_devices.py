import pytest
import torch
from tiny_models import TinyContext

from coseglib.answering.answers import GIVE_BACK, Engine, whole_group
from coseglib.answering.reading import Memory
from coseglib.core import devices
from coseglib.core.devices import give_back_memory, precision_of


@pytest.fixture
def graphics(monkeypatch):
    """A GPU of some compute capability, and a processor with or without bfloat16."""

    def set_up(capability: tuple[int, int] | None, processor: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: capability is not None)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)  # which counts emulation
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
        monkeypatch.setattr(devices, "cpu_has_bfloat16", lambda: processor)

    return set_up


@pytest.mark.parametrize(
    ("capability", "want"), [((7, 0), "32-true"), ((7, 5), "32-true"), ((8, 0), "bf16-mixed"), ((12, 0), "bf16-mixed")]
)
def test_emulated_bfloat16_does_not_count(graphics, capability, want):
    graphics(capability, processor=True)
    assert [precision_of("auto", d) for d in ("auto", "cuda", "gpu", torch.device("cuda:1"))] == [want] * 4


def test_the_device_that_was_chosen_decides(graphics):
    graphics((9, 0), processor=False)
    assert precision_of("auto", "cpu") == "32-true" and precision_of("auto", "mps") == "32-true"
    graphics((7, 5), processor=True)
    assert precision_of("auto", "cpu") == precision_of("auto", torch.device("cpu")) == "bf16-mixed"
    graphics(None, processor=True)
    assert precision_of("auto") == "bf16-mixed" and precision_of("auto", "mps") == "32-true"


def test_a_stated_precision_is_that_one(graphics):
    graphics((9, 0))
    assert precision_of("32-true", "cuda") == "32-true" and precision_of("bf16-mixed", "cpu") == "bf16-mixed"


def test_memory_is_given_back_while_a_stream_goes_on_and_a_c_library_without_trim_is_no_fault(monkeypatch):
    trimmed = []
    monkeypatch.setattr(devices, "_malloc_trim", lambda: trimmed.append)
    engine = Engine(TinyContext(), [torch.zeros(3, 40, 40, dtype=torch.uint8)] * 5, batch=1, memory=Memory(0))
    assert len(list(engine.answers(whole_group(5)))) == 5
    assert trimmed == [0] * (10 // GIVE_BACK)  # two passes
    monkeypatch.setattr(devices, "_malloc_trim", lambda: None)
    give_back_memory()
