"""Loading a WordPiece vocabulary and turning text into pieces.

Sources: Wu et al. 2016 (arXiv:1609.08144) for greedy longest-match WordPiece, Devlin et al. 2019 (arXiv:1810.04805) for
the normalisation, the special tokens and their template.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Self

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import AddedToken, Encoding, decoders, models, normalizers, pre_tokenizers, processors

from bertsmith.core.errors import BundleError
from bertsmith.tokenizer.fast import WORTH_CHECKING, FastEncoder, Flat, encode_with, fast_encoder

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""In the order in which our own vocabularies hold them, from id 0."""

CONTINUATION = "##"
MAX_WORD_CHARACTERS = 100
"""A longer word becomes [UNK], as in the original BERT."""

_ACCENTS = re.compile("[\u0300-\u036f]+")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Pieces:
    """The pieces of one text; four arrays of equal length P.

    Attributes:
        ids: piece ids `[P]`.
        starts: where each piece starts in the text, in characters `[P]`.
        ends: where each piece ends in the text, in characters, exclusive `[P]`.
        words: index of the word that each piece belongs to `[P]`; a punctuation mark and a Han character are words.
    """

    ids: NDArray[np.int32]
    starts: NDArray[np.int32]
    ends: NDArray[np.int32]
    words: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.ids)


