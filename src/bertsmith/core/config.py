"""Config: frozen, validated values that say how, and the one loader: preset < TOML file < --set < typed options."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_serializer, model_validator
from pydantic.fields import FieldInfo

from bertsmith.core.errors import ConfigError

ELSEWHERE = {
    "learning_rate": "lr",
    "num_train_epochs": "epochs",
    "max_steps": "steps",
    "warmup_steps": "warmup",
    "lr_scheduler_type": "schedule",
    "per_device_train_batch_size": "batch_size",
    "gradient_accumulation_steps": "accumulation",
    "gradient_checkpointing": "checkpoint_activations",
    "max_seq_length": "max_length",
    "mlm_probability": "mask_rate",
    "optim": "name",
    "save_steps": "checkpoint_every",
    "save_total_limit": "keep_last",
    "r": "rank",
    "lora_alpha": "alpha",
    "label_smoothing_factor": "label_smoothing",
}
"""What settings are called in transformers' TrainingArguments and example scripts, and in peft; and here."""
COUNT_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9}
MOST = 2**53  # above it, not every whole number is a float
SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


class Config(BaseModel):
    """A frozen, validated value that says how; it lives beside the code that it configures.

    A field that may be None has None as its default: TOML has no null, so a saved config leaves None out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


C = TypeVar("C", bound=Config)


def parse_count(value: Any) -> Any:
    """Read a count as people write it: `32k`, `50M`, `1.5M`, `2_000`.

    Args:
        value: text to read; anything that is not text is passed on unchanged.

    Returns:
        A whole number.

    Raises:
        ValueError: the text is no count.
    """
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"\s*([0-9][0-9_]*(?:\.[0-9]+)?)\s*([kmgb]?)\s*", value, re.IGNORECASE)
    number = Decimal(found[1]) * COUNT_UNITS[found[2].lower()] if found else Decimal("0.5")
    if number != number.to_integral_value():
        raise ValueError(f"'{value}' is not a count; write it like 32000, 32k or 1.5M")
    return int(number)


def parse_duration(value: Any) -> Any:
    """Read a time span as people write it: `90s`, `30m`, `2h`, `1h30m`; a bare number means seconds.

    Args:
        value: text to read; anything that is not text is passed on unchanged.

    Returns:
        Seconds.

    Raises:
        ValueError: the text is no time span.
    """
    if not isinstance(value, str):
        return value
    part = r"([0-9]+(?:\.[0-9]+)?)\s*(d|h|min|m|s|)"
    text = value.strip().lower()
    if not re.fullmatch(rf"(?:{part}\s*)+", text):
        raise ValueError(f"'{value}' is not a time span; write it like 90s, 30m, 2h or 1h30m")
    return sum(float(number) * SECONDS[unit] for number, unit in re.findall(part, text))


Count = Annotated[int, Field(le=MOST), BeforeValidator(parse_count)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Duration = Annotated[float, BeforeValidator(parse_duration)]


class Cadence(BaseModel):
    """How often: every so many seconds (`10m`) or every so many steps (`500steps`). Exactly one of the two is set."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    seconds: float | None = None
    steps: int | None = None

    @model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        if isinstance(value, str):
            if found := re.fullmatch(r"\s*(.*?)\s*steps?\s*", value):
                return {"steps": parse_count(found[1])}
            return {"seconds": parse_duration(value)}
        if isinstance(value, int | float) and not isinstance(value, bool):
            return {"seconds": value}
        return value

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.seconds is None) == (self.steps is None) or (self.seconds or self.steps or 0) <= 0:
            raise ValueError("write it like 10m or 500steps, more than zero")
        return self

    @model_serializer
    def _write(self) -> str:
        if self.steps is not None:
            return f"{self.steps}steps"
        seconds = self.seconds or 0.0
        return f"{seconds / 60:g}m" if seconds % 60 == 0 else f"{seconds!r}s"

    def __str__(self) -> str:
        return self._write()

    def due(self, steps: int, seconds: float) -> bool:
        """Whether it is time again, `steps` and `seconds` after the last time."""
        return steps >= self.steps if self.steps is not None else seconds >= (self.seconds or 0.0)


