"""Write docs/reference/{en,zh} from the code: every command's help and every setting. `make docs` runs it."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import Field, create_model
from pydantic_core import PydanticUndefined

from bertsmith.cli.main import COMMANDS
from bertsmith.compress.distil import StudentConfig
from bertsmith.compress.prune import PruneConfig
from bertsmith.compress.quantize import QuantizeConfig
from bertsmith.compress.teach import TeachConfig, TextTeachConfig
from bertsmith.core.config import Config, fields
from bertsmith.serve.loadtest import LoadConfig
from bertsmith.serve.ray import ReplicaConfig
from bertsmith.serve.service import ServeConfig
from bertsmith.tasks.preparation import PrepareConfig
from bertsmith.train.finetune import config_class
from bertsmith.train.multi import Section, TurnsConfig
from bertsmith.train.pretrain import PretrainConfig


def only(**sections: type[Config]) -> type[Config]:
    """A config of some sections.

    Args:
        sections: their classes by name.
    """
    made: dict[str, Any] = {name: (kind, Field(default_factory=kind)) for name, kind in sections.items()}
    return create_model("Only", __base__=Config, **made)


ROOT = Path(__file__).resolve().parents[1]
TRANSLATIONS = ROOT / "docs" / "reference" / "zh.toml"  # a table a class, a description a setting
SETTINGS: dict[str, type[Config]] = {
    "corpus prepare": PrepareConfig,
    "pretrain": PretrainConfig,
    "finetune classify": config_class("classify"),
    "finetune match": config_class("match"),
    "finetune tag": config_class("tag"),
    "finetune relate": config_class("relate"),
    "finetune answer": config_class("answer"),
    "serve": ServeConfig,
    "serve on Ray, beside those of serve": ReplicaConfig,
    "loadtest": LoadConfig,
    "finetune choose": config_class("choose"),
    "finetune generate": config_class("generate"),
    "finetune multi, beside those of finetune": only(tasks=only(NAME=Section), train=TurnsConfig),
    "compress prune, beside those of finetune": only(prune=PruneConfig, distil=TeachConfig),
    "compress distil, beside those of finetune": only(student=StudentConfig, distil=TeachConfig),
    "compress distil on text, beside those of pretrain": only(student=StudentConfig, distil=TextTeachConfig),
    "compress quantize": QuantizeConfig,
}
WORDS = {
    "en": {
        "commands": "Commands",
        "settings": "Settings",
        "made": "Written from the code by `make docs`; do not edit.",
        "how": "Give a setting with `--set key=value` or in a TOML file with `--config`.",
        "row": "| setting | default | what it says |",
    },
    "zh": {
        "commands": "命令",
        "settings": "设置",
        "made": "由 `make docs` 根据代码生成，请勿手工修改。",
        "how": "用 `--set 键=值` 给出一项设置，或用 `--config` 指定 TOML 文件。",
        "row": "| 设置 | 默认值 | 含义 |",
    },
}


def commands(language: str) -> str:
    """The page of all commands.

    Args:
        language: `en` or `zh`; the help itself is English in both.
    """
    parts = [f"# {WORDS[language]['commands']}", WORDS[language]["made"]]
    for verb in ("", *COMMANDS):
        argv = [sys.executable, "-m", "bertsmith.cli.main", *verb.split(), "--help"]
        plain = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}
        shown = subprocess.run(argv, capture_output=True, text=True, check=True, env=plain)
        lines = "\n".join(line.rstrip() for line in shown.stdout.strip().splitlines())
        parts.append(f"## {('bertsmith ' + verb).strip()}\n\n```text\n{lines}\n```")
    return "\n\n".join(parts) + "\n"


def settings(language: str, translations: Mapping[str, Mapping[str, str]]) -> str:
    """The page of all settings.

    Args:
        language: `en` or `zh`.
        translations: descriptions by class and setting, for `zh`; what is not in there stays English.
    """
    words = WORDS[language]
    parts = [f"# {words['settings']}", f"{words['made']} {words['how']}"]
    for verb, config in SETTINGS.items():
        rows = [words["row"], "| --- | --- | --- |"]
        for key, field in fields(config):
            described = translations.get(owner(config, key), {}).get(key.rpartition(".")[2]) or field.description or ""
            default = "" if field.default is PydanticUndefined or field.default is None else show(field.default)
            rows.append(f"| `{key}` | {default} | {described.replace('|', '&#124;')} |")
        parts += [f"## {verb}", "\n".join(rows)]
    return "\n\n".join(parts) + "\n"


def owner(config: type[Config], key: str) -> str:
    """The class that declares a setting.

    Args:
        config: the outermost class.
        key: the setting's dotted name.
    """
    for part in key.split(".")[:-1]:
        annotation = config.model_fields[part].annotation
        kinds = (annotation, *get_args(annotation))
        config = next(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Config))
    return config.__name__


def show(value: Any) -> str:
    """A default as a reader would write it.

    Args:
        value: the default.
    """
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"`{text}`" if text else ""


def pages() -> dict[Path, str]:
    """All pages of the reference by their path."""
    translations = tomllib.loads(TRANSLATIONS.read_text(encoding="utf-8")) if TRANSLATIONS.exists() else {}
    folder = ROOT / "docs" / "reference"
    made = {}
    for language in WORDS:
        made[folder / language / "commands.md"] = commands(language)
        made[folder / language / "settings.md"] = settings(language, translations if language == "zh" else {})
    return made


def main() -> int:
    """Write the pages; with --check only say which are not as the code has it, and end with 1 when there are any."""
    made = pages()
    stale = [path for path, text in made.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if "--check" in sys.argv[1:]:
        for path in stale:
            print(f"{path.relative_to(ROOT)}: not what the code says; run make docs")
        return 1 if stale else 0
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(made[path], encoding="utf-8")
    print(f"{len(stale)} of {len(made)} pages below docs/reference written anew")
    return 0


if __name__ == "__main__":
    sys.exit(main())
