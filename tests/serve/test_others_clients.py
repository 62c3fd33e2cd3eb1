"""Clients that others wrote, as their users call them, against a service that runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

from bertsmith.predict.predictor import Predictor

TEXTS = ["anna lives in paris", "一部好电影"]


@pytest.fixture(scope="module")
def vectors(bundles: Path) -> Any:
    """What the bundle's own vectors of TEXTS are."""
    return Predictor.open(bundles / "vectors", device="cpu", precision="fp32").encode(TEXTS)


@pytest.fixture
def ours(served: Any) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=served.url + "/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


@pytest.mark.parametrize("how", [{}, {"encoding_format": "float"}, {"encoding_format": "base64"}], ids=str)
def test_openai_embeddings(ours: openai.OpenAI, vectors: Any, how: dict[str, Any]) -> None:
    found = ours.embeddings.create(model="vectors", input=TEXTS, **how)
    assert (found.object, found.model, [one.index for one in found.data]) == ("list", "vectors", [0, 1])
    assert found.usage.prompt_tokens == found.usage.total_tokens > 4
    given: Any = [one.embedding for one in found.data]
    if how == {"encoding_format": "base64"}:  # asked for by name, it is left as it came
        import base64

        given = [np.frombuffer(base64.b64decode(one), "<f4") for one in given]
    assert np.abs(np.array(given) - vectors).max() < 1e-6
    assert len(ours.embeddings.create(model="vectors", input="anna", user="ada").data) == 1


def test_openai_models(ours: openai.OpenAI, served: Any) -> None:
    listed = ours.models.list().data
    assert [one.id for one in listed] == [one["name"] for one in served.get("/models").json()]
    assert ours.models.retrieve("vectors") == next(one for one in listed if one.id == "vectors")
    with pytest.raises(openai.NotFoundError, match="no model of that name"):
        ours.models.retrieve("none")


def test_openai_errors_are_its_own(ours: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="no model of that name"):
        ours.embeddings.create(model="none", input="a")
    with pytest.raises(openai.UnprocessableEntityError, match="not made to give vectors") as found:
        ours.embeddings.create(model="classify", input="a")
    assert (found.value.code, found.value.type) == ("invalid", "invalid_request_error")
    with pytest.raises(openai.UnprocessableEntityError, match="body.dimensions"):
        ours.embeddings.create(model="vectors", input="a", dimensions=3)
    with pytest.raises(openai.APIStatusError, match="101 items") as found:
        ours.embeddings.create(model="vectors", input=["a"] * 101)
    assert found.value.status_code == 413


def test_hugging_face_inference_client(served: Any, vectors: Any) -> None:
    client = InferenceClient(token="none", timeout=60)
    at = served.url

    found = client.feature_extraction(TEXTS, model=f"{at}/embed")  # type: ignore[arg-type]
    assert np.abs(found - vectors).max() < 1e-6
    one = client.feature_extraction(
        TEXTS[0], normalize=True, truncate=True, truncation_direction="right", model=f"{at}/embed"
    )
    assert np.linalg.norm(one) == pytest.approx(1, abs=1e-5)
    scores = client.sentence_similarity("anna", other_sentences=["anna", "paris"], model=f"{at}/similarity")
    assert len(scores) == 2
    best = client.text_classification("a good film", model=f"{at}/predict")
    expected = served.post("/predict", {"inputs": "a good film"}).json()
    assert (best.label, best.score) == (expected[0]["label"], pytest.approx(expected[0]["score"]))
    entities = client.token_classification("anna lives in paris", aggregation_strategy="simple", model=f"{at}/ner")
    assert all("anna lives in paris"[one.start : one.end] == one.word for one in entities)
    assert entities
    words = client.fill_mask("a [MASK]", top_k=3, model=f"{at}/fill-mask")
    assert len(words) == 3
    assert words[0].score >= words[1].score >= words[2].score
    answer: Any = client.question_answering(question="where?", context="anna lives in paris", model=f"{at}/qa")
    assert answer.answer == "anna lives in paris"[answer.start : answer.end] != ""
    with pytest.raises(HfHubHTTPError) as refused:
        client.fill_mask("no mask", model=f"{at}/fill-mask")
    assert refused.value.response.status_code == 422
