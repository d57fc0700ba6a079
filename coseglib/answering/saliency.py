"""A single-image saliency network in ONNX form, of the user's: what many take instead of co-segmentation.

A file FILE.onnx takes one picture (1, 3, S, S) and gives one map, (1, 1, h, w) or without the ones. FILE.json beside it
may say what the network wants; all is optional:

    mean, std   three numbers each, by which pixels in [0, 1] are normalised; else ImageNet's
    size        S, where the network leaves it open
    output      the map's name, or its number, among several outputs; else the first
    range       [low, high], the values that stand for 0 and 1; or "logits"; else values count as they are, by a sigmoid
                in a picture where one leaves 0 to 1

Such a file is foreign: it is parsed and run by ONNX's own libraries, on the CPU, and no code of it is executed. Refused
before it is run: one that keeps any tensor in another file, wherever that lies (a path in a model may name any file of
this machine; a model of several files can be saved as one), and operators that onnxruntime does not have itself.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from coseglib.core.errors import CosegError, one_line
from coseglib.core.files import read_json
from coseglib.data.record import resize_image
from coseglib.models.backbones import Origin

PREFIX = "onnx:"  # before a file's name, where a checkpoint or a prior is named
KNOWN = ("mean", "std", "size", "output", "range")  # fields of FILE.json
TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}  # of the input
NEAR_0_OR_1 = 1e-3  # by which a probability may leave 0 to 1
SUREST = 0.5 / 255  # a probability is at least this far from 0 and 1: no more is known of a map of 8 bits


def is_onnx(name: str) -> bool:
    return str(name).startswith(PREFIX)


def logit(p: Tensor) -> Tensor:
    """ln(p / (1 − p)) of probabilities, at most 6.2 either way (`SUREST`)."""
    return p.clamp(SUREST, 1 - SUREST).logit()


@dataclass(frozen=True, eq=False)
class SaliencyNetwork:
    """name: "onnx:FILE"; sha256: of the file, and where FILE.json stands beside it of both, one after the other.

    size: S; settings: what FILE.json says.
    """

    name: str
    sha256: str
    size: int
    settings: Mapping[str, object]
    _session: object = field(repr=False)
    _output: str = field(repr=False)

    def maps(self, images: Tensor) -> Tensor:
        """images (N, 3, H, W) in [0, 1] -> probabilities (N, h, w) in [0, 1], float32 on the CPU, one after another.

        Images of another size than S² are brought to it, bilinear with antialiasing. Raises CosegError for what is no
        map, or is not finite.
        """
        if images.shape[-2:] != (self.size, self.size):
            images = F.interpolate(images, size=(self.size, self.size), mode="bilinear", antialias=True)
        usual = {"mean": Origin().mean, "std": Origin().std} | dict(self.settings)
        mean, std = (torch.tensor(usual[key], dtype=torch.float32)[:, None, None] for key in ("mean", "std"))
        return torch.stack([self._map(((image.cpu() - mean) / std)[None]) for image in images])

    def map_of(self, pixels: Tensor) -> Tensor:
        """pixels uint8 (3, H, W) -> probabilities (h, w), see `maps`."""
        return self.maps(resize_image(pixels, (self.size, self.size))[None].float() / 255)[0]

    def _map(self, x: Tensor) -> Tensor:
        (wanted,) = self._session.get_inputs()
        try:
            (found,) = self._session.run([self._output], {wanted.name: x.numpy().astype(TYPES[wanted.type])})
        except Exception as fault:  # onnxruntime has a class of its own for every code
            raise CosegError(f"{self.name}: cannot be run ({one_line(str(fault), 200)}); give another file") from fault
        if not isinstance(found, np.ndarray) or found.ndim < 2 or found.size != np.prod(found.shape[-2:]):
            shape = getattr(found, "shape", type(found).__name__)
            raise CosegError(f'{self.name}: output {self._output} is {shape}, no single map; name another as "output"')
        p = torch.from_numpy(found.reshape(found.shape[-2:]).astype(np.float32))
        if not p.isfinite().all():
            raise CosegError(f"{self.name}: output {self._output} is not finite; give another file")
        scale = self.settings.get("range")
        if isinstance(scale, list):
            return ((p - scale[0]) / (scale[1] - scale[0])).clamp(0, 1)
        if scale == "logits" or p.min() < -NEAR_0_OR_1 or p.max() > 1 + NEAR_0_OR_1:
            return p.sigmoid()
        return p.clamp(0, 1)


def read_network(name: str) -> SaliencyNetwork:
    """ "onnx:FILE" -> the network. Raises CosegError for what is missing, refused (see above) or no such network."""
    file = Path(name.removeprefix(PREFIX)).expanduser()
    onnx, runtime = _libraries(name)
    try:
        content = file.read_bytes()
    except OSError as fault:
        raise CosegError(f"{name}: {fault.strerror or fault}; check the name") from fault
    beside = file.with_suffix(".json")
    settings, digest = {}, hashlib.sha256(content)
    if beside.is_file():
        settings = _checked(read_json(beside, "mend it, or take it away"), beside)
        digest.update(beside.read_bytes())
    _refuse_other_files(onnx, content, name)
    session = _session(runtime, content, name)
    size, output = _size(session, settings, name, beside), _output(session, settings, name, beside)
    return SaliencyNetwork(f"{PREFIX}{file}", digest.hexdigest(), size, settings, session, output)


def _libraries(name: str):
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        lacking = f"{error.name or 'onnxruntime'} is not installed"
        raise CosegError(f"{name}: {lacking}; pip install onnxruntime onnx") from error
    return onnx, onnxruntime


def _checked(settings: dict, file: Path) -> dict:
    """FILE.json's fields, each of its kind."""

    def numbers(value: object, count: int) -> bool:
        plain = isinstance(value, list) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in value)
        return plain and len(value) == count and all(np.isfinite(value))

    fits = {
        "mean": lambda v: numbers(v, 3),
        "std": lambda v: numbers(v, 3) and all(s > 0 for s in v),
        "size": lambda v: numbers([v], 1) and v == int(v) and v > 0,
        "output": lambda v: isinstance(v, str) or (numbers([v], 1) and v == int(v) and v >= 0),
        "range": lambda v: v == "logits" or (numbers(v, 2) and v[0] < v[1]),
    }
    for key, value in settings.items():
        if key not in fits:
            raise CosegError(f"{file}: {key}: no such field; one of {', '.join(KNOWN)}")
        if not fits[key](value):
            raise CosegError(f"{file}: {key} = {json.dumps(value)[:80]}: not what this field holds, see the README")
    return settings


