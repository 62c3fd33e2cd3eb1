"""In which language a text is written: by its script where that tells, else by py3langid."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from bertsmith.core.extras import require
from bertsmith.corpus.characters import HAN, KANA, SCRIPTS

LOOKED_AT = 2000
"""Characters from the middle of a text that py3langid sees."""
KANA_SHARE = 0.05
"""Japanese has kana between its Han characters; a Chinese text may quote some."""

_ONE_LANGUAGE = {"hangul": "ko", "greek": "el", "hebrew": "he", "thai": "th"}
BY_SCRIPT = frozenset({"zh", "ja", *_ONE_LANGUAGE.values()})
"""Languages that the script tells."""


def language(text: str, counts: Sequence[int], *, by_script: bool = False) -> str:
    """The ISO 639-1 code of a text's language; `und` where there are no letters.

    Args:
        text: any text.
        counts: of its characters by kind, as `characters.count_kinds` gives them.
        by_script: where the script does not tell, give its name; for when only `BY_SCRIPT` matter.

    Raises:
        ConfigError: the script alone does not tell, and py3langid is not installed; names the command that installs it.
    """
    letters = counts[: len(SCRIPTS)]
    if not any(letters):
        return "und"
    # A Han character says about as much as two Latin letters.
    weights = [count * (2 if script in (HAN, KANA) else 1) for script, count in enumerate(letters)]
    script = weights.index(max(weights))
    if script in (HAN, KANA):
        return "ja" if letters[KANA] > KANA_SHARE * (letters[HAN] + letters[KANA]) else "zh"
    if (only := _ONE_LANGUAGE.get(SCRIPTS[script])) is not None:
        return only
    if by_script:
        return SCRIPTS[script]
    begin = max(0, (len(text) - LOOKED_AT) // 2)
    code: str = _langid().classify(text[begin : begin + LOOKED_AT])[0]
    return code


@lru_cache(maxsize=1)
def _langid() -> Any:
    return require("py3langid", "telling languages apart (corpus.clean.languages)")
