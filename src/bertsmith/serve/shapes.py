"""Between a client's shapes and the predictor's: what /predict may be asked, and how answers look."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from bertsmith.serve.masking import Masked, placed
from bertsmith.serve.refusal import Refusal
from bertsmith.serve.service import Payload, named
from bertsmith.tokenizer.load import Pieces


def predict_payloads(inputs: str | list[str] | list[list[str]], facts: Mapping[str, Any]) -> tuple[list[Payload], bool]:
    """What /predict is asked, and whether the answer is a list.

    A row is one text, two, or for a model that chooses a text and its choices.

    Args:
        inputs: as in the request.
        facts: of the model.

    Raises:
        Refusal: 422, the model takes another number of texts at once.
    """
    pairs = facts["pairs"]
    if isinstance(inputs, str):
        rows, several = [[inputs]], False
    elif all(isinstance(row, str) for row in inputs) and inputs:
        texts = cast(list[str], inputs)
        several = pairs is False and not facts["chooses"]
        rows = [[text] for text in texts] if several else [texts]
    else:
        rows, several = cast(list[list[str]], inputs), True
    payloads: list[Payload] = []
    for number, row in enumerate(rows):
        problem = ""
        if facts["chooses"]:
            problem = "" if len(row) >= 3 else "this model chooses; give a text and after it two choices or more"
        elif len(row) not in (1, 2):
            problem = f"give a text or a pair of texts, not {len(row)} texts; several inputs are a list of lists"
        elif len(row) == 1 and pairs is True:
            problem = "this model answers about two texts; give a pair"
        elif len(row) == 2 and pairs is False:
            problem = "this model takes single texts, not pairs"
        if problem:
            refusal = Refusal(422, problem)
            raise named(refusal, number) if several else refusal
        payloads.append(row[0] if len(row) == 1 else tuple(row))
    return payloads, several


def predicted(value: Any, one: Masked, top_k: int | None = None) -> Any:
    """A predictor's answer as /predict gives it.

    Args:
        value: the answer.
        one: what the model saw.
        top_k: how many classes.
    """
    if "labels" in value:
        given = set(value["labels"])
        ranked = sorted(value["probabilities"].items(), key=lambda item: (item[0] not in given, -item[1]))
        return [{"label": label, "score": score, "given": label in given} for label, score in ranked[:top_k]]
    if "probabilities" in value:
        # The class of a tree need not be the most probable leaf: it lies below the most probable branch.
        ranked = sorted(value["probabilities"].items(), key=lambda item: (item[0] != value["label"], -item[1]))
        return [{"label": label, "score": score} for label, score in ranked[:top_k]]
    if "entities" in value:
        return {"entities": entities(value, one)}
    if "n_best" in value:
        return stretch(value, one)
    return {name: item for name, item in value.items() if name != "text"}


def entities(value: Any, one: Masked) -> list[dict[str, Any]]:
    """A tagger's entities in Hugging Face's words, at their places in the text as it was asked.

    Args:
        value: the tagger's answer.
        one: what it saw.
    """
    part = one.parts[0] if one.parts else None
    found = [placed(entity, part) for entity in value["entities"]]
    return [
        {
            "entity_group": entity["type"],
            "score": entity["score"],
            "word": entity["text"],
            "start": entity["start"],
            "end": entity["end"],
        }
        for entity in found
    ]


def tokens(pieces: Pieces, one: Masked, vocabulary: Mapping[str, int], *, specials: bool) -> list[dict[str, Any]]:
    """The pieces of a text in TEI's words.

    Args:
        pieces: of the text that the model reads.
        one: that text.
        vocabulary: a piece's id.
        specials: whether [CLS] and [SEP] are among them.
    """
    part = one.parts[0] if one.parts else None
    found: list[dict[str, Any]] = []
    for id, start, end in zip(pieces.ids.tolist(), pieces.starts.tolist(), pieces.ends.tolist(), strict=True):
        place = placed({"start": start, "end": end}, part)
        text = str(one.payload)[start:end]
        found.append({"id": id, "text": text, "special": False, "start": place["start"], "stop": place["end"]})
    if not specials:
        return found
    first, last = (
        {"id": vocabulary[name], "text": name, "special": True, "start": None, "stop": None}
        for name in ("[CLS]", "[SEP]")
    )
    return [first, *found, last]


def stretch(value: Mapping[str, Any], one: Masked) -> dict[str, Any]:
    """An answer to a question, at its place in the text as it was asked.

    Args:
        value: with `answer`, `score`, `start` and `end`.
        one: what the model saw.
    """
    found = placed(value, one.parts[1] if one.parts else None)
    return {name: found[name] for name in ("answer", "score", "start", "end")}
