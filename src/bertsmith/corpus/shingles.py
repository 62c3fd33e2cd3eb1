"""Shingles and MinHash: texts to sets of hashes, and those to signatures that agree as often as the sets overlap.

Everything works on many texts at a time, in NumPy, and depends on nothing but the texts and the seed.

Shapes: `D` documents, `N` shingles of all of them, `K` permutations, `B` bands.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bertsmith.corpus.characters import ASSIGNED
from bertsmith.corpus.sentences import CJK

Hashes = NDArray[np.uint32]
Offsets = NDArray[np.int64]
Keys = NDArray[np.uint64]

# Thai, Lao, Burmese and Khmer put no spaces between words either.
_UNSPACED = re.compile(f"[{CJK}\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]+")
_ALNUM = re.compile(r"[^\W_]+")
_WORD, _CHARACTER = 1, 2
# Odd numbers with about as many ones as zeros: multiplying by them spreads low bits over the high ones.
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
_SPREAD_2 = np.uint64(0xD6E8FEB86659FD93)
_HALF = np.uint64(32)
_AT_ONCE = 1 << 20


def shingles(texts: Sequence[str], words: int, characters: int, seed: int) -> tuple[Hashes, Offsets]:
    """The distinct shingles of each text, as 32-bit hashes.

    A text is read as a row of units, capitals as small letters: a character of a script without spaces (Chinese,
    Japanese, Thai) is a unit, and so is every other run of letters and digits, a word; what lies between is ignored. A
    shingle is `characters` units from a character on, `words` units from a word on. A text that is shorter than its
    first shingle is one shingle; one without letters and digits has none.

    Args:
        texts: of any length.
        words: units from a word on, >= 1.
        characters: units from a character on, >= 1.
        seed: chooses the hash function.

    Returns:
        Hashes `[N]`, ascending within each text, and where each text's begin, `[D+1]`.
    """
    found = _shingles(texts, words, characters, seed)
    found = found[_changes(found)]
    offsets = np.searchsorted(found, np.arange(len(texts) + 1, dtype=np.uint64) << _HALF)
    return found.astype(np.uint32), offsets.astype(np.int64)


def repetition(texts: Sequence[str], words: int, characters: int) -> NDArray[np.float64]:
    """Which share of each text's shingles occurred before in the same text `[D]`, 0 to 1.

    Args:
        texts: of any length.
        words: units of a shingle from a word on, >= 1.
        characters: units from a character on, >= 1.
    """
    found = _shingles(texts, words, characters, 0)
    owners = (found >> _HALF).astype(np.int64)
    total = np.bincount(owners, minlength=len(texts))
    repeated = np.bincount(owners[~_changes(found)], minlength=len(texts))
    share: NDArray[np.float64] = repeated / np.maximum(total, 1)
    return share


def _shingles(texts: Sequence[str], words: int, characters: int, seed: int) -> Keys:
    """All shingles `[N]`, repeated ones too, in order: the text's number in the upper half, the hash in the lower."""
    units, kinds, begins = _units(texts)
    counts = np.diff(begins)
    index = np.arange(len(units))
    ends = index + np.where(kinds == _CHARACTER, characters, words)
    last = np.repeat(begins[1:], counts)
    whole = (ends <= last) | (index == np.repeat(begins[:-1], counts))
    sums = _sums(units * _powers(len(units)))
    sums = (sums[np.minimum(ends, last)] - sums[:-1]) * _powers(len(units), -1)
    owners = np.repeat(np.arange(len(texts), dtype=np.uint64) << _HALF, counts)
    found: Keys = owners[whole] | _mixed(sums[whole] + _mixed(np.full(1, seed, np.uint64))) >> _HALF
    found.sort()
    return found


