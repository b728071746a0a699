"""What a step's time is parted into: the operations that PyTorch really runs have their part."""

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.parts import PARTS, part_of


def test_every_part_is_found_in_a_step_that_has_it() -> None:
    lstm, conv, output = nn.LSTM(4, 8), nn.Conv1d(8, 8, 3), nn.Linear(8, 5)
    parameters = [*lstm.parameters(), *conv.parameters(), *output.parameters()]
    optimizer = torch.optim.Adam(parameters, fused=True)
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        states, _ = lstm(torch.randn(6, 2, 4))  # [T, B, H]
        logits = output(conv(states.permute(1, 2, 0)).flatten(0, 1).view(-1, 8))
        nn.functional.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long)).backward()
        optimizer.step()
    assert {part_of(event.key) for event in seen.key_averages()} >= set(PARTS)


def test_what_fits_none_is_the_rest() -> None:
    assert part_of("aten::tanh") == "the rest"
