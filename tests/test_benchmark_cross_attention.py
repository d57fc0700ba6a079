import pytest
import torch

from coseglib.core.paths import REPOSITORY


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")
    import cross_attention

    return cross_attention


def test_the_allocators_blocks_are_counted_while_they_live(benchmark):
    def run():
        first = torch.zeros(1000, 1000)  # 4 MB
        second = first + 1  # 8 MB: the most
        del first
        return second[:10].clone()  # 40 kB; the rest goes when the function ends

    most, left = benchmark.allocated(run)
    assert 8_000_000 <= most < 8_100_000 and 40_000 <= left < 100_000


def test_every_way_but_one_loop_against_all_positions_gives_the_same_result(benchmark):
    case = benchmark.Case(6, 32, 2)
    for pair in ((benchmark.CROSS, benchmark.CONCATENATED), (benchmark.NONLOCAL, benchmark.FUSED)):
        for a, b in zip(*(case.results(way) for way in pair), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_the_cross_keeps_less_than_the_concatenated_way_and_nonlocal_is_left_out_where_it_does_not_fit(benchmark):
    found = benchmark.measure(12, 32, 2, limit=1e-4, rounds=1)
    assert benchmark.NONLOCAL not in found and benchmark.fits(benchmark.NONLOCAL, 12, 2, 1)
    assert found[benchmark.CROSS]["kept"] < found[benchmark.CONCATENATED]["kept"]
    assert set(found[benchmark.CROSS]) == {"seconds", "peak", "kept"}
