import pytest
import scipy.linalg
import torch
from torch.nn import functional as F

from coseglib.layers import spectral_mask
from coseglib.layers.spectral_mask import foreground_positive, group_eigenvectors, leading_eigenvector


def _columns(kind: str, b: int, d: int, m: int, dtype=torch.float32):
    """Unit columns (b, d, m) of several characters."""
    generator = torch.Generator().manual_seed(d + m)

    def draw(*size):
        return torch.randn(*size, generator=generator, dtype=dtype)

    x = {
        "noise": lambda: draw(b, d, m),
        "never negative": lambda: draw(b, d, m).relu() + 1e-3,
        "two clusters": lambda: draw(b, d, 2)[..., torch.arange(m) % 3 // 2] + 0.3 * draw(b, d, m),
        "rank 3": lambda: draw(b, d, 3) @ draw(b, 3, m),
        "dead channels": lambda: draw(b, d, m) * (torch.arange(d) % 2)[:, None],
        "nearly equal": lambda: draw(b, d, 1) + 1e-2 * draw(b, d, m),
    }[kind]()
    return F.normalize(x, dim=1)


KINDS = ("noise", "never negative", "two clusters", "rank 3", "dead channels", "nearly equal")


def _dense(x):
    """Largest eigenvalue and eigenvector of G itself, built M × M in float64."""
    g = x.double().mT @ x.double() - 1
    values, vectors = torch.linalg.eigh(g)
    return values[..., -1], vectors[..., -1]


def _cosine(a, b):
    return (a.double() * b.double()).sum(-1).abs() / (a.double().norm(dim=-1) * b.double().norm(dim=-1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("d", "m"), [(24, 7), (24, 24), (24, 25), (24, 60), (5, 245), (1, 9), (64, 245)])
def test_it_is_the_dense_eigenvector_up_to_its_sign(kind, d, m):
    x = _columns(kind, 2, d, m)
    value, s = leading_eigenvector(x)
    true_value, true = _dense(x)
    torch.testing.assert_close(value.double(), true_value, rtol=1e-5, atol=2e-5)
    separate = true_value > 1e-4
    assert (_cosine(s, true)[separate] > 0.99999).all()
    assert ((s.norm(dim=-1) - 1).abs()[separate] < 1e-5).all()


@pytest.mark.parametrize("m", [1000, 3000])
@pytest.mark.parametrize("kind", ["never negative", "two clusters"])
def test_it_is_the_dense_eigenvector_for_thousands_of_points(kind, m):
    x = _columns(kind, 1, 48, m)
    value, s = leading_eigenvector(x)
    g = x[0].double().T @ x[0].double() - 1
    assert (g @ s[0].double() - value[0].double() * s[0].double()).norm() < 1e-5 * value[0]
    if m < 3000 or kind == "never negative":  # dense, 3,000 × 3,000 takes seconds: once
        true = scipy.linalg.eigh(g.numpy(), subset_by_index=[m - 1, m - 1])[1][:, 0]
        assert _cosine(s[0], torch.from_numpy(true)) > 0.9999


def test_it_minimises_the_paper_s_clustering_objective_eqs_6_to_9():
    """Three points against three: all 62 ways to split them, by loops; s takes the best one's sign pattern."""
    x = _columns("two clusters", 1, 4, 6, torch.float64)[0]
    objective = {}
    for code in range(1, 63):
        side = [code >> i & 1 for i in range(6)]
        total = 0.0
        for i in range(6):
            for j in range(6):
                distance = float(((x[:, i] - x[:, j]) ** 2).sum())
                total += distance if side[i] == side[j] else -distance  # eq. (6), each mixed pair met twice
        objective[code] = total
        indicator = torch.tensor(side, dtype=torch.float64) * 2 - 1
        g = x.T @ x - 1
        assert total == pytest.approx(-2 * float(indicator @ g @ indicator))  # eqs. (7) to (9), the constant apart
    best = min(objective, key=objective.get)
    s = leading_eigenvector(x[None])[1][0]
    assert sum(1 << i for i in range(6) if s[i] > 0) in (best, 63 - best)


def test_each_entry_of_a_batch_is_solved_by_itself():
    x = _columns("noise", 3, 6, 40)
    value, s = leading_eigenvector(x)
    for i in range(3):
        one_value, one = leading_eigenvector(x[i : i + 1])
        torch.testing.assert_close(value[i], one_value[0])
        torch.testing.assert_close(_cosine(s[i], one[0]), torch.tensor(1.0, dtype=torch.float64))


@pytest.mark.parametrize("positions", [2, 11])
def test_a_set_of_images_is_solved_as_if_it_were_alone(positions):
    x = _columns("noise", 2, 12, 4 * positions).unflatten(-1, (4, positions)).transpose(1, 2)  # (B, N, d, P)
    members = torch.tensor([[[1, 0, 1, 1], [1, 1, 0, 0], [1, 1, 1, 1], [0, 1, 0, 0]]] * 2, dtype=torch.bool)
    value, s = group_eigenvectors(x, members)
    for b in range(2):
        for i, row in enumerate(members[b]):
            alone_value, alone = leading_eigenvector(x[b, row].transpose(0, 1).flatten(1)[None])
            torch.testing.assert_close(value[b, i], alone_value[0], rtol=1e-4, atol=1e-5)
            assert _cosine(s[b, i, row].flatten(), alone[0]) > 0.9999
            assert (s[b, i, ~row] == 0).all()


def test_blocks_change_nothing(monkeypatch):
    x = _columns("noise", 2, 6, 5 * 40).unflatten(-1, (5, 40)).transpose(1, 2)
    whole = group_eigenvectors(x)
    for block in (50, 1000):  # pieces of an image, and of several images
        monkeypatch.setattr(spectral_mask, "BLOCK", block)
        value, s = group_eigenvectors(x)
        torch.testing.assert_close(value, whole[0])
        assert _cosine(s.flatten(2), whole[1].flatten(2)).min() > 0.999999


@pytest.mark.parametrize(("d", "m"), [(3, 12), (7, 5)])
def test_the_gradients_of_value_and_vector_are_right(d, m):
    generator = torch.Generator().manual_seed(0)
    f = torch.randn(2, d, m, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f: leading_eigenvector(F.normalize(f, dim=1), damping=1e-9), (f,))
    assert torch.autograd.gradcheck(lambda f: leading_eigenvector(f, damping=1e-9), (f,))  # columns of any length


@pytest.mark.parametrize("positions", [2, 5])
def test_the_gradients_of_sets_are_right(positions):
    generator = torch.Generator().manual_seed(1)
    f = torch.randn(1, 3, 8, positions, generator=generator, dtype=torch.float64, requires_grad=True)
    members = torch.tensor([[[1, 1, 0], [1, 0, 1], [1, 1, 1]]])
    assert torch.autograd.gradcheck(lambda f: group_eigenvectors(F.normalize(f, dim=2), members, 1e-9), (f,))


def test_the_value_s_gradient_is_the_outer_product_of_the_vector():
    """d lambda / dG = s sᵀ, so d lambda / dX = 2 X s sᵀ."""
    x = _columns("noise", 1, 6, 30, torch.float64).requires_grad_()
    value, s = leading_eigenvector(x)
    value.sum().backward()
    torch.testing.assert_close(x.grad, (2 * x @ s[..., None] * s[:, None]).detach())


def test_damping_changes_well_separated_gradients_little():
    x = _columns("two clusters", 1, 6, 30, torch.float64)
    gradients = []
    for damping in (1e-9, 1e-3):
        x = x.detach().requires_grad_()
        leading_eigenvector(x, damping)[1][0, :7].sum().backward()
        gradients.append(x.grad)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-4 * float(gradients[0].abs().max()))


@pytest.mark.parametrize("m", [6, 12])
def test_repeated_eigenvalues_give_finite_gradients(m):
    x = torch.eye(6).repeat(1, m // 6)[None].requires_grad_()  # G's largest eigenvalue stands five times
    value, s = leading_eigenvector(x)
    assert value.item() == pytest.approx(m / 6) and s.norm().item() == pytest.approx(1, abs=1e-5)
    (value.sum() + s[0, :3].sum()).backward()
    assert x.grad.isfinite().all() and x.grad.abs().max() < 1e4


@pytest.mark.parametrize("m", [1, 3, 50])
@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_where_all_columns_are_equal_there_are_no_clusters(m, fill):
    x = F.normalize(torch.full((2, 7, m), fill), dim=1).requires_grad_()
    value, s = leading_eigenvector(x)
    assert (value <= 1e-6 * m).all() and (s == 0).all()
    (value.sum() + s.sum()).backward()
    assert x.grad.isfinite().all()


def test_zero_columns_among_others_are_finite_and_right():
    x = _columns("noise", 1, 5, 40)
    x[..., 10:20] = 0
    value, s = leading_eigenvector(x)
    assert s.isfinite().all() and _cosine(s, _dense(x)[1]).min() > 0.9999
    torch.testing.assert_close(value.double(), _dense(x)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("m", [4, 40])
def test_an_entry_that_is_not_finite_costs_itself_only(m):
    x = _columns("noise", 2, 6, m)
    want = leading_eigenvector(x)[0]
    x[0, 2, 1] = torch.nan
    value, s = leading_eigenvector(x)
    assert value[0].isnan() and s[0].isnan().all()
    torch.testing.assert_close(value[1], want[1])


def test_half_precision_comes_back_in_float32_and_its_gradient_in_half():
    x = _columns("two clusters", 1, 16, 200).bfloat16().requires_grad_()
    value, s = leading_eigenvector(x)
    assert value.dtype == s.dtype == torch.float32 and _cosine(s, _dense(x.float())[1]).min() > 0.9999
    value.sum().backward()
    assert x.grad.dtype == torch.bfloat16 and x.grad.isfinite().all()


def test_all_of_eigh_gives_the_pair_that_lapack_gives_alone():
    """What other devices than CPUs run."""
    c = torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    c = c + c.mT
    value, w = spectral_mask._top_pair(c.clone())
    values, vectors = torch.linalg.eigh(c)
    torch.testing.assert_close(value, values[..., -1])
    torch.testing.assert_close((w[..., 0] * vectors[..., -1]).sum(-1).abs(), torch.ones(2, 3, dtype=torch.float64))


def test_cholesky_failing_is_made_up_for(monkeypatch):
    x = _columns("rank 3", 1, 6, 40)
    monkeypatch.setattr(spectral_mask, "JITTER", -1e-9)
    value, s = leading_eigenvector(x)
    torch.testing.assert_close(value.double(), _dense(x)[0], rtol=1e-5, atol=1e-5)
    assert _cosine(s, _dense(x)[1]).min() > 0.9999


def test_no_matrix_of_points_by_points_is_made():
    """20,000 points: G would take 3.2 GB in float64. The largest block that torch asks for is counted."""
    x = _columns("noise", 1, 8, 20_000)
    with torch.autograd.profiler.profile(profile_memory=True) as profiler:
        leading_eigenvector(x)
    most = max(e.cpu_memory_usage for e in profiler.function_events)
    assert 0 < most < 64e6


@pytest.mark.parametrize("flip", [1, -1])
def test_the_foreground_is_the_side_that_touches_the_border_less(flip):
    s = torch.full((1, 2, 5, 6), -0.1)
    s[0, 0, 1:4, 2:4], s[0, 1, 3:, 2:4] = 0.3, 0.3  # one inside, one standing on the lower border
    torch.testing.assert_close(foreground_positive(flip * s), s)


def test_a_group_has_one_sign_and_groups_have_their_own():
    torch.manual_seed(0)
    s = torch.full((2, 3, 6, 6), -0.1)
    s[:, :, 2:4, 2:4] = 0.4
    s[0, 2] = 0.1  # an image that lies on the foreground's side altogether keeps it
    torch.testing.assert_close(foreground_positive(s * torch.tensor([1.0, -1.0])[:, None, None, None]), s)


def test_maps_without_an_inside_take_the_side_of_fewer_positions():
    s = torch.tensor([0.5, 0.5, 0.5, -0.5]).view(1, 1, 2, 2)
    torch.testing.assert_close(foreground_positive(s), -s)
    torch.testing.assert_close(foreground_positive(-s), -s)
    even = torch.tensor([0.7, -0.4, 0.1, -0.4]).view(1, 1, 2, 2)  # two against two: the larger values
    torch.testing.assert_close(foreground_positive(-even), even)
    assert (foreground_positive(torch.zeros(1, 1, 2, 2)) == 0).all()


def test_the_sign_carries_the_gradient():
    s = torch.full((1, 1, 3, 3), 0.1)
    s[0, 0, 1, 1] = -0.5
    s.requires_grad_()
    foreground_positive(s).sum().backward()
    torch.testing.assert_close(s.grad, -torch.ones_like(s))


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="must be \\(B, d, M\\)"):
        leading_eigenvector(torch.rand(3, 4))
    with pytest.raises(ValueError, match="not empty"):
        leading_eigenvector(torch.rand(1, 3, 0))
    with pytest.raises(ValueError, match=r"members of \(1, 3\)"):
        group_eigenvectors(torch.rand(1, 3, 4, 5), torch.ones(1, 3))