def fields(cls: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """List every setting of a config, nested ones by their dotted name, in the order of declaration.

    Args:
        cls: the config class.
        prefix: put before each name.

    Yields:
        Dotted name and field; a nested config is listed by its settings, not itself.
    """
    for name, field in cls.model_fields.items():
        inner = _nested(field)
        if inner is None:
            yield prefix + name, field
        else:
            yield from fields(inner, f"{prefix}{name}.")


def _nested(field: FieldInfo) -> type[Config] | None:
    if get_origin(field.annotation) is tuple:
        return None
    for kind in (field.annotation, *get_args(field.annotation)):
        if isinstance(kind, type) and issubclass(kind, Config):
            return kind
    return None


def load(
    cls: type[C],
    *,
    base: Mapping[str, Any] | None = None,
    preset: Mapping[str, Any] | None = None,
    file: Path | None = None,
    sets: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
) -> C:
    """Build a config from its layers; a later layer wins: base < preset < file < sets < options.

    Args:
        cls: the config class.
        base: values to start from, nested, such as those saved in a run.
        preset: the values of a named preset, nested.
        file: a TOML file.
        sets: `a.b=value` as given to `--set`; the value is read as TOML, or else taken as text.
        options: what was typed as an option of its own, by dotted key; None means not typed.

    Returns:
        The validated config.

    Raises:
        ConfigError: a key is unknown (the nearest right one is suggested) or a value does not fit; names key and place.
    """
    inner = {key for name, _ in fields(cls) for key in _parents(name.rpartition(".")[0])}
    data, origin = _layered(base, preset, file, sets, options, inner)
    try:
        return cls.model_validate(data)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(cls, issue, data, origin) for issue in error.errors())) from None


def layered(
    *, base: Mapping[str, Any] | None = None, file: Path | None = None, sets: Sequence[str] = ()
) -> dict[str, Any]:
    """The values of the layers as `load` takes them, not validated: for a config whose class depends on some of them.

    Args:
        base: as for `load`.
        file: as for `load`.
        sets: as for `load`.

    Raises:
        ConfigError: a file or a `--set` that cannot be read.
    """
    return _layered(base, None, file, sets, None)[0]


def to_toml(config: Config) -> str:
    """Write a config as TOML that `load` reads back to an equal config; None is left out.

    Args:
        config: the config to write.
    """
    return "\n".join(_table(config.model_dump(), ())).strip() + "\n"


def _layered(
    base: Mapping[str, Any] | None,
    preset: Mapping[str, Any] | None,
    file: Path | None,
    sets: Sequence[str],
    options: Mapping[str, Any] | None,
    inner: Collection[str] = (),
) -> tuple[dict[str, Any], dict[str, str]]:
    """All values, nested, and by dotted key where each comes from; a section holds settings and is no value itself."""
    data, origin = dict[str, Any](), dict[str, str]()
    _merge(data, origin, inner, base or {}, lambda key: "the saved settings")
    _merge(data, origin, inner, preset or {}, lambda key: "the preset")
    if file is not None:
        text = _read(file)
        _merge(data, origin, inner, _toml(text, file), lambda key: f"{file}:{_line(text, key)}")
    for item in sets:
        key, equals, value = item.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set {item}: write it as key=value, such as --set train.lr=2e-3")
        _merge(data, origin, inner, _nest(key.strip(), _scalar(value.strip())), lambda key, item=item: f"--set {item}")
    for key, value in (options or {}).items():
        if value is not None:
            flag = "--" + key.rpartition(".")[2].replace("_", "-")
            _merge(data, origin, inner, _nest(key, value), lambda key, flag=flag: flag)
    return data, origin


def _table(values: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    tables = {key: value for key, value in values.items() if isinstance(value, Mapping)}
    plain = {key: value for key, value in values.items() if key not in tables and value is not None}
    if path and (plain or not tables):
        yield f"\n[{'.'.join(map(_key, path))}]"
    for key, value in plain.items():
        yield f"{_key(key)} = {_value(value)}"
    for key, value in tables.items():
        yield from _table(value, (*path, key))


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _value(key)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(item) for item in value)}]"
    if isinstance(value, Mapping):
        given = {key: item for key, item in value.items() if item is not None}
        return "{" + ", ".join(f"{_key(key)} = {_value(item)}" for key, item in given.items()) + "}"
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{file}: cannot read this config file ({error.strerror}); check the path") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: not a UTF-8 text file; --config takes a TOML file") from None