class Tokenizer:
    """Text to piece ids and back. Immutable; safe to share between threads.

    Ids equal those of `transformers.BertTokenizer`. Its older Python implementation differs in a final Greek sigma, in
    combining accents of a cased vocabulary and in characters that its Unicode tables do not know yet.

    Neither [CLS] nor [SEP] is ever added here: tasks do that. Special tokens written out in a text ("[SEP]") are
    ordinary text unless `specials=True`, so that no input can forge the structure of a sequence.
    """

    def __init__(self, backend: tokenizers.Tokenizer, *, origin: str = "tokenizer") -> None:
        """Wrap a `tokenizers.Tokenizer`, whose padding, truncation and post-processor are switched off or unused.

        Args:
            backend: any tokenizer that knows the five special tokens of BERT; copied, never changed.
            origin: where it came from, for error messages.

        Raises:
            BundleError: a special token is missing, or an id has no token.
        """
        self._json = backend.to_str()
        vocabulary = backend.get_vocab(with_added_tokens=True)
        missing = [token for token in SPECIAL_TOKENS if token not in vocabulary]
        if missing:
            raise BundleError(
                f"{origin}: the vocabulary has no {', '.join(missing)}; add {'it' if len(missing) == 1 else 'them'} "
                "or use a vocabulary made for BERT"
            )
        self.tokens: list[str] = sorted(vocabulary, key=vocabulary.__getitem__)
        if vocabulary[self.tokens[-1]] != len(self.tokens) - 1:
            raise BundleError(f"{origin}: token ids are not consecutive (two tokens share an id, or an id has none)")
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (
            vocabulary[token] for token in SPECIAL_TOKENS
        )
        self._backend = self._copy(encode_special_tokens=True)
        self._encoded = 0
        is_wordpiece = (
            isinstance(backend.model, models.WordPiece)
            and backend.model.continuing_subword_prefix == CONTINUATION
            and isinstance(backend.pre_tokenizer, pre_tokenizers.BertPreTokenizer)
        )
        # Punctuation is always split off, so a piece starts with "##" if and only if it continues a word.
        self._continues: NDArray[np.bool_] | None = (
            np.array([token.startswith(CONTINUATION) and len(token) > 2 for token in self.tokens])
            if is_wordpiece
            else None
        )

    def _copy(self, *, encode_special_tokens: bool) -> tokenizers.Tokenizer:
        backend = tokenizers.Tokenizer.from_str(self._json)
        known = {token.content for token in backend.get_added_tokens_decoder().values()}
        backend.add_special_tokens(
            [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS if token not in known]
        )
        backend.no_padding()
        backend.no_truncation()
        backend.encode_special_tokens = encode_special_tokens
        return backend

    @classmethod
    def from_tokens(
        cls, tokens: Sequence[str], *, lowercase: bool, strip_accents: bool | None = None, origin: str = "vocabulary"
    ) -> Self:
        """Build BERT's tokenizer around a list of pieces; a piece's id is its place in the list.

        Args:
            tokens: distinct pieces, the five special tokens among them.
            lowercase: fold case before looking pieces up ("uncased").
            strip_accents: remove combining accents; None does it when `lowercase`, as in the original BERT.
            origin: where the tokens came from, for error messages.

        Raises:
            BundleError: a special token is missing or a piece occurs twice.
        """
        vocabulary = {token: number for number, token in enumerate(tokens)}
        if len(vocabulary) != len(tokens):
            raise BundleError(f"{origin}: {len(tokens) - len(vocabulary)} pieces occur more than once")
        backend = tokenizers.Tokenizer(
            models.WordPiece(
                vocabulary,
                unk_token="[UNK]",
                continuing_subword_prefix=CONTINUATION,
                max_input_chars_per_word=MAX_WORD_CHARACTERS,
            )
        )
        backend.normalizer = normalizers.BertNormalizer(
            clean_text=True, handle_chinese_chars=True, strip_accents=strip_accents, lowercase=lowercase
        )
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        backend.decoder = decoders.WordPiece(prefix=CONTINUATION)
        if "[CLS]" in vocabulary and "[SEP]" in vocabulary:
            backend.post_processor = processors.TemplateProcessing(
                single="[CLS]:0 $A:0 [SEP]:0",
                pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
                special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
            )
        return cls(backend, origin=origin)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a tokenizer from a folder with `tokenizer.json` or `vocab.txt`, or from one of those files.

        Case folding is taken from the `tokenizer_config.json` beside it; without one, a `vocab.txt` counts as cased
        when one of its pieces holds an upper-case ASCII letter.

        Raises:
            BundleError: no such file, or it is damaged; names the file and the line.
        """
        path = Path(path)
        if path.is_dir():
            found = next((path / name for name in ("tokenizer.json", "vocab.txt") if (path / name).is_file()), None)
            if found is None:
                raise BundleError(
                    f"{path}: holds neither tokenizer.json nor vocab.txt; pass a folder or file that does"
                )
            path = found
        elif not path.is_file():
            raise BundleError(
                f"{path}: no such file or folder; pass a vocab.txt, a tokenizer.json or a folder with one"
            )
        return cls._load_json(path) if path.suffix == ".json" else cls._load_vocabulary(path)

    @classmethod
    def _load_json(cls, path: Path) -> Self:
        text = _read_text(path)
        try:
            backend = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the library raises bare Exception for every damage
            raise BundleError(
                f"{path}: not a tokenizer.json of the tokenizers library ({error}); restore it"
            ) from error
        settings = _tokenizer_settings(path.parent / "tokenizer_config.json")
        normalizer = backend.normalizer
        if isinstance(normalizer, normalizers.BertNormalizer) and "Bert" in str(settings.get("tokenizer_class")):
            # transformers' BertTokenizer takes its case from the settings, whatever tokenizer.json says.
            if isinstance(lowercase := settings.get("do_lower_case"), bool):
                normalizer.lowercase = lowercase
            normalizer.strip_accents = settings.get("strip_accents", normalizer.strip_accents)
            backend.normalizer = normalizer
        return cls(backend, origin=str(path))

    @classmethod
    def _load_vocabulary(cls, path: Path) -> Self:
        # Only "\n" ends a line: published vocabularies hold pieces such as U+2028, at which str.splitlines would cut.
        lines = [line.removesuffix("\r") for line in _read_text(path).removesuffix("\n").split("\n")]
        if lines == [""]:
            raise BundleError(f"{path}: the file is empty; a vocabulary has one piece a line")
        seen: dict[str, int] = {}
        for number, token in enumerate(lines, start=1):
            if not token:
                raise BundleError(
                    f"{path}:{number}: empty line; a line's number is its piece's id, so none may be blank"
                )
            if token in seen:
                raise BundleError(
                    f"{path}:{number}: piece {token!r} is already on line {seen[token]}; remove one of them"
                )
            seen[token] = number
        settings = _tokenizer_settings(path.parent / "tokenizer_config.json")
        lowercase = settings.get("do_lower_case")
        if lowercase is None:
            lowercase = not any("A" <= letter <= "Z" for token in lines for letter in _plain(token))
        return cls.from_tokens(
            lines, lowercase=bool(lowercase), strip_accents=settings.get("strip_accents"), origin=str(path)
        )

    @property
    def vocab_size(self) -> int:
        """Number of pieces, special tokens included."""
        return len(self.tokens)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What the tokenizer does besides looking pieces up: normaliser, pre-tokenizer, model without its pieces."""
        description = json.loads(self._json)
        model = {key: value for key, value in description["model"].items() if key not in ("vocab", "merges")}
        return {"normalizer": description["normalizer"], "pre_tokenizer": description["pre_tokenizer"], "model": model}

    @cached_property
    def hash(self) -> str:
        """sha256 of pieces and settings: equal exactly when two tokenizers give the same ids."""
        content = {"tokens": self.tokens, **self.settings, "merges": json.loads(self._json)["model"].get("merges")}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @cached_property
    def _with_specials(self) -> tokenizers.Tokenizer:
        return self._copy(encode_special_tokens=False)

    def encode(self, texts: Sequence[str], *, specials: bool = False) -> list[Pieces]:
        """Cut texts into pieces, with their places in the original text.

        Args:
            texts: any strings; an empty or blank one gives no pieces. Lone surrogates are ignored.
            specials: recognise "[MASK]" and the other special tokens written in a text (fill-mask needs that).

        Returns:
            One `Pieces` a text, without [CLS] and [SEP].
        """
        backend = self._with_specials if specials else self._backend
        return [
            _pieces(encoding, text) for encoding, text in zip(_encode(backend.encode_batch, texts), texts, strict=True)
        ]

    def encode_ids(self, texts: Sequence[str]) -> list[tuple[NDArray[np.int32], NDArray[np.bool_]]]:
        """Cut texts into pieces, without offsets; see `encode_flat`.

        Returns:
            For each text its ids `[P]` and flags `[P]`, true where a piece is the first of a word. The arrays are views
            of one array for all texts.
        """
        ids, starts, lengths = self.encode_flat(texts)
        ends = np.cumsum(lengths).tolist()
        spans = [slice(begin, end) for begin, end in zip([0, *ends], ends, strict=False)]
        return [(ids[span], starts[span]) for span in spans]

    def encode_flat(self, texts: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[np.bool_], NDArray[np.int64]]:
        """Cut texts into pieces on all processor cores, without offsets: the fast path for preparing a corpus.

        Where there are many texts, tokie (extra `fast`) takes those for which it is known to give the same ids.

        Returns:
            The ids of all texts one after another `[P]`; flags `[P]`, true where a piece is the first of a word; and
            how many pieces each text has `[N]`.
        """
        if self._continues is None:
            encoded = self.encode(texts)
            flags = [np.empty(0, np.bool_), *(np.diff(pieces.words, prepend=-1) != 0 for pieces in encoded)]
            ids = [np.empty(0, np.int32), *(pieces.ids for pieces in encoded)]
            return np.concatenate(ids), np.concatenate(flags), np.array([len(pieces) for pieces in encoded], np.int64)
        self._encoded += len(texts)
        fast = self._fast if texts and self._encoded >= WORTH_CHECKING else None
        found, lengths = encode_with(fast, texts, self._flat)
        return found, ~self._continues[found], lengths

    def _flat(self, texts: Sequence[str]) -> Flat:
        """The ids of all texts, and how many each has."""
        ids = [encoding.ids for encoding in _encode(self._backend.encode_batch_fast, texts)]
        lengths = np.fromiter(map(len, ids), dtype=np.int64, count=len(ids))
        return np.fromiter(chain.from_iterable(ids), dtype=np.int32, count=int(lengths.sum())), lengths

    @cached_property
    def _fast(self) -> FastEncoder | None:
        added = [token.content for token in self._backend.get_added_tokens_decoder().values()]
        return fast_encoder(self._json, self._flat, added)

    def decode(self, ids: Sequence[int] | NDArray[np.integer[Any]]) -> str:
        """Join pieces into text; keeps special tokens, and puts spaces where BERT splits, not where the author did."""
        return self._with_specials.decode([int(i) for i in ids], skip_special_tokens=False)

    def files(self, model_type: str = "bert", *, max_length: int | None = None) -> dict[str, bytes]:
        """The files that a bundle needs for `transformers.AutoTokenizer` to give the same ids.

        Args:
            model_type: "bert" or "modernbert", as in config.json; decides whether token types are returned.
            max_length: the model's longest sequence in tokens, written as `model_max_length`.
        """
        normalizer = self.settings["normalizer"] or {}
        settings: dict[str, Any] = {token.strip("[]").lower() + "_token": token for token in SPECIAL_TOKENS}
        is_wordpiece = self._continues is not None
        if model_type == "bert" and is_wordpiece:
            settings |= {
                "tokenizer_class": "BertTokenizer",
                "do_lower_case": normalizer.get("lowercase", False),
                "strip_accents": normalizer.get("strip_accents"),
                "tokenize_chinese_chars": normalizer.get("handle_chinese_chars", True),
            }
        else:
            settings["tokenizer_class"] = "PreTrainedTokenizerFast"
        if model_type != "bert":  # ModernBERT takes no token types, so its tokenizer must not return any
            settings["model_input_names"] = ["input_ids", "attention_mask"]
        if max_length is not None:
            settings["model_max_length"] = max_length
        backend = self._copy(encode_special_tokens=False)
        files = {
            "tokenizer.json": backend.to_str(pretty=True).encode(),
            "tokenizer_config.json": (json.dumps(settings, indent=2, ensure_ascii=False) + "\n").encode(),
        }
        if is_wordpiece:
            files["vocab.txt"] = "".join(token + "\n" for token in self.tokens).encode()
        return files

    def __getstate__(self) -> str:
        return self._json

    def __setstate__(self, state: str) -> None:
        self.__init__(tokenizers.Tokenizer.from_str(state))  # type: ignore[misc]


