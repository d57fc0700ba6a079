import pytest
import torch
from torch import nn

from coseglib.training.configuration import load_profile
from coseglib.training.loop import build_average, build_optimiser, build_schedule, learning_rate_factor


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone, self.head = nn.BatchNorm2d(2), nn.Conv2d(2, 1, 1)


def test_the_schedule_warms_up_and_falls_to_nothing():
    config = load_profile("smoke", "ca", {"steps": 105, "warmup": 5, "schedule": "cosine"})
    factors = [learning_rate_factor(config, s) for s in range(105)]
    assert factors[0] == pytest.approx(0.2) and factors[5] == 1.0 and factors[55] == pytest.approx(0.5)
    assert factors[-1] < 1e-3 and factors[5:] == sorted(factors[5:], reverse=True)


def test_the_rate_halves_every_so_many_steps():
    config = load_profile("smoke", "ca", {"warmup": 0, "schedule": "halving", "halve_every": 10})
    assert [learning_rate_factor(config, s) for s in (0, 9, 10, 19, 20)] == [1, 1, 0.5, 0.5, 0.25]


@pytest.mark.parametrize("begun", [0, 3])
def test_both_rates_follow_the_schedule_from_any_step(begun):
    config = load_profile("smoke", "ca", {"steps": 9, "warmup": 4, "schedule": "cosine"})
    optimiser = build_optimiser(Small(), config)
    optimiser.load_state_dict(optimiser.state_dict())  # as after resuming
    schedule = build_schedule(optimiser, config, begun)
    for step in range(begun, 9):
        want = [r * learning_rate_factor(config, step) for r in (config.backbone_learning_rate, config.learning_rate)]
        assert [group["lr"] for group in optimiser.param_groups] == want
        optimiser.step(), schedule.step()


def test_the_average_follows_weights_and_running_means_and_copies_counters():
    model = Small()
    average, mean, weight = build_average(model, 0.9), torch.zeros(2), model.head.weight.detach().clone()
    for step in range(1, 5):
        with torch.no_grad():
            model.head.weight += step
        model.backbone(torch.full((1, 2, 4, 4), float(step)))
        average.update_parameters(model)
        share = 1 - min(0.9, (1 + step) / (10 + step))
        weight = weight + share * (model.head.weight.detach() - weight)
        mean = mean + share * (model.backbone.running_mean - mean)
    torch.testing.assert_close(average.module.head.weight.detach(), weight)
    torch.testing.assert_close(average.module.backbone.running_mean, mean)
    assert average.module.backbone.num_batches_tracked == 4
    assert build_average(model, 0.0) is None and build_average(model, 0.9, 7).n_averaged == 8
