"""Which documents share a batch: those of about the same length."""

import numpy as np

# How much, as a fraction, two documents that may trade places differ in length.
JITTER = 0.05


def draw_batches(
    lengths: np.ndarray,
    size: int,
    by_tokens: bool,
    world_size: int = 1,
    random: np.random.Generator | None = None,
) -> list[list[np.ndarray]]:
    """Draw, for each step of an epoch, a batch for each process: positions `[B]` into `lengths`.

    A batch has `size` documents or, `by_tokens`, that B x T at most. `random` jitters the
    lengths `[N]` and shuffles the steps; without it the documents come by length.
    """
    order = _by_length(lengths, random)
    ends = _budget_ends(lengths[order], size) if by_tokens else range(size, len(order), size)
    batches = _divisible(np.split(order, list(ends)), world_size)
    steps = [batches[i : i + world_size] for i in range(0, len(batches), world_size)]
    if random is not None:
        steps = [steps[i] for i in random.permutation(len(steps))]
    return steps


def _by_length(lengths: np.ndarray, random: np.random.Generator | None) -> np.ndarray:
    """The positions from short to long, documents of about equal length in random order."""
    if random is None:
        return np.argsort(lengths, kind="stable")
    # Half a token more or less shuffles even the shortest lengths among their neighbours.
    width = JITTER * lengths + 1
    return np.argsort(lengths + width * (random.random(len(lengths)) - 0.5), kind="stable")


def _budget_ends(lengths: np.ndarray, token_budget: int) -> list[int]:
    """Where to cut so that each batch, padded to its longest document, fits the budget."""
    ends, start, longest = [], 0, 0
    for end, length in enumerate(lengths.tolist()):
        longest = max(longest, length)
        if end > start and (end - start + 1) * longest > token_budget:
            ends.append(end)
            start, longest = end, length
    return ends


def _divisible(batches: list[np.ndarray], world_size: int) -> list[np.ndarray]:
    """Halve the largest batches, or else join the shortest, until `world_size` divides them."""
    documents = sum(map(len, batches))
    short_of = -len(batches) % world_size
    if len(batches) + short_of > documents:
        joined = len(batches) % world_size + 1
        return [np.concatenate(batches[:joined]), *batches[joined:]]
    for _ in range(short_of):
        largest = max(range(len(batches)), key=lambda i: len(batches[i]))
        middle = len(batches[largest]) // 2
        batches[largest : largest + 1] = np.split(batches[largest], [middle])
    return batches
