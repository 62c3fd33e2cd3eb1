"""The chain against every path, and against pytorch-crf where it is installed."""

from __future__ import annotations

import itertools

import pytest
import torch

from bertsmith.model.crf import best_path, log_partition, marginals, path_score
from bertsmith.model.pointer import WIDTH, Ends, Pointer, pointer_loss

LENGTHS = [3, 7, 1, 5, 7]
LABELS = 4


def chains(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    count = sum(LENGTHS)
    emissions, table = torch.randn(count, LABELS, generator=draw), torch.randn(LABELS + 2, LABELS, generator=draw)
    return emissions, table, torch.randint(LABELS, (count,), generator=draw)


@pytest.mark.parametrize("seed", range(5))
def test_scores_and_paths_equal_those_of_pytorch_crf(seed: int) -> None:
    reference = pytest.importorskip("torchcrf").CRF(LABELS, batch_first=True)
    emissions, table, labels = chains(seed)
    with torch.no_grad():
        reference.transitions.copy_(table[:-2])
        reference.start_transitions.copy_(table[-2])
        reference.end_transitions.copy_(table[-1])
    pad = torch.nn.utils.rnn.pad_sequence
    padded, gold = pad(emissions.split(LENGTHS), True), pad(labels.split(LENGTHS), True)
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    ours = path_score(emissions, table, labels, LENGTHS) - log_partition(emissions, table, LENGTHS)
    assert torch.allclose(ours, reference(padded, gold, mask, reduction="none"), atol=1e-5)
    assert best_path(emissions, table, LENGTHS).tolist() == list(itertools.chain(*reference.decode(padded, mask)))

    emissions.requires_grad_()
    padded = pad(emissions.split(LENGTHS), True)
    (theirs,) = torch.autograd.grad(reference(padded, gold, mask), emissions, retain_graph=True)
    again = path_score(emissions, table, labels, LENGTHS) - log_partition(emissions, table, LENGTHS)
    (mine,) = torch.autograd.grad(again.sum(), emissions)
    assert torch.allclose(mine, theirs, atol=1e-5)


def test_everything_equals_a_sum_over_all_paths() -> None:
    emissions, table, _ = chains(9)
    place = 0
    for length in LENGTHS[:4:2]:  # 4 ** 7 paths are too many
        mine = emissions[place : place + length]
        paths = torch.tensor(list(itertools.product(range(LABELS), repeat=length)))
        scores = torch.stack([path_score(mine, table, path, [length])[0] for path in paths])
        assert torch.allclose(log_partition(mine, table, [length])[0], scores.logsumexp(0), atol=1e-5)
        assert best_path(mine, table, [length]).tolist() == paths[scores.argmax()].tolist()
        share = torch.stack([(scores.softmax(0)[:, None] * (paths == label)).sum(0) for label in range(LABELS)], dim=-1)
        assert torch.allclose(marginals(mine, table, [length]), share, atol=1e-5)
        place += sum(LENGTHS[:2])


def test_chains_do_not_touch_each_other() -> None:
    emissions, table, labels = chains(3)
    parts = list(zip(emissions.split(LENGTHS), labels.split(LENGTHS), LENGTHS, strict=True))
    alone = [float(path_score(e, table, y, [n]) - log_partition(e, table, [n])) for e, y, n in parts]
    together = path_score(emissions, table, labels, LENGTHS) - log_partition(emissions, table, LENGTHS)
    assert together.tolist() == pytest.approx(alone, abs=1e-5)


@torch.no_grad()
def test_a_pointer_scores_what_the_paper_writes() -> None:
    torch.manual_seed(0)
    head, x, positions = Pointer(8, 3), torch.randn(5, 8), torch.arange(5)
    scores = Ends.of(head(x, positions)).scores()
    assert scores.shape == (3, 5, 5)
    ends = head.ends(x)
    query, key = ends[:, :WIDTH], ends[:, WIDTH:]
    angle = torch.arange(WIDTH // 2) / (WIDTH // 2)

    def turned(vector: torch.Tensor, place: int) -> torch.Tensor:
        spin = torch.polar(torch.ones(WIDTH // 2), place / 10_000**angle)
        return torch.complex(*vector.chunk(2)) * spin

    first, last = (head.types(ends) / 2).chunk(2, dim=-1)
    for i, j, kind in itertools.product(range(5), range(5), range(3)):
        product = (turned(query[i], i) * turned(key[j], j).conj()).real.sum() / WIDTH**0.5
        assert float(scores[kind, i, j]) == pytest.approx(float(product + first[i, kind] + last[j, kind]), abs=1e-4)


def test_the_loss_of_pairs_is_that_of_the_paper() -> None:
    torch.manual_seed(1)
    scores = torch.randn(2, 3, 4, 4)
    allowed = torch.ones(2, 1, 4, 4, dtype=torch.bool).triu()
    gold = (torch.rand(2, 3, 4, 4) < 0.2) & allowed
    loss = pointer_loss(scores, gold, allowed)
    for s, c in itertools.product(range(2), range(3)):
        one, right = scores[s, c], gold[s, c]
        wrong = allowed[s, 0] & ~right
        expected = (1 + one[wrong].exp().sum()).log() + (1 + (-one[right]).exp().sum()).log()
        assert float(loss[s, c]) == pytest.approx(float(expected), abs=1e-5)
    assert float(pointer_loss(scores, gold & False, allowed & False).sum()) == 0
