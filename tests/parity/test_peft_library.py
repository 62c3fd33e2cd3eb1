"""The peft library opens our bundles, and we open its folders: the same logits, in fp32, on a model of transformers.

The differences are printed: `pytest -rP` shows them.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from bertsmith.cli.main import build
from bertsmith.core.bundle import Bundle
from bertsmith.core.errors import BundleError
from bertsmith.model.config import Heads, ModelConfig
from bertsmith.model.convert import load_model, save_model
from bertsmith.model.heads import Model
from bertsmith.model.packing import Encoding, pack
from bertsmith.peft.base import insert, small_part
from bertsmith.peft.bundle import Base, adopt_adapter, load_tuned, merged, save_tuned
from bertsmith.peft.config import PeftConfig
from bertsmith.tokenizer.load import Tokenizer

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

# The library asks transformers for something that transformers no longer likes.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")

TOLERANCE = 1e-5
LENGTHS = (3, 40, 17, 17, 9)
HEADS = {"SequenceClassification": Heads(classify=3), "TokenClassification": Heads(tag=5)}
CONFIGS = {
    "lora": PeftConfig(method="lora", rank=4, alpha=8),
    "lora-all": PeftConfig(method="lora", rank=3, targets=("query", "key", "value", "out", "up", "down")),
    "lora-down": PeftConfig(method="lora", rank=3, targets=("down",)),
    "adalora": PeftConfig(method="adalora", rank=3, start_rank=5),
    "prefix": PeftConfig(method="prefix", length=6),
}
SHAPE = ModelConfig(
    vocab_size=130,
    hidden_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=96,
    max_position_embeddings=64,
    initializer_range=0.1,
)
MODERN = ModelConfig(
    architecture="modernbert",
    vocab_size=130,
    hidden_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=64,
    max_position_embeddings=64,
    initializer_range=0.1,
    local_attention=12,
)


@pytest.fixture(scope="module")
def encodings() -> list[Encoding]:
    draw = np.random.default_rng(7)
    return [
        Encoding(draw.integers(5, 130, n, dtype=np.int32), (np.arange(n) > n // 2).astype(np.int32)) for n in LENGTHS
    ]


def stir(parameters: Any, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)


def base_of(folder: Path, shape: ModelConfig, tokenizer: Tokenizer) -> Bundle:
    """A pretrained model with a pooler, off its starting values."""
    model = Model(shape, Heads(mlm=True, nsp=not shape.modern), seed=1)
    stir(model.parameters(), 2)
    return save_model(folder / "base", model, tokenizer.files(), {"task": "pretraining"})


def our_logits(model: Model, encodings: list[Encoding]) -> Tensor:
    with torch.inference_mode():
        (found,) = model.eval()(pack(encodings)).values()
    return found  # type: ignore[no-any-return]


def their_logits(model: Any, encodings: list[Encoding]) -> Tensor:
    longest = max(map(len, encodings))

    def padded(rows: list[Any]) -> Tensor:
        return torch.tensor(np.stack([np.pad(row, (0, longest - len(row))) for row in rows]), dtype=torch.long)

    mask = padded([np.ones(len(e)) for e in encodings])
    inputs = {"input_ids": padded([e.input_ids for e in encodings]), "attention_mask": mask}
    if model.config.model_type == "bert":
        inputs["token_type_ids"] = padded([e.segment_ids for e in encodings])
    with torch.inference_mode():
        logits: Tensor = model.eval()(**inputs).logits
    return logits if logits.ndim == 2 else logits[mask.bool()]


def assert_same(ours: Tensor, theirs: Tensor, plain: Tensor) -> None:
    difference = (ours - theirs).abs().max().item()
    print(f"largest difference: {difference:.2g}; of the base alone: {(plain - theirs).abs().max():.2g}")
    assert theirs.std() > 0.1, "logits too flat to prove anything"
    assert (plain - theirs).abs().max() > 1000 * TOLERANCE, "the small part does nothing"
    assert difference <= TOLERANCE


def shrunk(model: Model, name: str) -> None:
    """Different ranks in different matrices, one of them none, as AdaLoRA leaves them."""
    if name != "adalora":
        return
    from torch import nn

    from bertsmith.peft.lora import factors_of

    for number, (_, factors) in enumerate(factors_of(model)):
        kept = torch.arange(5) < number % 6
        factors.a, factors.b = nn.Parameter(factors.a[kept]), nn.Parameter(factors.b[:, kept])
        assert factors.e is not None
        factors.e = nn.Parameter(factors.e[kept])


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", CONFIGS)
def test_the_library_opens_our_bundle(
    name: str, head: str, encodings: list[Encoding], toy_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    base = base_of(tmp_path, SHAPE, toy_tokenizer)
    model = load_model(base, HEADS[head], seed=4)
    insert(model, CONFIGS[name], seed=5)
    stir(small_part(model).values(), 6)
    shrunk(model, name)
    labels = [f"L{i}" for i in range(HEADS[head].classify or HEADS[head].tag)]
    bundle = save_tuned(tmp_path / "bundle", model, CONFIGS[name], base, {"labels": labels})

    auto = getattr(transformers, f"AutoModelFor{head}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a head that the base does not have
        theirs = auto.from_pretrained(base.path, num_labels=len(labels), attn_implementation="eager")
        opened = peft.PeftModel.from_pretrained(theirs, bundle.path)

    ours, plain = our_logits(model, encodings), our_logits(load_model(base, HEADS[head], seed=4), encodings)
    assert_same(ours, their_logits(opened, encodings), plain)
    if name.startswith(("lora", "adalora")):
        whole = load_model(merged(bundle, tmp_path / "merged"))
        assert (our_logits(whole, encodings) - our_logits(model, encodings)).abs().max() <= TOLERANCE
    assert torch.equal(our_logits(load_tuned(bundle, Base.load(base)), encodings), ours)


def theirs_for(name: str, kind: str) -> Any:
    """The library's own config for a case, with its own way to name matrices."""
    common = {"task_type": kind, "modules_to_save": ["classifier", "pooler"] if kind == "SEQ_CLS" else ["classifier"]}
    return {
        "lora": lambda: peft.LoraConfig(**common, r=4, lora_alpha=8, target_modules=["query", "value"]),
        "rslora": lambda: peft.LoraConfig(**common, r=4, lora_alpha=8, use_rslora=True, target_modules="all-linear"),
        "ranks": lambda: peft.LoraConfig(
            **common, r=4, lora_alpha=8, target_modules=["key", "intermediate.dense"], rank_pattern={"layer.1.*key": 2}
        ),
        "alphas": lambda: peft.LoraConfig(
            **common, r=4, target_modules=["query", "value"], alpha_pattern={"layer.1.*query": 40, "value": 3}
        ),
        "gaussian": lambda: peft.LoraConfig(**common, target_modules=["query"], init_lora_weights="gaussian"),
        "no-pooler": lambda: peft.LoraConfig(task_type=kind, r=2, target_modules=["attention.output.dense"]),
        "adalora": lambda: peft.AdaLoraConfig(
            **common,
            init_r=5,
            target_r=2,
            lora_alpha=6,
            total_step=8,
            tfinal=2,
            target_modules=["query", "output.dense"],
        ),
        "prefix": lambda: peft.PrefixTuningConfig(**common, num_virtual_tokens=6),
    }[name]()