def _refuse_other_files(onnx, content: bytes, name: str) -> None:
    """CosegError where any tensor, however deep in the graph, says that it lies in another file."""
    from google.protobuf.message import Message

    try:
        waiting: list = [onnx.load_model_from_string(content)]
    except Exception as fault:  # protobuf's own class
        raise CosegError(f"{name}: no ONNX model ({one_line(str(fault), 100)}); give another file") from fault
    while waiting:
        message = waiting.pop()
        if isinstance(message, onnx.TensorProto) and (message.external_data or message.data_location):
            where = next((one.value for one in message.external_data if one.key == "location"), "another file")
            why = (
                f"keeps tensor {message.name[:60]} in {one_line(where, 80)}, and other files are not opened for a model"
            )
            raise CosegError(f"{name}: {why}; save it as one file (onnx.save_model, save_as_external_data=False)")
        for about, value in message.ListFields():
            if about.message_type is not None:
                waiting += [value] if isinstance(value, Message) else list(value)


def _session(runtime, content: bytes, name: str):
    """From the very bytes that were checked: so it has no folder, either, in which other files could be found."""
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # errors are exceptions, too
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.load_model_format", "ONNX")
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as fault:  # a class of its own for every code
        raise CosegError(f"{name}: cannot be loaded ({one_line(str(fault), 200)}); give another file") from fault


def _size(session, settings: dict, name: str, beside: Path) -> int:
    """S. Raises CosegError for a network that takes something else than one square picture."""
    inputs = session.get_inputs()
    shape = inputs[0].shape if len(inputs) == 1 else []
    open_or = [not isinstance(n, int) or n == wanted for n, wanted in zip(shape, (1, 3), strict=False)]
    sides = {n for n in shape[2:] if isinstance(n, int)}
    if len(shape) != 4 or not all(open_or) or inputs[0].type not in TYPES or len(sides) > 1:
        takes = "; ".join(f"{one.name} {one.type} {one.shape}" for one in inputs)
        raise CosegError(f"{name}: takes {takes}, not one picture 1 × 3 × S × S of floats; give another file")
    size = settings.get("size")
    if not sides and size is None:
        raise CosegError(f'{name}: leaves the size of its input open; say "size" in {beside}')
    if sides and size is not None and size not in sides:
        raise CosegError(f"{beside}: size = {size}, but the network takes {sides.pop()}; leave it out")
    return int(size if size is not None else sides.pop())


def _output(session, settings: dict, name: str, beside: Path) -> str:
    names, wanted = [one.name for one in session.get_outputs()], settings.get("output", 0)
    if wanted in names:
        return wanted
    if isinstance(wanted, str) or wanted >= len(names):
        raise CosegError(f"{beside}: output = {wanted}: {name} has no such output; one of {', '.join(names)}")
    return names[int(wanted)]
