import pytest
import yaml

from coseglib.core.errors import CosegError
from coseglib.unsupervised.configuration import OnlineConfig, load_online


def test_the_papers_profile_is_what_the_paper_states():
    paper = load_online("paper")
    assert paper == OnlineConfig()
    assert (paper.backbone, paper.extractor, paper.masking, paper.variant) == ("vgg16", "resnet50", "image", "paper")
    assert (paper.input_size, paper.batch, paper.epochs, paper.weight_decay) == (384, 3, 10, 5e-4)
    assert (paper.balance, paper.border, paper.gamma_rate, paper.post) == (0, 0, 1, "crf")
    assert paper.learning_rate is None and paper.self_attention and paper.mutual_attention


def test_single_fields_are_overridden_by_text_of_their_type():
    config = load_online(
        "smoke",
        {"epochs": "7", "learning_rate": "none", "learning_rates": "1e-5,1e-4", "self_attention": "False", "seed": "3"},
    )
    assert (config.epochs, config.learning_rate, config.learning_rates) == (7, None, (1e-5, 1e-4))
    assert config.self_attention is False and config.seed == 3 and config.backbone == "mobilenet_v2"
    assert load_online("cpu", {"learning_rate": "3e-4"}).learning_rate == 3e-4


@pytest.mark.parametrize(
    ("profile", "given", "words"),
    [
        ("other", {}, "no such profile"),
        ("smoke", {"speed": "1"}, "no such field"),
        ("smoke", {"epochs": "many"}, "must be a whole number"),
        ("smoke", {"self_attention": "perhaps"}, "must be true or false"),
        ("smoke", {"epochs": "0"}, "1 or more"),
        ("smoke", {"input_size": "100"}, "multiple of 32"),
        ("smoke", {"backbone": "alexnet"}, "one of"),
        ("smoke", {"learning_rate": "-1"}, "above 0"),
        ("smoke", {"balance": "-1"}, "must be 0 or more"),
        ("smoke", {"precision": "16-true"}, "one of"),
        ("smoke", {"learning_rates": "1e-4, nan"}, "learning_rates = 1e-4, nan: must be a number"),
        ("paper", {"learning_rates": "[]"}, "one or more"),
        ("smoke", {"seed": "-1"}, "must be 0 or more"),
        ("smoke", {"device": "toaster"}, "one of auto, cpu, mps"),
        ("smoke", {"variant": "2"}, "variant = 2: one of paper, workbook"),
        ("smoke", {"patience": "1.5"}, "patience = 1.5: must be a whole number"),
    ],
)
def test_wrong_configurations_are_errors_in_one_line(profile, given, words):
    with pytest.raises(CosegError, match=words) as error:
        load_online(profile, given)
    assert "\n" not in str(error.value)


def test_a_runs_own_configuration_is_a_profile(tmp_path):
    config = load_online("cpu", {"seed": 2, "learning_rates": [1e-4]})
    (tmp_path / "config.yaml").write_text(
        yaml.safe_dump({"method": "multiclass", "group": "dog+person", "photos": 3, "classes": 2, **config.fields()})
    )
    assert load_online(str(tmp_path / "config.yaml")) == config
    (tmp_path / "mine.yaml").write_text("seed: 2\nclasses: 2\n")
    with pytest.raises(CosegError, match=r"mine\.yaml: classes: no such field"):
        load_online(str(tmp_path / "mine.yaml"))
