"""A small client for a service, with waiting and trying again where the service asks for it."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from bertsmith.core.errors import BertsmithError, ConfigError
from bertsmith.core.extras import require

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

AGAIN = (429, 503)
LONGEST_WAIT = 30.0
"""Seconds between two tries, at most."""


class ServiceError(BertsmithError):
    """The service said no.

    Attributes:
        status: of the answer.
        reason: one word, as the service's metrics have it.
        request_id: by which the service's log knows the request.
    """

    def __init__(self, status: int, message: str, reason: str = "", request_id: str = "") -> None:
        super().__init__(f"{status}: {message}" + (f" (request {request_id})" if request_id else ""))
        self.status, self.reason, self.request_id = status, reason, request_id


class Client:
    """Asks a service. A context manager; may be shared between threads.

    Args:
        url: of the service, such as `http://127.0.0.1:8000`.
        key: an API key; None: none is sent.
        model: name of a model; None: the first that can answer.
        timeout: seconds that an answer may take.
        tries: how often a request is sent that is answered 429 or 503, or finds no connection or loses it.
        privacy: have personal data masked before the model sees it; None: as the service has it.

    Raises:
        ConfigError: the package httpx is not installed, or a number makes no sense.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        model: str | None = None,
        timeout: float = 60.0,
        tries: int = 4,
        privacy: bool | None = None,
    ) -> None:
        self._httpx: Any = require("httpx", "asking a service")
        if not (math.isfinite(timeout) and timeout > 0) or tries < 1:
            raise ConfigError(f"timeout={timeout}, tries={tries}: give seconds above 0, and a try or more")
        headers = {"x-request-timeout": f"{timeout:g}"} | ({"authorization": f"Bearer {key}"} if key else {})
        self._http = self._httpx.Client(base_url=url.rstrip("/"), headers=headers, timeout=timeout)
        self._common = {"model": model, "privacy": privacy}
        self.tries = tries

    def __enter__(self) -> Self:
        """The client."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close its connections."""
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def predict(self, inputs: str | tuple[str, str] | Sequence[str | tuple[str, str]], **settings: Any) -> Any:
        """Classes best first, or what the model gives: one answer to a text or pair, a list to a list.

        Args:
            inputs: a text, a pair, or a list of these.
            settings: further fields of the request.
        """
        if isinstance(inputs, str | tuple):
            return self._answered("/predict", {"inputs": _row(inputs), **settings})[0]
        return self._answered("/predict", {"inputs": [_row(one)[0] for one in inputs], **settings})

    def embed(self, texts: str | Sequence[str], **settings: Any) -> NDArray[np.float32]:
        """One vector a text.

        Args:
            texts: one, or N of them.
            settings: `normalize`, `pooling`, `truncate`.

        Returns:
            `[H]` for one text, `[N, H]` for N; `[0, 0]` for none.
        """
        import numpy as np

        rows = [texts] if isinstance(texts, str) else list(texts)
        found = np.array(self._answered("/embed", {"inputs": rows, **settings}), np.float32)
        return found[0] if isinstance(texts, str) else found.reshape(len(rows), -1 if rows else 0)

    def rerank(self, query: str, texts: Sequence[str], **settings: Any) -> list[dict[str, Any]]:
        """Places of texts, best first: `{"index", "score"}` each.

        Args:
            query: what is asked.
            texts: among which to choose.
            settings: `top_n`, `return_text`, `truncate`.
        """
        return cast(list[dict[str, Any]], self._answered("/rerank", {"query": query, "texts": list(texts), **settings}))

    def similarity(self, text: str, others: Sequence[str]) -> list[float]:
        """How well each of the others goes with a text.

        Args:
            text: one.
            others: with which it is compared.
        """
        inputs = {"source_sentence": text, "sentences": list(others)}
        return cast(list[float], self._answered("/similarity", {"inputs": inputs}))

    def fill_mask(self, text: str, top_k: int = 5) -> list[Any]:
        """Words for each [MASK]: a list for one, a list of lists for several.

        Args:
            text: with [MASK] in it.
            top_k: words for each.
        """
        return cast(list[Any], self._answered("/fill-mask", {"inputs": text, "parameters": {"top_k": top_k}}))

    def ner(self, text: str) -> list[dict[str, Any]]:
        """Entities of a text, with `start` and `end` in its characters.

        Args:
            text: any.
        """
        return cast(list[dict[str, Any]], self._answered("/ner", {"inputs": text}))

    def qa(self, question: str, context: str, top_k: int = 1) -> Any:
        """The answer to a question in a text; with `top_k` above 1 a list.

        Args:
            question: about the text.
            context: the text, however long.
            top_k: how many answers.
        """
        body = {"question": question, "context": context, "parameters": {"top_k": top_k}}
        return self._answered("/qa", body)

    def stream(self, route: str, inputs: Sequence[Any], **settings: Any) -> Iterator[Any]:
        """Answers to many inputs, each as it is done, in their order.

        Args:
            route: `/predict`, `/embed`, `/ner` or `/fill-mask`.
            inputs: texts; for /predict also pairs.
            settings: further fields of the request.

        Yields:
            An answer an input, or a `ServiceError` for one that failed.

        Raises:
            ServiceError: the request was refused, or the service ended before the last answer.
        """
        rows = [_row(one)[0] for one in inputs] if route == "/predict" else list(inputs)
        body = {"inputs": rows, **self._common, **settings}
        with closing(self._send("POST", route, _given(body), stream=True)) as answer:
            for line in self._lines(answer):
                if "answer" in line:
                    yield line["answer"]
                elif "index" in line:
                    yield ServiceError(422, line["error"], line["error_type"])
                elif line.get("done"):
                    return
                else:
                    raise ServiceError(503, line["error"], line["error_type"])
        raise ServiceError(503, "the answers ended before the last one", "cut_off")

    def _lines(self, answer: Any) -> Iterator[dict[str, Any]]:
        try:
            for text in answer.iter_lines():
                yield json.loads(text)
        except self._httpx.TimeoutException:
            raise ServiceError(504, "the next answer did not come in time", "timeout") from None
        except (self._httpx.TransportError, ValueError) as error:
            raise ServiceError(503, f"the answers ended before the last one ({error})", "cut_off") from None

    def models(self) -> list[dict[str, Any]]:
        """The models that are served."""
        return cast(list[dict[str, Any]], self._send("GET", "/models").json())

    def ready(self) -> bool:
        """Whether the service takes requests now."""
        try:
            return bool(self._http.get("/health/ready").status_code == 200)
        except self._httpx.TransportError:
            return False

    def _answered(self, route: str, body: Mapping[str, Any]) -> Any:
        return self._send("POST", route, _given({**self._common, **body})).json()

    def _send(self, method: str, route: str, body: Any = None, stream: bool = False) -> Any:
        """Send until there is an answer; wait as the service says, or longer each time."""
        headers = {"accept": "application/x-ndjson"} if stream else {}
        for attempt in range(1, self.tries + 1):
            last = attempt == self.tries
            try:
                request = self._http.build_request(method, route, json=body, headers=headers)
                answer = self._http.send(request, stream=stream)
                if answer.status_code == 200:
                    return answer
                answer.read()
            except self._httpx.TimeoutException:
                raise ServiceError(504, "the answer did not come in time", "timeout") from None
            except self._httpx.TransportError as error:
                if last:
                    url = self._http.base_url
                    raise ServiceError(503, f"no service answers at {url} ({error})", "no_connection") from None
                wait = 0.0
            else:
                if last or answer.status_code not in AGAIN:
                    raise _error(answer)
                wait = _seconds(answer.headers.get("retry-after", ""))
            time.sleep(min(LONGEST_WAIT, max(wait, 0.1 * 2**attempt)) * random.uniform(1.0, 1.2))
        raise AssertionError("unreachable")


def _row(inputs: str | tuple[str, str]) -> list[Any]:
    """/predict's way of writing a batch of one."""
    return [[inputs] if isinstance(inputs, str) else list(inputs)]


def _seconds(retry_after: str) -> float:
    """What Retry-After asks for: seconds, or the time until a date; 0 where it is neither."""
    try:
        wait = float(retry_after)
    except ValueError:
        try:
            wait = parsedate_to_datetime(retry_after).timestamp() - time.time()
        except ValueError:
            return 0.0
    return wait if math.isfinite(wait) else 0.0


def _given(body: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if value is not None}


def _error(answer: Any) -> ServiceError:
    try:
        told = answer.json()
        return ServiceError(answer.status_code, told["error"], told["error_type"], told.get("request_id", ""))
    except (ValueError, KeyError, TypeError):
        return ServiceError(answer.status_code, answer.text[:200])
