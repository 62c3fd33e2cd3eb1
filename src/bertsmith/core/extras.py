"""The optional packages: which extra brings which, and one way to ask for them."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from bertsmith.core.errors import ConfigError

# extra -> distribution -> module to import
EXTRAS: dict[str, dict[str, str]] = {
    "fast": {"tokie": "tokie", "rjieba": "rjieba", "zstandard": "zstandard"},
    "clean": {"py3langid": "py3langid", "opencc": "opencc"},
    "web": {
        "trafilatura": "trafilatura",
        "lxml-html-clean": "lxml_html_clean",
        "mwparserfromhell": "mwparserfromhell",
        "markdown-it-py": "markdown_it",
    },
    "office": {"pypdf": "pypdf", "python-docx": "docx"},
    "parquet": {"pyarrow": "pyarrow"},
    "remote": {"fsspec": "fsspec", "aiohttp": "aiohttp", "s3fs": "s3fs"},
    "search": {"optuna": "optuna"},
    "onnx": {"onnxruntime": "onnxruntime", "onnx": "onnx"},
    "serve": {
        "fastapi": "fastapi",
        "uvicorn": "uvicorn",
        "prometheus-client": "prometheus_client",
        "httpx": "httpx",
        "onnxruntime": "onnxruntime",
        "onnx": "onnx",
    },
    "otel": {
        "opentelemetry-sdk": "opentelemetry.sdk",
        "opentelemetry-exporter-otlp-proto-http": "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    },
    "track": {"tensorboard": "tensorboard", "wandb": "wandb"},
    "ray": {"ray[serve]": "ray"},
    "hf": {"transformers": "transformers", "datasets": "datasets", "huggingface-hub": "huggingface_hub"},
}


def present(module: str) -> bool:
    """Whether `module` is installed; imports no more of it than the packages that it lies in."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def install_command(extra: str) -> str:
    """The command that installs an extra into the Python that is running.

    Args:
        extra: a key of `EXTRAS`.
    """
    python = Path(sys.executable)
    if python.is_relative_to(Path.cwd()):
        python = python.relative_to(Path.cwd())
    return f"{python} -m pip install 'bertsmith[{extra}]'"


def require(module: str, purpose: str) -> ModuleType:
    """Import an optional package, or say which extra brings it.

    Args:
        module: a module named in `EXTRAS`, such as `zstandard`.
        purpose: what needs it, as the start of a sentence: `reading corpus.txt.zst`.

    Returns:
        The imported module.

    Raises:
        ConfigError: it is not installed; names the command that installs it.
    """
    if not present(module):
        extra = next(name for name, packages in EXTRAS.items() if module in packages.values())
        raise ConfigError(f"{purpose} needs the package {module}, which is not installed: {install_command(extra)}")
    return import_module(module)
