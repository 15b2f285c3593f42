"""Muon and AdamW as one optimizer: the same steps as the two of them, and a state that survives a checkpoint."""

from __future__ import annotations

import copy

import torch

from mr3.muon import Muon, MuonAdamW, is_block_matrix, orthogonalise


def model() -> torch.nn.Module:
    torch.manual_seed(0)
    parts = {"embed": torch.nn.Embedding(7, 6), "up": torch.nn.Linear(6, 9, bias=True), "down": torch.nn.Linear(9, 6)}
    return torch.nn.ModuleDict(parts)


def backward(net: torch.nn.Module) -> None:
    x = net["embed"](torch.arange(7))  # type: ignore[index]
    loss = (net["down"](net["up"](x).tanh()) ** 2).sum()  # type: ignore[index]
    net.zero_grad()
    loss.backward()


def test_it_steps_as_muon_and_adamw_do_apart() -> None:
    one, two = model(), model()
    joint = MuonAdamW(one.named_parameters(), lr=1e-2, muon_lr=0.05, weight_decay=0.0)
    named = list(two.named_parameters())
    apart = [
        Muon([p for n, p in named if is_block_matrix(n, p)], lr=0.05),
        torch.optim.AdamW([p for n, p in named if not is_block_matrix(n, p)], lr=1e-2, weight_decay=0.0),
    ]
    before = copy.deepcopy(one.state_dict())
    for _ in range(4):
        backward(one)
        joint.step()
        backward(two)
        for optimizer in apart:
            optimizer.step()
    for name, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[name]) and not torch.equal(value, before[name]), name


def test_a_checkpoint_goes_on_alike() -> None:
    one, two = model(), model()
    first = MuonAdamW(one.named_parameters(), lr=1e-2, muon_lr=0.05)
    backward(one)
    first.step()
    two.load_state_dict(one.state_dict())
    second = MuonAdamW(two.named_parameters(), lr=1.0, muon_lr=1.0)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for net, optimizer in ((one, first), (two, second)):
        backward(net)
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_orthogonalised_matrices_have_singular_values_near_one() -> None:
    torch.manual_seed(1)
    for shape in ((2, 8, 5), (1, 5, 8)):
        values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)))
        assert float(values.min()) > 0.5 and float(values.max()) < 1.3
