"""What requests look like: TEI's shapes and Hugging Face's where they have the route, OpenAI's below /v1."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Text = Annotated[str, Field(examples=["Deep learning is …"])]


class Body(BaseModel):
    """What every request may say."""

    model_config = ConfigDict(extra="forbid", strict=True)
    model: str | None = Field(None, description="name of a model; none: the first that can answer", max_length=200)
    privacy: bool | None = Field(None, description="mask personal data before the model sees it")


class Cut(Body):
    """A request whose texts may be too long."""

    truncate: bool | None = Field(
        None, description="false: refuse texts that are too long; else they are cut, and the header x-truncated counts"
    )
    truncation_direction: Literal["right", "Right"] = Field("right", description="only right: texts lose their end")


class PredictParameters(BaseModel):
    """Hugging Face's place for settings."""

    model_config = ConfigDict(extra="forbid", strict=True)
    top_k: int | None = Field(None, ge=1, le=10_000, description="how many classes, best first")


class PredictRequest(Cut):
    """Classes, numbers, or whatever else the model gives."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"inputs": "It works well."}, {"inputs": [["It works."], ["It broke."]]}]}
    )
    inputs: str | list[str] | list[list[str]] = Field(
        description="a text; a pair as a list of two, or a text and its choices as a list of three or more; or a list "
        "of such lists. A model of single texts also takes a plain list of texts"
    )
    raw_scores: Literal[False] = Field(False, description="only false: scores are probabilities")
    parameters: PredictParameters = Field(default_factory=PredictParameters)


class EmbedRequest(Cut):
    """Vectors of texts."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"inputs": "What is deep learning?"}]})
    inputs: str | list[str] = Field(description="a text, or several")
    normalize: bool | None = Field(None, description="scale vectors to length 1; none: as the model has it")
    pooling: Literal["mean", "cls"] | None = Field(None, description="none: as the model has it, else mean")


class RerankRequest(Cut):
    """Texts in the order in which they go with a query."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"query": "What is a whale?", "texts": ["A mammal.", "A kind of bridge."]}]}
    )
    query: str = Field(description="what is asked")
    texts: list[str] = Field(description="among which to choose")
    raw_scores: Literal[False] = Field(False, description="only false: cosines, or probabilities of a cross-encoder")
    return_text: bool = Field(False, description="give the texts back")
    top_n: int | None = Field(None, ge=1, description="how many; none: all")


class FillParameters(BaseModel):
    """Hugging Face's place for settings."""

    model_config = ConfigDict(extra="forbid", strict=True)
    top_k: int = Field(5, ge=1, le=100, description="words for each [MASK]")


class FillMaskRequest(Body):
    """Words behind [MASK]."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"inputs": "Paris is the [MASK] of France."}]})
    inputs: str | list[str] = Field(description="a text with [MASK] in it, or several")
    parameters: FillParameters = Field(default_factory=FillParameters)


class TokenizeRequest(Body):
    """The pieces of texts."""

    model_config = ConfigDict(extra="forbid", strict=True, json_schema_extra={"examples": [{"inputs": "A whale."}]})
    inputs: str | list[str] = Field(description="a text, or several")
    add_special_tokens: bool = Field(True, description="with [CLS] and [SEP], as the model reads a text")


class NerParameters(BaseModel):
    """Hugging Face's place for settings."""

    model_config = ConfigDict(extra="forbid", strict=True)
    aggregation_strategy: Literal["simple", "first", "average", "max"] | None = Field(
        None, description="whole entities in any case; a word's first piece decides"
    )


class NerRequest(Body):
    """Names and other stretches of texts."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"inputs": "Ada Lovelace lived in London."}]})
    inputs: str | list[str] = Field(description="a text, or several")
    parameters: NerParameters = Field(default_factory=NerParameters)


class Question(BaseModel):
    """A question about a text."""

    model_config = ConfigDict(extra="forbid", strict=True)
    question: str
    context: str


class QaParameters(BaseModel):
    """Hugging Face's place for settings."""

    model_config = ConfigDict(extra="forbid", strict=True)
    top_k: int = Field(1, ge=1, le=20, description="answers, best first; 1 gives one answer, not a list")


class QaRequest(Body):
    """The stretch of a text that answers a question, or that there is none."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"question": "Who lives in Turin?", "context": "Ivo lives in Turin."}]}
    )
    question: str | None = Field(None, description="with `context`; or else `inputs`")
    context: str | None = Field(None, description="the text, however long")
    inputs: Question | None = Field(None, description="both, as Hugging Face has it")
    parameters: QaParameters = Field(default_factory=QaParameters)


class NoParameters(BaseModel):
    """Hugging Face's place for settings, of which this route has none; its client sends it all the same."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Sentences(BaseModel):
    """What is compared with what."""

    model_config = ConfigDict(extra="forbid", strict=True)
    source_sentence: str
    sentences: list[str]


class SimilarityRequest(Cut):
    """How well texts go with one."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"inputs": {"source_sentence": "A whale.", "sentences": ["A mammal.", "A bridge."]}}]
        }
    )
    inputs: Sentences
    parameters: NoParameters = Field(default_factory=NoParameters, description="taken when empty")


class OpenAIEmbeddingRequest(BaseModel):
    """OpenAI's request for vectors."""

    model_config = ConfigDict(
        extra="forbid", strict=True, json_schema_extra={"examples": [{"input": "A whale.", "model": "minilm"}]}
    )
    input: str | list[str] = Field(description="a text, or several")
    model: str = Field(description="name of a model", max_length=200)
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(None, ge=1, description="only as many as the model has")
    user: str | None = Field(None, description="taken and not used")


class Label(BaseModel):
    """A class and how probable it is."""

    label: str
    score: float


class Ranked(BaseModel):
    """A text's place among others."""

    index: int
    score: float
    text: str | None = None


class Entity(BaseModel):
    """A stretch of a text; `start` and `end` count its characters."""

    entity_group: str
    score: float
    word: str
    start: int
    end: int


class Filled(BaseModel):
    """A word for a [MASK]."""

    score: float
    token: int
    token_str: str
    sequence: str


class Token(BaseModel):
    """A piece: what it is of the text that the model reads, and where that stood in the text as it was asked."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


class Stretch(BaseModel):
    """An answer; empty, without a place, when the text holds none."""

    answer: str
    score: float
    start: int | None
    end: int | None


class Vector(BaseModel):
    """One of OpenAI's vectors: numbers, or little-endian float32 in base64."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    """Pieces of a request."""

    prompt_tokens: int
    total_tokens: int


class OpenAIEmbeddings(BaseModel):
    """OpenAI's answer."""

    object: Literal["list"] = "list"
    data: list[Vector]
    model: str
    usage: Usage


class ErrorBody(BaseModel):
    """Why there is no answer."""

    error: str | dict[str, Any]
    error_type: str | None = None
    request_id: str | None = None