def _plain(token: str) -> str:
    """A piece, or nothing for a reserved entry such as [unused1] or <S>."""
    return "" if len(token) > 2 and token[0] + token[-1] in ("[]", "<>") else token


def _read_text(path: Path) -> str:
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BundleError(f"{path}:{line}: not valid UTF-8; save the file as UTF-8") from error


def _tokenizer_settings(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    try:
        settings = json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        raise BundleError(f"{path}:{error.lineno}: not valid JSON ({error.msg}); restore or remove the file") from error
    if not isinstance(settings, dict):
        raise BundleError(f"{path}: holds no JSON object; restore or remove the file")
    return settings


def _encode(encode_batch: Callable[..., list[Encoding]], texts: Sequence[str]) -> list[Encoding]:
    try:
        return encode_batch(list(texts), add_special_tokens=False)
    except (UnicodeEncodeError, TypeError):
        return encode_batch([well_formed(text) for text in texts], add_special_tokens=False)


def well_formed(text: str) -> str:
    """Replace lone surrogates, which cannot leave Python, by U+FFFD, which BERT drops; the length stays the same."""
    return _SURROGATE.sub("\ufffd", text)


def _pieces(encoding: Encoding, text: str) -> Pieces:
    offsets = np.array(encoding.offsets, dtype=np.int32).reshape(-1, 2)
    starts, ends = offsets[:, 0].copy(), offsets[:, 1].copy()
    for accents in () if text.isascii() else _ACCENTS.finditer(text):
        # Accents that were stripped belong to the piece before them, as they do when composed with their letter.
        if accents.start() not in starts:
            ends[ends == accents.start()] = accents.end()
    # A special token recognised in the text belongs to no word for the library; here it is a word of its own.
    words = np.array([-1 if word is None else word for word in encoding.word_ids], dtype=np.int32)
    if (words < 0).any():
        words = np.cumsum((np.diff(words, prepend=-2) != 0) | (words < 0), dtype=np.int32) - np.int32(1)
    return Pieces(np.array(encoding.ids, dtype=np.int32), starts, ends, words)