def signatures(hashes: Hashes, offsets: Offsets, permutations: int, seed: int) -> Hashes:
    """MinHash signatures `[D, K]`: two are equal in about that share of places that the sets have in common.

    Of the K equal ranges of the hash's values each gives the smallest hash in it; a range in which a document has none
    borrows from the first that has one, in an order of its own that is the same for all documents.

    Args:
        hashes: of `shingles`, `[N]`.
        offsets: where each document's begin, `[D+1]`; every document has a shingle.
        permutations: K, at most 256.
        seed: chooses the orders.

    Source: Li et al. 2012, One Permutation Hashing; Shrivastava 2017, Optimal Densification (arXiv:1703.04664).
        Differs: the order is a permutation, so that the lender is found by a minimum instead of attempts.
    """
    counts = np.diff(offsets)
    owners = np.repeat(np.arange(len(counts)), counts)
    ranges = (hashes.astype(np.uint64) * np.uint64(permutations) >> _HALF).astype(np.int64)
    smallest = np.flatnonzero(_changes(owners * permutations + ranges))
    owners, ranges = owners[smallest], ranges[smallest]
    found = np.zeros((len(counts), permutations), np.uint32)
    found[owners, ranges] = hashes[smallest]
    filled = np.bincount(owners, minlength=len(counts))
    sparse = np.flatnonzero(filled < permutations)
    if len(sparse):
        order, rank = _orders(permutations, seed)
        begins = np.cumsum(filled[sparse]) - filled[sparse]
        first = np.minimum.reduceat(rank[ranges[np.isin(owners, sparse)]], begins, axis=0)
        lenders = order[np.arange(permutations), first]
        found[sparse] = np.take_along_axis(found[sparse], lenders.astype(np.int64), axis=1)
    return found


def band_keys(signatures: Hashes, rows: int) -> Keys:
    """One key for each `rows` places of a signature, `[D, B]`; places left over are not used.

    Args:
        signatures: `[D, K]`.
        rows: places in a band, 1 to K.
    """
    bands = signatures.shape[1] // rows
    factors = [pow(int(_SPREAD), place + 1, 2**64) for place in range(rows)]
    values = signatures[:, : bands * rows].reshape(-1, bands, rows).astype(np.uint64)
    return _mixed((values * np.array(factors, np.uint64)).sum(axis=2, dtype=np.uint64))


def rows_per_band(threshold: float, permutations: int, missed: float = 0.005) -> int:
    """The most rows a band may have: more of them make fewer candidates, and miss more pairs.

    Args:
        threshold: similarity of a pair that should be found, 0 to 1.
        permutations: places in a signature.
        missed: share of such pairs that may be missed.
    """
    fits = [
        rows
        for rows in range(1, permutations + 1)
        if (1 - threshold**rows) ** (permutations // rows) <= missed or rows == 1
    ]
    return fits[-1]


def jaccard(first: Sequence[Hashes], second: Sequence[Hashes], limit: int) -> NDArray[np.float32]:
    """Jaccard similarity of each pair of sets; exact where both sets are whole.

    Args:
        first: a set a pair: distinct hashes in ascending order.
        second: the other set of each pair.
        limit: a set of so many hashes may be only the smallest ones of a larger set; then the pair is compared in the
            range that both cover, and the result is an estimate.
    """
    pairs = len(first)
    if pairs > 1 and sum(map(len, first)) + sum(map(len, second)) > _AT_ONCE:
        half = pairs // 2
        parts = (slice(0, half), slice(half, pairs))
        return np.concatenate([jaccard(first[part], second[part], limit) for part in parts])
    highest = np.full(pairs, 2**32, np.uint64)
    for sets in (first, second):
        cut = np.array([int(one[-1]) if len(one) >= limit else 2**32 for one in sets], np.uint64)
        highest = np.minimum(highest, cut)
    sizes = np.array([len(one) for sets in (first, second) for one in sets], np.int64)
    numbers = np.repeat(np.tile(np.arange(pairs), 2), sizes)
    hashes = np.concatenate([*first, *second]).astype(np.uint64) if pairs else np.empty(0, np.uint64)
    inside = hashes <= highest[numbers]
    keys = numbers[inside].astype(np.uint64) << _HALF | hashes[inside]
    keys.sort()
    repeated = np.flatnonzero(~_changes(keys))
    shared = np.bincount((keys[repeated] >> _HALF).astype(np.int64), minlength=pairs)
    total = np.bincount(numbers[inside], minlength=pairs)
    similarity: NDArray[np.float32] = (shared / np.maximum(total - shared, 1)).astype(np.float32)
    return similarity


def _units(texts: Sequence[str]) -> tuple[Keys, NDArray[np.uint8], Offsets]:
    """The hash and the kind of each unit, and where each text's units begin, `[D+1]`.

    A word's hash is a polynomial of its characters' numbers modulo 2^64: each times a power of an odd factor, which
    goes up from place to place through all texts, and their sum times the inverse of the power that the first one had.
    """
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), "<u4")
    borders = np.cumsum([0, *map(len, texts)])
    numbers = np.take(_numbers(), codes, mode="clip")
    kinds = numbers.astype(np.uint8) & np.uint8(_WORD | _CHARACTER)
    starts = kinds == _WORD
    starts[1:] &= kinds[:-1] != _WORD
    inner = borders[:-1][borders[:-1] < len(codes)]
    starts[inner] = kinds[inner] == _WORD
    starts |= kinds == _CHARACTER
    at = np.flatnonzero(starts)
    # What stands between two units is 0 and adds nothing, so a unit may be summed up to the next one.
    numbers *= _powers(len(codes))
    units = np.diff(_sums(numbers)[np.append(at, len(codes))]) * _powers(len(codes), -1)[at]
    return _mixed(units), kinds[at], np.searchsorted(at, borders).astype(np.int64)


