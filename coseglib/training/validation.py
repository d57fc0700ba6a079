"""How good a model is while it trains, on validation photographs and never on a test set."""

from collections.abc import Callable

from coseglib.training.configuration import TrainConfig


def build_validation(config: TrainConfig, data_root=None) -> Callable[..., dict[str, float]]:
    """A function model -> {val_J, val_swap, val_refusal}."""
    from coseglib.scoring import metrics
    from coseglib.scoring.questions import partner_swap, refusal
    from coseglib.scoring.rows import evaluate

    if config.data == "synthetic":
        from coseglib.data.synthetic import load_synthetic

        groups = load_synthetic("val")
    else:
        from coseglib.data import validation_groups

        groups = validation_groups(data_root)

    def score(model) -> dict[str, float]:
        table = metrics.aggregate(evaluate(model, groups, "common", limit=config.validate_photos), "common")
        unsure = refusal(model, groups)
        return {
            "val_J": float(table.J.iloc[-1]),
            "val_swap": 100 * float(partner_swap(model, groups).score.mean()),
            "val_refusal": metrics.auroc(unsure.score, unsure.common),
        }

    return score
