"""Every route answers in its shape, as the predictor does."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bertsmith.predict.predictor import Predictor


def opened(bundles: Path, name: str) -> Predictor:
    return Predictor.open(bundles / name, device="cpu", precision="fp32")


def test_classes_best_first(served: Any, bundles: Path) -> None:
    answer = served.post("/predict", {"inputs": "a good film"})
    expected = opened(bundles, "classify")("a good film")["probabilities"]
    assert answer.status_code == 200
    found = answer.json()
    assert {one["label"]: pytest.approx(one["score"], abs=1e-6) for one in found} == expected
    assert found[0]["score"] >= found[1]["score"]
    for inputs in ([["a good film"], ["bad"]], ["a good film", "bad"]):
        first, second = served.post("/predict", {"inputs": inputs}).json()
        assert first[0] == {"label": found[0]["label"], "score": pytest.approx(found[0]["score"], abs=1e-6)}
        assert len(second) == 2
    one = served.post("/predict", {"inputs": "a good film", "parameters": {"top_k": 1}}).json()
    assert [best["label"] for best in one] == [found[0]["label"]]


def test_an_answer_says_what_gave_it(served: Any, bundles: Path) -> None:
    headers = served.post("/predict", {"inputs": "a good film"}, **{"x-request-id": "mine-1"}).headers
    predictor = opened(bundles, "classify")
    assert headers["x-model"] == "classify"
    assert headers["x-model-version"] == predictor.bundle.hash[:12]
    assert headers["x-compute-tokens"] == str(len(predictor.tokenizer.encode(["a good film"])[0]) + 2)
    assert headers["x-request-id"] == "mine-1"
    assert headers["x-truncated"] == "0"
    assert 0 < float(headers["x-inference-time"]) <= float(headers["x-total-time"])
    assert float(headers["x-queue-time"]) >= 0
    assert served.post("/predict", {"inputs": "good " * 100}).headers["x-truncated"] == "1"
    assert served.post("/predict", {"inputs": "good " * 100, "truncate": False}).status_code == 413


def test_pairs_are_pairs_for_a_model_of_pairs(served: Any, bundles: Path) -> None:
    expected = opened(bundles, "match")(("a", "b"))
    found = served.post("/predict", {"model": "match", "inputs": ["a", "b"]}).json()
    assert found[0]["label"] == expected["label"]
    assert found[0]["score"] == pytest.approx(expected["score"], abs=1e-6)
    first, _ = served.post("/predict", {"model": "match", "inputs": [["a", "b"], ["c", "d"]]}).json()
    assert first[0]["score"] == pytest.approx(found[0]["score"], abs=1e-6)
    assert served.post("/predict", {"model": "match", "inputs": "a"}).status_code == 422
    assert served.post("/predict", {"inputs": [["a", "b"]]}).status_code == 422


def test_vectors_by_all_three_routes(served: Any, bundles: Path) -> None:
    texts = ["anna lives in london", "a good film", "我在北京"]
    expected = opened(bundles, "vectors").encode(texts)
    ours = np.array(served.post("/embed", {"inputs": texts}).json())
    assert np.abs(ours - expected).max() < 1e-6
    assert served.post("/embed", {"inputs": texts[0]}).json() == [ours[0].tolist()]
    theirs = served.post("/v1/embeddings", {"input": texts, "model": "vectors"}).json()
    assert [one["index"] for one in theirs["data"]] == [0, 1, 2]
    assert [one["embedding"] for one in theirs["data"]] == ours.tolist()
    assert theirs["usage"]["total_tokens"] == theirs["usage"]["prompt_tokens"] > 10
    packed = served.post("/v1/embeddings", {"input": texts[0], "model": "vectors", "encoding_format": "base64"}).json()
    read = np.frombuffer(base64.b64decode(packed["data"][0]["embedding"]), "<f4")
    assert np.abs(read - expected[0]).max() < 1e-6
    long = served.post("/embed", {"inputs": texts[0], "normalize": False}).json()[0]
    assert np.linalg.norm(long) != pytest.approx(1, abs=1e-3)
    other = served.post("/embed", {"model": "classify", "inputs": "a", "pooling": "cls"})
    assert len(other.json()[0]) == 32
    assert served.post("/embed", {"model": "classify", "inputs": "a"}).status_code == 422


@pytest.mark.parametrize("name", ["vectors", "match"])
def test_ranks_and_similarities(served: Any, bundles: Path, name: str) -> None:
    texts = ["paris", "a good film", "london is great"]
    expected = opened(bundles, name).similarity(["great london"], texts)[0]
    body = {"model": name, "inputs": {"source_sentence": "great london", "sentences": texts}}
    assert served.post("/similarity", body).json() == pytest.approx(expected.tolist(), abs=1e-6)
    ranked = served.post(
        "/rerank", {"model": name, "query": "great london", "texts": texts, "return_text": True}
    ).json()
    assert [one["index"] for one in ranked] == np.argsort(-expected, kind="stable").tolist()
    assert [one["text"] for one in ranked] == [texts[one["index"]] for one in ranked]
    assert len(served.post("/rerank", {"model": name, "query": "a", "texts": texts, "top_n": 2}).json()) == 2


def test_words_behind_masks(served: Any, bundles: Path) -> None:
    predictor = opened(bundles, "pretraining")
    one = served.post("/fill-mask", {"inputs": "anna [MASK] in paris", "parameters": {"top_k": 3}}).json()
    expected = predictor.fill_mask(["anna [MASK] in paris"], top_k=3)[0]["masks"][0]
    assert [option["token_str"] for option in one] == [option["token"] for option in expected]
    assert [predictor.tokenizer.tokens[option["token"]] for option in one] == [option["token_str"] for option in one]
    two = served.post("/fill-mask", {"inputs": "[MASK] lives in [MASK]"}).json()
    assert [len(options) for options in two] == [5, 5]
    assert served.post("/fill-mask", {"inputs": ["a [MASK]", "b"]}).status_code == 422


def test_pieces_as_the_model_reads_them(served: Any, bundles: Path) -> None:
    text = "😀 Anna lives in [MASK], 138 0013 8000"
    asked = {"inputs": text, "model": "classify"}
    tokenizer = opened(bundles, "classify").tokenizer
    (pieces,) = served.post("/tokenize", asked).json()
    assert [piece["id"] for piece in pieces[1:-1]] == tokenizer.encode([text])[0].ids.tolist()
    assert all(piece["text"] == text[piece["start"] : piece["stop"]] for piece in pieces[1:-1])
    ends = [(piece["id"], piece["text"], piece["start"], piece["stop"]) for piece in pieces if piece["special"]]
    assert ends == [(tokenizer.tokens.index(name), name, None, None) for name in ("[CLS]", "[SEP]")]

    bare, empty = served.post("/tokenize", asked | {"inputs": [text, ""], "add_special_tokens": False}).json()
    assert (bare, empty) == (pieces[1:-1], [])
    assert "[MASK]" not in [piece["text"] for piece in pieces], "to this model it is text"
    (filling,) = served.post("/tokenize", {"inputs": text, "model": "pretraining"}).json()
    assert "[MASK]" in [piece["text"] for piece in filling]

    (masked,) = served.post("/tokenize", asked | {"privacy": True, "add_special_tokens": False}).json()
    assert "8000" not in "".join(piece["text"] for piece in masked)
    phone = (text.index("138"), len(text))
    assert phone in {(piece["start"], piece["stop"]) for piece in masked}, "a replacement is where the number was"
    long = served.post("/tokenize", {"inputs": ["anna lives " * 2000] * 2}).json()
    assert [len(one) > 4000 for one in long] == [True, True]
    assert served.post("/tokenize", {"inputs": 7}).status_code == 422


def test_entities_and_answers_point_into_the_text(served: Any) -> None:
    text = "😀 Anna lives in London"
    for entity in served.post("/ner", {"inputs": text}).json():
        assert text[entity["start"] : entity["end"]] == entity["word"]
        assert entity["entity_group"] == "PER"
    context = "😀 Anna lives in Paris. " * 20
    for body in (
        {"question": "where is anna?", "context": context},
        {"inputs": {"question": "where is anna?", "context": context}},
    ):
        found = served.post("/qa", body).json()
        assert context[found["start"] : found["end"]] == found["answer"] != ""
    several = served.post("/qa", {**body, "parameters": {"top_k": 3}}).json()
    assert len(several) == 3
    assert several[0] == found
    assert served.post("/qa", {"question": "who?"}).status_code == 422


def test_relations_and_next_sentences(served: Any) -> None:
    marked = {"model": "relate", "inputs": "<e1>anna</e1> lives in <e2>london</e2>"}
    assert {one["label"] for one in served.post("/predict", marked).json()} == {"in", "no"}
    unmarked = served.post("/predict", {"model": "relate", "inputs": "anna"})
    assert (unmarked.status_code, "mark the two stretches" in unmarked.text) == (422, True)
    following = served.post("/predict", {"model": "pretraining", "inputs": ["a b", "c d"]}).json()
    assert 0 <= following["is_next"] <= 1


def test_what_a_model_of_relations_reads_is_counted(served: Any) -> None:
    plain, room = "anna lives in london", 32 - 2 - 4  # a sign stands before and behind each stretch
    for words in (plain, " ".join(["a"] * (room - 4)) + " " + plain):
        text = words.replace("anna", "<e1>anna</e1>").replace("london", "<e2>london</e2>")
        answer = served.post("/predict", {"model": "relate", "inputs": text, "truncate": False})
        assert answer.status_code == 200
        assert int(answer.headers["x-compute-tokens"]) == len(words.split()) + 6
    longer = served.post("/predict", {"model": "relate", "inputs": "a " + text, "truncate": False})
    assert (longer.status_code, "has 33 pieces; the model reads 32" in longer.text) == (413, True)


def test_one_of_several_texts_is_chosen(served: Any, bundles: Path) -> None:
    row = ["anna lives", "in london", "a good film", "bad"]
    wanted = opened(bundles, "choose")(tuple(row))
    answer = served.post("/predict", {"model": "choose", "inputs": row})
    assert answer.json()["chosen"] == wanted["chosen"]
    assert answer.json()["scores"] == pytest.approx(wanted["scores"], abs=1e-5)
    assert int(answer.headers["x-compute-tokens"]) == (2 + 2 + 3) + (2 + 3 + 3) + (2 + 1 + 3)
    both = served.post("/predict", {"model": "choose", "inputs": [row, row[:3]]}).json()
    assert [len(one["scores"]) for one in both] == [3, 2]
    for inputs in ("anna", ["anna", "bad"], [row, row[:2]]):
        refused = served.post("/predict", {"model": "choose", "inputs": inputs})
        assert (refused.status_code, "two choices or more" in refused.text) == (422, True)
    masked = served.post("/predict", {"model": "choose", "inputs": ["mail ada@example.org", "a", "b"], "privacy": True})
    assert masked.status_code == 200


def test_one_failing_item_fails_alone(served: Any) -> None:
    body = {"model": "relate", "inputs": ["<e1>a</e1> <e2>b</e2>", "none", "<e1>c</e1> <e2>d</e2>"]}
    refused = served.post("/predict", body)
    assert (refused.status_code, "inputs[1]" in refused.json()["error"]) == (422, True)
    lines = served.post("/predict", body, accept="application/x-ndjson").text.splitlines()
    found = [json.loads(line) for line in lines]
    assert [sorted(line)[0] for line in found] == ["answer", "error", "answer", "done"]
    assert found[-1] | {"tokens": 0} == found[-1] | {"tokens": 0, "items": 3, "failed": 1, "done": True}


def test_a_long_job_comes_in_lines_and_in_order(served: Any, bundles: Path) -> None:
    texts = [f"{'good ' * (n % 8)}film" for n in range(1500)]
    answer = served.post("/predict", {"inputs": texts}, accept="application/x-ndjson")
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [line["index"] for line in lines[:-1]] == list(range(1500))
    assert lines[-1]["failed"] == 0
    pieces = opened(bundles, "classify").tokenizer.encode(texts)
    asked = answer.headers["x-request-id"]
    served.until(lambda: any(line.get("request_id") == asked for line in served.lines()))
    (logged,) = [line for line in served.lines() if line.get("request_id") == asked]
    assert 0 < logged["computed"] <= logged["seconds"], "a batch takes its time once"
    assert (lines[-1]["items"], lines[-1]["tokens"]) == (1500, sum(len(one) + 2 for one in pieces)), "counted once"
    some = opened(bundles, "classify")(texts[:40])
    for line, expected in zip(lines, some, strict=False):
        assert line["answer"][0]["score"] == pytest.approx(expected["score"], abs=1e-5)


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/embed", {"inputs": []}, []),
        ("/predict", {"inputs": []}, []),
        ("/ner", {"inputs": []}, []),
        ("/ner", {"inputs": ""}, []),
        ("/rerank", {"query": "a", "texts": []}, []),
        ("/similarity", {"inputs": {"source_sentence": "a", "sentences": []}}, []),
    ],
)
def test_nothing_is_answered_with_nothing(served: Any, path: str, body: object, expected: object) -> None:
    answer = served.post(path, body)
    assert (answer.status_code, answer.json()) == (200, expected)


def test_an_empty_text_has_an_answer(served: Any) -> None:
    assert len(served.post("/predict", {"inputs": ""}).json()) == 2
    assert len(served.post("/embed", {"inputs": ""}).json()) == 1
    assert served.post("/qa", {"question": "", "context": ""}).json()["answer"] == ""


def test_what_the_service_says_of_itself(served: Any, bundles: Path) -> None:
    models = served.get("/models").json()
    assert [model["name"] for model in models] == [
        "classify",
        "match",
        "vectors",
        "tag",
        "relate",
        "choose",
        "answer",
        "pretraining",
    ]
    assert all(model["ready"] for model in models)
    info = served.get("/info").json()
    assert info["model_id"] == "classify"
    assert info["model_sha"] == opened(bundles, "classify").bundle.hash
    assert info["max_client_batch_size"] == 100
    listed = served.get("/v1/models").json()
    assert [model["id"] for model in listed["data"]] == [model["name"] for model in models]
    assert served.get("/v1/models/tag").json()["id"] == "tag"
    missing = served.get("/v1/models/none")
    assert (missing.status_code, missing.json()["error"]["type"]) == (404, "invalid_request_error")
    assert set(served.get("/health/live").json()["seconds"]) == {model["name"] for model in models}
    assert served.get("/health/ready").status_code == served.get("/health").status_code == 200


def test_the_schema_has_an_example_for_each_question(served: Any) -> None:
    schema = served.get("/openapi.json").json()
    posts = {path: item["post"] for path, item in schema["paths"].items() if "post" in item}
    assert {"/predict", "/embed", "/rerank", "/fill-mask", "/ner", "/qa", "/similarity", "/v1/embeddings"} <= set(posts)
    assert "/tokenize" in posts
    for path, post in posts.items():
        if "requestBody" not in post:
            continue
        name = post["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        for example in schema["components"]["schemas"][name]["examples"]:
            body = example | ({"model": "vectors"} if path == "/v1/embeddings" else {})
            assert served.post(path, body).status_code == 200, path
        assert {"400", "413", "422", "429", "503", "504"} <= set(post["responses"])