@pytest.mark.parametrize("kind", ["SEQ_CLS", "TOKEN_CLS"])
@pytest.mark.parametrize("name", ["lora", "rslora", "ranks", "alphas", "gaussian", "no-pooler", "adalora", "prefix"])
def test_we_open_the_librarys_folder(
    name: str, kind: str, encodings: list[Encoding], toy_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    base = base_of(tmp_path, SHAPE, toy_tokenizer)
    head = {"SEQ_CLS": "SequenceClassification", "TOKEN_CLS": "TokenClassification"}[kind]
    auto, size = getattr(transformers, f"AutoModelFor{head}"), HEADS[head].classify or HEADS[head].tag
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = auto.from_pretrained(base.path, num_labels=size, attn_implementation="eager")
        tuned = peft.get_peft_model(theirs, theirs_for(name, kind))
        stir([p for p in tuned.parameters() if p.requires_grad], 8)
        if name == "adalora":
            for step in range(1, 9):  # the library's own allocator takes ranks away
                rows = {"input_ids": torch.randint(5, 130, (4, 9)), "attention_mask": torch.ones(4, 9)}
                tuned(**rows).logits.square().sum().backward()
                tuned.base_model.update_and_allocate(step)
                tuned.zero_grad()
        tuned.save_pretrained(tmp_path / "theirs")
        if name == "adalora":
            fresh = auto.from_pretrained(base.path, num_labels=size, attn_implementation="eager")
            tuned = peft.PeftModel.from_pretrained(fresh, tmp_path / "theirs")

    bundle = adopt_adapter(tmp_path / "theirs", tmp_path / "ours", base)
    ours = load_tuned(bundle, Base.load(base))
    plain = load_model(base, HEADS[head], seed=0)
    assert_same(our_logits(ours, encodings), their_logits(tuned, encodings), our_logits(plain, encodings))
    assert bundle.labels == [f"LABEL_{i}" for i in range(size)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fresh = auto.from_pretrained(base.path, num_labels=size, attn_implementation="eager")
        again = peft.PeftModel.from_pretrained(fresh, bundle.path)
    assert (their_logits(again, encodings) - their_logits(tuned, encodings)).abs().max() <= TOLERANCE
    done = CliRunner().invoke(build("convert"), ["convert", str(tmp_path / "theirs"), str(tmp_path / "named")])
    assert done.exit_code == 0, done.output
    assert Bundle.open(tmp_path / "named").base == bundle.base, "the folder names its base"
    with pytest.raises(BundleError, match="says too little about its base; .* bertsmith convert .* --base BASE"):
        Bundle.open(tmp_path / "theirs")


@pytest.mark.parametrize("name", ["lora", "adalora"])
def test_modernbert_goes_there_too(
    name: str, encodings: list[Encoding], toy_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    base = base_of(tmp_path, MODERN, toy_tokenizer)
    config = PeftConfig(method=name, rank=3)  # type: ignore[arg-type]
    model = load_model(base, Heads(classify=3), seed=4)
    insert(model, config, seed=5)
    stir(small_part(model).values(), 6)
    bundle = save_tuned(tmp_path / "bundle", model, config, base, {"labels": ["a", "b", "c"]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = transformers.AutoModelForSequenceClassification.from_pretrained(base.path, num_labels=3)
        opened = peft.PeftModel.from_pretrained(theirs, bundle.path)
    plain = our_logits(load_model(base, Heads(classify=3), seed=4), encodings)
    assert_same(our_logits(model, encodings), their_logits(opened, encodings), plain)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"use_dora": True}, "use_dora = True is not supported; only False is"),
        ({"bias": "all"}, "bias = 'all' is not supported; only 'none' is"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights = 'pissa' is not supported; only True is"),
        ({"init_lora_weights": "olora"}, "init_lora_weights = 'olora' is not supported"),
        ({"layers_to_transform": [0]}, "missing: base_model.model.bert.encoder.layer.1"),
    ],
)
def test_what_is_not_built_here_is_refused_by_name(
    options: dict[str, Any], told: str, toy_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    base = base_of(tmp_path, SHAPE, toy_tokenizer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = transformers.AutoModelForSequenceClassification.from_pretrained(base.path, num_labels=3)
        config = peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query"], **options)
        peft.get_peft_model(theirs, config).save_pretrained(tmp_path / "theirs")
    with pytest.raises(BundleError) as caught:
        adopt_adapter(tmp_path / "theirs", tmp_path / "ours", base)
    assert told in str(caught.value)
    assert not (tmp_path / "ours").exists()


def test_a_pooler_that_nobody_saved_is_not_made_up(toy_tokenizer: Tokenizer, tmp_path: Path) -> None:
    base = save_model(tmp_path / "base", Model(SHAPE, Heads(mlm=True), seed=1), toy_tokenizer.files(), {"task": "x"})
    for named, refused in (["classifier", "pooler"], False), (["classifier"], True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = transformers.AutoModelForSequenceClassification.from_pretrained(base.path, num_labels=3)
            config = peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query"], modules_to_save=named)
            peft.get_peft_model(theirs, config).save_pretrained(tmp_path / "theirs")
        if refused:
            with pytest.raises(BundleError, match=r"neither the adapter nor the base .* has pooler\.\w+\.weight"):
                adopt_adapter(tmp_path / "theirs", tmp_path / "ours-too", base)
            assert not (tmp_path / "ours-too").exists()
        else:
            adopt_adapter(tmp_path / "theirs", tmp_path / "ours", base)