def _mixed(values: Keys) -> Keys:
    values = (values ^ values >> _HALF) * _SPREAD
    values = (values ^ values >> np.uint64(29)) * _SPREAD_2
    return values ^ values >> _HALF


def _sums(values: Keys) -> Keys:
    """What stands before each value and after the last one adds up to `[N+1]`."""
    sums = np.zeros(len(values) + 1, np.uint64)
    np.cumsum(values, out=sums[1:])
    return sums


def _changes(values: NDArray[np.int64] | Keys) -> NDArray[np.bool_]:
    """Whether each value differs from the one before it."""
    changes = np.ones(len(values), np.bool_)
    np.not_equal(values[1:], values[:-1], out=changes[1:])
    return changes


@lru_cache(maxsize=1)
def _numbers() -> Keys:
    """A number for each code point, the same for small and capital letters; the lowest two bits are its kind.

    It is 0 for what is neither a part of a word nor a character that is a unit.
    """
    codes = np.arange(0x110000, dtype=np.uint64)
    kinds = np.zeros(len(codes), np.uint64)
    for first, end in ASSIGNED:
        everything = "".join(map(chr, range(first, end)))
        for kind, runs in ((_WORD, _ALNUM), (_CHARACTER, _UNSPACED)):
            for run in runs.finditer(everything):
                kinds[first + run.start() : first + run.end()] = kind
        small = map(str.lower, everything)
        codes[first:end] = [ord(one) if len(one) == 1 else first + place for place, one in enumerate(small)]
    codes[ord("ς")] = ord("σ")  # a small sigma at a word's end
    return np.where(kinds > 0, _mixed(codes) & ~np.uint64(3) | kinds, np.uint64(0))


def _powers(count: int, sign: int = 1) -> Keys:
    """The first `count` powers of an odd factor modulo 2^64, or of its inverse."""
    found = _all_powers(1 << max(20, (count - 1).bit_length()), sign)
    return found[:count]


@lru_cache(maxsize=4)
def _all_powers(count: int, sign: int) -> Keys:
    found = np.ones(1, np.uint64)
    while len(found) < count:
        found = np.concatenate([found, found * np.uint64(pow(int(_SPREAD_2), sign * len(found), 2**64))])
    return found


@lru_cache(maxsize=4)
def _orders(permutations: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """For each range the order in which it borrows, itself first, `[K, K]`; and each lender's rank, `[lender, K]`."""
    draw = np.random.Generator(np.random.Philox(seed)).random((permutations, permutations))
    np.fill_diagonal(draw, -1)
    order = np.argsort(draw, axis=1)
    return order.astype(np.uint8), np.argsort(order, axis=1).T.astype(np.uint8).copy()