def _toml(text: str, file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: not valid TOML: {error}; mend the file") from None


def _scalar(text: str) -> Any:
    try:
        value = tomllib.loads(f"value = {text}")["value"] if "\n" not in text else text
    except tomllib.TOMLDecodeError:
        return text
    return value if isinstance(value, bool | int | float | str | list | dict) else text


def _nest(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return dict(value)


def _merge(
    into: dict[str, Any], origin: dict[str, str], inner: Collection[str], layer: Mapping[str, Any], place: Any,
    prefix: str = "",
) -> None:  # fmt: skip
    for key, value in layer.items():
        dotted = prefix + key
        if isinstance(value, Mapping):
            old = into.get(key)
            into[key] = dict(old) if isinstance(old, Mapping) else {}
            origin[dotted] = place(dotted)
            _merge(into[key], origin, inner, value, place, dotted + ".")
        elif dotted in inner:
            raise ConfigError(f"{place(dotted)}: '{dotted}' is a section, not a setting; write {dotted}.NAME=…")
        else:
            into[key], origin[dotted] = value, place(dotted)


def _line(text: str, dotted: str) -> int:
    """The line of a TOML text that sets a dotted key, or opens its table; 1 when written in some unusual way."""
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        if found := re.match(r"\s*\[+\s*([^\]]+?)\s*\]", line):
            table = found[1].replace('"', "")
            name = table
        elif found := re.match(r"\s*([\w.\"-]+)\s*=", line):
            name = f"{table}.{found[1]}".strip(".").replace('"', "")
        else:
            continue
        if name == dotted:
            return number
    return 1


def _explain(cls: type[Config], issue: Any, data: Mapping[str, Any], origin: Mapping[str, str]) -> str:
    """One validation error as a sentence: which key, from where, what is wrong, what to do."""
    path: list[str] = []
    node: Any = data
    for part in issue["loc"]:  # pydantic appends names of union members, which are not keys
        if isinstance(node, Mapping) and part in node:
            node = node[part]
        elif isinstance(node, list) and isinstance(part, int):
            node = node[part]
            path[-1] += f"[{part}]"
            continue
        elif not (issue["type"] == "missing" and part == issue["loc"][-1]):
            break
        path.append(str(part))
    dotted = ".".join(path)
    place = next((origin[key] for key in _parents(re.sub(r"\[\d+\]", "", dotted)) if key in origin), "")
    where = f"{place}: " if place else ""
    if issue["type"] == "extra_forbidden":
        inside = next((key for key in origin if key.startswith(dotted + ".") and not _is_table(data, key)), dotted)
        return f"{where}unknown setting '{inside}'; {_suggest(cls, inside)}"
    if issue["type"] == "missing":
        return f"{where}setting '{dotted}' is needed; give it with --set {dotted}=… or in --config"
    message = issue["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:] if not message.startswith("'") else message
    if not dotted:
        return f"{where}{message}"
    given = f" (it is {json.dumps(node, ensure_ascii=False, default=str)})" if not isinstance(node, Mapping) else ""
    return f"{where}setting '{dotted}': {message}{given}"


def _is_table(data: Any, dotted: str) -> bool:
    for part in dotted.split("."):
        data = data[part]
    return isinstance(data, Mapping)


def _parents(dotted: str) -> Iterator[str]:
    while dotted:
        yield dotted
        dotted = dotted.rpartition(".")[0]


def _suggest(cls: type[Config], dotted: str) -> str:
    known = [name for name, _ in fields(cls)]
    if found := re.fullmatch(r"((.+)\[\d+\])\.\w+", dotted):  # a table in a list
        item = get_args(dict(fields(cls))[found[2]].annotation)[0]
        known = [name for name, _ in fields(item, f"{found[1]}.")]
    place, _, last = dotted.rpartition(".")
    section = [name for name in known if name.startswith(place + ".")] or known
    words = {old: new for old, new in ELSEWHERE.items() if any(name.rpartition(".")[2] == new for name in known)}
    words |= {word: word for word in (name.rpartition(".")[2] for name in section)}
    for meant in (ELSEWHERE.get(last, last), *(words[word] for word in difflib.get_close_matches(last, words, n=1))):
        for name in (*section, *known):
            if name.rpartition(".")[2] == meant:
                return f"did you mean '{name}'?"
    return f"the settings here are {', '.join(section)}"
