"""Choosing the right one of several texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers

from bertsmith.core.bundle import Bundle
from bertsmith.core.errors import DataError
from bertsmith.corpus.document import Tally
from bertsmith.model.config import ModelConfig
from bertsmith.model.convert import load_model, save_model
from bertsmith.model.heads import Model
from bertsmith.predict.predictor import Predictor
from bertsmith.tasks.base import Example, collate
from bertsmith.tasks.choice import Choice, ChoiceConfig
from bertsmith.tokenizer.load import Tokenizer

SWAG = """,video-id,fold-ind,startphrase,sent1,sent2,gold-source,ending0,ending1,ending2,ending3,label
0,v1,3416,a b,anna lives in paris.,She,gold,is good.,is bad.,was boring.,works for acme.,3
1,v1,3417,a b,bert is bad.,He,gold,is good.,is not.,was boring.,works for acme.,1
"""


def read(path: Path, content: Any, **settings: Any) -> list[Example]:
    path.write_text(content if isinstance(content, str) else json.dumps(content, ensure_ascii=False), "utf-8")
    task = Choice(None, ChoiceConfig(**settings), say=lambda line: None)  # type: ignore[arg-type]
    return task.rows(path, Tally())


def test_a_choice_that_is_not_there_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="two choices or more are needed, none empty"):
        read(tmp_path / "a.json", [{"text": "a", "choices": ["x", None], "label": 0}])


def test_swag(tmp_path: Path) -> None:
    one, two = read(tmp_path / "a.csv", SWAG)
    assert one.fields["text"] == "anna lives in paris."
    assert one.fields["question"] == "She"
    assert one.fields["choices"] == ("is good.", "is bad.", "was boring.", "works for acme.")
    assert (one.label, two.label, one.where) == (3, 1, f"{tmp_path / 'a.csv'}:2")


def test_c3(tmp_path: Path) -> None:
    questions = [
        {"question": "他在哪儿？", "choice": ["北京", "上海"], "answer": "上海"},
        {"question": "天气怎么样？", "choice": ["很好", "不错", "差"], "answer": "很好"},
    ]
    one, two = read(tmp_path / "a.json", [[["男：你在哪儿？", "女：我在上海。"], questions, "7-1"]])
    assert one.fields == {
        "text": "男：你在哪儿？\n女：我在上海。",
        "question": "他在哪儿？",
        "choices": ("北京", "上海"),
        "article": "7-1",
    }  # fmt: skip
    assert (one.label, two.label, len(two.fields["choices"])) == (1, 0, 3)


FORMS: dict[str, Any] = {
    "race": {"article": "x", "questions": ["q"], "options": [["a", "b"]], "answers": ["B"]},
    "commonsense": {
        "answerKey": "B",
        "question": {"stem": "q", "choices": [{"label": "A", "text": "a"}, {"label": "B", "text": "b"}]},
    },
    "arc": {"question": "q", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "B"},
    "plain": {"question": "q", "choices": ["a", "b"], "label": 1},
    "by text": {"question": "q", "options": ["a", "b"], "answer": "b"},
    "columns": {"premise": "q", "choice1": "a", "choice2": "b", "label": 1},
}


@pytest.mark.parametrize("form", FORMS)
def test_forms(form: str, tmp_path: Path) -> None:
    (example,) = read(tmp_path / "a.jsonl", FORMS[form], first=0)
    assert example.fields["choices"] == ("a", "b")
    assert example.label == 1
    assert "q" in (example.fields.get("question"), example.fields["text"])


def test_numbers_from_one(tmp_path: Path) -> None:
    rows = "question,choice1,choice2,answer\nq,a,b,1\nq,a,b,2\n"
    assert [one.label for one in read(tmp_path / "a.csv", rows)] == [0, 1]
    with pytest.raises(DataError, match=r"a\.csv:3: '2' is none of the choices a \| b"):
        read(tmp_path / "a.csv", rows, first=0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"question": "q", "choices": ["a"], "label": 0}, "two choices or more are needed, none empty; here are 1"),
        ({"question": "q", "choices": ["a", " "], "label": 0}, "none empty"),
        ({"question": "q", "choices": ["a", "b"]}, "the right choice is not said"),
        ({"question": "q", "choices": ["a", "b"], "label": "c"}, "'c' is none of the choices"),
        ({"choices": ["a", "b"], "label": 0}, "there is neither a text nor a question"),
        ("a,b\nc,d\ne,f\n", r"a\.csv:2: there is neither a text nor a question"),
        ("question,choice1,choice2,label\nq,a,b,0\nq,a,0\n", r"a\.csv:3: 3 columns where 4 are expected"),
        ("", "the file is empty"),
    ],
)
def test_bad_rows(content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path / ("a.csv" if isinstance(content, str) else "a.jsonl"), content)


def test_a_choice_need_not_be_right_where_none_is_asked_for(tmp_path: Path, toy_tokenizer: Tokenizer) -> None:
    (tmp_path / "a.jsonl").write_text('{"context": "a", "choices": ["x", "y"], "label": 7}\n')
    (example,) = Choice(toy_tokenizer).unlabelled(tmp_path / "a.jsonl", Tally())
    assert example.label is None


def labelled(choices: list[tuple[str, ...]], labels: list[int]) -> list[Example]:
    return [
        Example({"text": "anna lives in paris", "question": "where?", "choices": own}, label, f"row {n}")
        for n, (own, label) in enumerate(zip(choices, labels, strict=True))
    ]


EXAMPLES = labelled([("paris", "london"), ("he", "she", "it"), ("good", "bad", "boring", "great film")], [0, 2, 1])


def test_the_loss_is_cross_entropy_over_each_examples_choices(toy_tokenizer: Tokenizer, toy_shape: ModelConfig) -> None:
    task = Choice(toy_tokenizer)
    encodings = task.encode(EXAMPLES)
    order = np.random.default_rng(0).permutation(len(encodings))
    batch = collate([encodings[i] for i in order])
    logits = torch.randn(len(encodings), 1, generator=torch.Generator().manual_seed(0))
    loss = task.loss({"choose": logits[torch.from_numpy(order)]}, batch)
    parts = logits[:, 0].split([2, 3, 4])
    pairs = list(zip(parts, EXAMPLES, strict=True))
    wanted = sum(F.cross_entropy(part[None], torch.tensor([one.label])) for part, one in pairs)
    assert loss.count == 3
    assert float(loss.total) == pytest.approx(float(wanted), rel=1e-5)
    right = sum(int(part.argmax()) == one.label for part, one in pairs)
    assert int(loss.parts["accuracy"][0]) == right
    words = [toy_tokenizer.tokens[i] for i in encodings[0].input_ids]
    assert " ".join(words) == "[CLS] anna lives in paris [SEP] w ##h ##e ##r ##e ? paris [SEP]"


@pytest.mark.parametrize("architecture", ["bert", "modernbert"])
def test_transformers_opens_it_for_multiple_choice(
    architecture: str, toy_tokenizer: Tokenizer, toy_shape: ModelConfig, tmp_path: Path
) -> None:
    shape = ModelConfig(**{
        "architecture": architecture,
        **toy_shape.model_dump(include={"vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads",
                                        "intermediate_size", "max_position_embeddings"}),
    })  # fmt: skip
    task = Choice(toy_tokenizer, ChoiceConfig(max_length=32))
    model = Model(shape, task.head(shape), seed=1).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)), alpha=0.1)
    meta = {"task": "choose", "labels": [], "task_config": task.config.model_dump(mode="json")}
    save_model(tmp_path / "bundle", model, toy_tokenizer.files(architecture), meta)
    assert load_model(Bundle.open(tmp_path / "bundle")).heads == model.heads
    theirs, loading = transformers.AutoModelForMultipleChoice.from_pretrained(
        tmp_path / "bundle", output_loading_info=True
    )
    assert not any(loading.values()), loading
    assert type(theirs).__name__ == (
        "BertForMultipleChoice" if architecture == "bert" else "ModernBertForMultipleChoice"
    )
    four = EXAMPLES[2:]
    encodings = task.encode(four)
    longest = max(map(len, encodings))

    def rows(name: str) -> torch.Tensor:
        return torch.tensor(np.stack([np.pad(getattr(one, name), (0, longest - len(one))) for one in encodings]))[
            None
        ].long()

    mask = torch.tensor([[[int(at < len(one)) for at in range(longest)] for one in encodings]])
    inputs = {"input_ids": rows("input_ids"), "attention_mask": mask}
    if architecture == "bert":
        inputs["token_type_ids"] = rows("segment_ids")
    with torch.inference_mode():
        logits = theirs.eval()(**inputs).logits[0]
    found = Predictor.open(tmp_path / "bundle", device="cpu", precision="fp32").examples(four)[0]
    assert found["scores"] == pytest.approx(torch.softmax(logits, -1).tolist(), abs=1e-5)
    assert found["chosen"] == four[0].fields["choices"][found["choice"]]


def test_asking_a_model(toy_tokenizer: Tokenizer) -> None:
    task = Choice(toy_tokenizer)
    asked = task.asked(("where is anna?", "paris", "london"), "input 1")
    assert asked.fields == {"text": "where is anna?", "choices": ("paris", "london")}
    for wrong in ("where is anna?", ("where is anna?", "paris")):
        with pytest.raises(
            DataError, match="input 1: this model chooses; give a text and after it two choices or more"
        ):
            task.asked(wrong, "input 1")


def test_scores_show_what_one_answer_for_all_would_get(toy_tokenizer: Tokenizer) -> None:
    examples = labelled([("a", "b")] * 4, [0, 0, 0, 1])
    answers = [{"choice": 0, "scores": [0.5, 0.5]}] * 4
    scores = Choice(toy_tokenizer).score(answers, examples)
    assert scores == {"accuracy": 0.75, "mrr": 0.75, "most_frequent": 0.75}
