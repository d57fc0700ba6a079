"""Configurations: typed fields that refuse what makes no sense in one line, and the YAML files that set them.

class Quick(Config):
    steps: Count = 10
Quick(steps="1e3").steps    # 1000
Quick(steps=0)              # CosegError: steps = 0: must be 1 or more
"""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, Self, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from coseglib.core.errors import CosegError

SHARED = "all"  # a profile's section for every method
Count, Natural = Annotated[int, Field(ge=1)], Annotated[int, Field(ge=0)]
Weight = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Side = Annotated[int, Field(ge=32, multiple_of=32)]  # pixels of a network's square
Seed = Annotated[int, Field(ge=0, lt=2**32)]

ALLOWED = {  # pydantic's kinds of error in our words; its own stand for the others
    "greater_than_equal": "must be {ge} or more",
    "greater_than": "must be above {gt}",
    "less_than_equal": "must be {le} or less",
    "less_than": "must be below {lt}",
    "multiple_of": "must be a multiple of {multiple_of}",
    "literal_error": "one of {expected}",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "dict_type": "must be names with values",
}


class Config(BaseModel):
    """Base of all configurations: frozen, every value checked, no unknown field. Text is read as YAML is.

    Raises CosegError in one line: field = value: what is allowed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False, strict=True)
    __str__ = BaseModel.__repr__  # as the call that makes it

    def __init__(self, **fields: Any):
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise CosegError(self._told(error.errors()[0], fields)) from error

    @field_validator("*", mode="before")
    @classmethod
    def _as_its_type(cls, value: Any, info) -> Any:
        return _read_as(cls.model_fields[info.field_name].annotation, value, f"{info.field_name} = {value}")

    @classmethod
    def _told(cls, fault: dict, given: Mapping) -> str:
        name, kind, context = fault["loc"][0], fault["type"], fault.get("ctx", {})
        if kind == "extra_forbidden":
            return f"{name}: no such field; one of {', '.join(cls.model_fields)}"
        if kind == "missing" and name not in given:
            return f"{name}: is missing; set it"
        if kind in ("missing", "too_short", "too_long"):  # of a tuple
            allowed = f"must hold {len(get_args(cls.model_fields[name].annotation))} values"
        elif kind == "value_error":
            allowed = str(context["error"])
        elif kind in ALLOWED:
            told = {k: f"{v:g}" if isinstance(v, float) else v for k, v in context.items()}
            if kind == "literal_error":
                told["expected"] = context["expected"].replace("'", "").replace(" or ", ", ")
            allowed = ALLOWED[kind].format(**told)
        else:
            allowed = fault["msg"].replace("Input should be", "must be")
        return f"{name} = {given.get(name, fault['input'])}: {allowed}"

    def replaced(self, **fields: Any) -> Self:
        """The same with some fields set anew, and checked (`model_copy` checks nothing)."""
        return type(self)(**{**dict(self), **fields})

    def fields(self) -> dict[str, Any]:
        """All fields as YAML and JSON give them back: lists for tuples."""
        return self.model_dump(mode="json")


def _read_as(kind: Any, value: Any, where: str) -> Any:
    """Text as YAML reads it, 1e3 as a whole number, lists and single values as tuples; checking is pydantic's."""
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    origin, parts = get_origin(kind), get_args(kind)
    if isinstance(value, str) and kind is not str and origin is not Literal:
        if value.strip().lower() == "none" and NoneType in parts:
            return None
        value = read_text(f"[{value}]" if origin is tuple and not value.strip().startswith("[") else value, where)
    if origin is tuple:
        return tuple(_read_as(parts[0], v, where) for v in (value if isinstance(value, list | tuple) else [value]))
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


class _Loader(yaml.SafeLoader):
    """YAML with 1e-4 a number and 012 twelve, as everyone expects; a key that stands twice is a fault."""

    def construct_yaml_int(self, node):
        return int(node.value) if re.fullmatch(r"[-+]?\d+", node.value) else super().construct_yaml_int(node)

    def construct_mapping(self, node, deep=False):
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise yaml.constructor.ConstructorError(problem=f"{twice} stands there twice; keep one of them")
        return super().construct_mapping(node, deep)


_INT, _FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
_Loader.add_implicit_resolver(_FLOAT, re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789"))
_Loader.add_implicit_resolver(_INT, re.compile(r"[-+]?0\d+$"), list("-+0"))
_Loader.add_constructor(_INT, _Loader.construct_yaml_int)


def read_text(text: str, where: str | Path) -> Any:
    """What YAML text says. where: the file or field, for the error."""
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError) as error:
        why = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise CosegError(f"{where}: not the YAML of a configuration ({why}); mend it") from error


def read_yaml(file: str | Path) -> dict[str, Any]:
    """A file's mapping. Raises CosegError for a file that cannot be read, holds something else, or a key twice."""
    try:
        found = read_text(Path(file).read_text(encoding="utf-8"), file)
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise CosegError(f"{file}: cannot be read ({why}); give another") from error
    if not isinstance(found, dict) or not found:
        raise CosegError(f"{file}: holds no fields of a configuration; give a profile, or a run's config.yaml")
    return found


def profile_fields(
    profile: str | Path,
    folder: Path,
    config: type[Config],
    methods: Collection[str],
    method: str,
    of_runs: Collection[str] = ("method",),
) -> dict[str, Any]:
    """{name: value} of a profile for one method: its top's, over them section `all`'s, over them the method's own.

    profile  a YAML file of one's own, such as a run's config.yaml, which has no sections; or a name in `folder`
    method   "": what the file says for all, whatever that is
    of_runs  what a run's config.yaml may hold besides the fields of `config`
    A section is named by one of `methods` or several ("ca fca csa").
    Raises CosegError for an unknown profile, section or field, one of another method or with nothing for this one, and
    as `read_yaml` does.
    """
    file = Path(profile) if str(profile).endswith((".yaml", ".yml")) else folder / f"{profile}.yaml"
    if not file.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.yaml")))
        raise CosegError(f"{profile}: no such profile; one of {known}, or a YAML file")
    fields, sections = {}, {}
    for name, value in read_yaml(file).items():
        named = set(str(name).split())
        if named and named <= {SHARED, *methods}:
            if not isinstance(value, dict | None):
                raise CosegError(f"{file}: section {name} = {value}: must hold fields, a line each")
            sections[name] = value or {}
        elif name not in config.model_fields and isinstance(value, dict | None):
            raise CosegError(f"{file}: {name}: no such section of a profile; one of {', '.join([SHARED, *methods])}")
        else:
            fields[name] = value
    for wanted in (SHARED, method):
        for name, section in sections.items():
            fields |= section if wanted in name.split() else {}
    if not method:
        return fields
    if not fields:
        raise CosegError(f"{file}: holds nothing for {method}; add a section of that name, or name another --method")
    if (of := fields.get("method", method)) != method:
        raise CosegError(f"{file}: is of method {of}, not {method}; name that one, or another file")
    for name in fields:
        if name not in config.model_fields and not ("method" in fields and name in of_runs):
            raise CosegError(f"{file}: {name}: no such field; one of {', '.join(config.model_fields)}")
    return {name: value for name, value in fields.items() if name in config.model_fields}
