"""The way from a model, photographs and questions to masks; all that asks a model asks here.

reading      a photograph as every question reads it, and what is kept between questions
answers      questions -> logits, the one engine          kinds    how each kind of model answers; pooled attention
second_look  again, from nearer                           floors   answers that learned nothing
saliency     single-image networks in ONNX form           priors   such maps, added to a system's answer
reference    pictures in which the object is marked: evidence beside the system's answer
masks        answers -> masks at the own size             crf      the dense CRF, label maps of several classes
densecrf     its mean field, as worker processes do it
"""


def load(
    name: str,
    method: str | None = None,
    looks: int | None = None,
    post: str | None = None,
    precision: str = "auto",
    prior=None,
):
    """A checkpoint (`coseglib.models.load_model`) or a floor (`coseglib.answering.floors`) by its name.

    prior  of `coseglib.answering.priors.read_prior`: what is added to its answers; None: nothing
    Raises CosegError where a floor is asked to look twice or to use a dense CRF, a multi-class model to take a prior,
    and as `load_model` does.
    """
    model = _loaded(name, method, looks, post, precision)
    if prior is not None and model.online:
        from coseglib.core.errors import CosegError

        raise CosegError(f"{prior.name}: a prior says where objects are, not of which class; leave it out")
    model.prior = prior
    return model


def _loaded(name: str, method: str | None, looks: int | None, post: str | None, precision: str):
    from coseglib.answering.floors import build_floor, is_floor
    from coseglib.core.errors import CosegError
    from coseglib.models import load_model

    if method is not None or not is_floor(name):
        return load_model(name, method, looks, post, precision)
    if looks or post:
        option = "looks" if looks else "post"
        raise CosegError(f"--{option}: a floor looks once, and its masks stay as they are; leave it out")
    return build_floor(name)
