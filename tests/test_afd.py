"""Properties of AFD."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from distillation import Case, agreeing_case, build, case, edsr, rcan
from torch import Tensor, nn

from lsfd.distillers import DISTILLERS, DistillationBatch, Turn
from lsfd.distillers.afd import Discriminator, adversarial_loss, discriminator_loss
from lsfd.errors import LsfdError

TAP = "conv_after_body"


def afd(given: Case, **options: Any) -> Any:
    return build(DISTILLERS["AFD"], given, **options)


def three() -> Case:
    """A student and two peers, all of unequal width, one of another architecture."""
    return case(teachers=[], peers=[edsr(7, 4, seed=2), rcan(seed=3)])


def turn(distiller: Any, name: str) -> Turn:
    found = {turn.name: turn for turn in distiller.turns()}
    return found[name]


def summed(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(terms.values())).sum()


def touched(module: nn.Module) -> set[str]:
    """The parameters that have a gradient, be it zero."""
    return {name for name, p in module.named_parameters() if p.grad is not None}


def networks(given: Case) -> list[nn.Module]:
    return [given.student.network, *(peer.network for peer in given.peers)]


@pytest.mark.parametrize("peers", [1, 2, 3])
def test_as_many_discriminators_as_networks(peers: int) -> None:
    given = case(teachers=[], peers=[edsr(seed=number) for number in range(peers)])
    distiller = afd(given)
    assert len(distiller.discriminators) == 1 + peers
    parameters = {id(p) for p in distiller.discriminators.parameters()}
    assert len(parameters) == (1 + peers) * len(list(Discriminator(6, 64).parameters()))
    suffixes = ["", *(f"_peer{number}" for number in range(1, peers + 1))]
    for name in ("discriminator", "adversarial"):
        terms = distiller.turn_terms(turn(distiller, name), given.batch())
        assert list(terms) == [f"{name}{suffix}" for suffix in suffixes]


def test_the_discriminators_turn_leaves_the_networks_alone() -> None:
    given = three()
    distiller = afd(given)
    judging = turn(distiller, "discriminator")
    assert not judging.trains_networks
    # Even of features that carry gradients.
    summed(distiller.turn_terms(judging, given.batch())).backward()
    assert not any(touched(network) for network in networks(given))
    assert not touched(distiller.transfers)
    everything = {name for name, _ in distiller.discriminators.named_parameters()}
    assert touched(distiller.discriminators) == everything
    own = [id(p) for p in distiller.turn_parameters(judging)]
    assert own == [id(p) for p in distiller.discriminators.parameters()]


def test_the_networks_turn_leaves_the_discriminators_alone() -> None:
    given = three()
    distiller = afd(given)
    fooling = turn(distiller, "adversarial")
    assert fooling.trains_networks
    before = copy.deepcopy(distiller.discriminators.state_dict())
    parameters = [p for network in networks(given) for p in network.parameters()]
    optimizer = torch.optim.Adam([*parameters, *distiller.turn_parameters(fooling)], lr=0.1)
    summed(distiller.turn_terms(fooling, given.batch())).backward()
    assert not touched(distiller.discriminators)
    assert all(touched(network) for network in networks(given))
    everything = {name for name, _ in distiller.transfers.named_parameters()}
    assert everything and touched(distiller.transfers) == everything
    optimizer.step()
    for name, value in distiller.discriminators.state_dict().items():
        assert torch.equal(value, before[name]), name


def gradients_of(given: Case, loss: Tensor) -> list[bool]:
    """Which of the networks a loss reaches."""
    for network in networks(given):
        network.zero_grad()
    loss.backward()
    return [bool(touched(network)) for network in networks(given)]


def test_each_network_is_moved_by_its_own_discriminator_alone() -> None:
    given = three()
    distiller = afd(given)
    terms = distiller.turn_terms(turn(distiller, "adversarial"), given.batch())
    reached = [gradients_of(given, term) for term in terms.values()]
    assert reached == [[True, False, False], [False, True, False], [False, False, True]]


def perturbed(batch: DistillationBatch, index: int) -> DistillationBatch:
    """The same batch with another feature of one network."""

    def other(features: Any) -> dict[str, Tensor]:
        torch.manual_seed(index)
        return {name: torch.randn_like(feature) for name, feature in features.items()}

    if index == 0:
        return replace(batch, student_features=other(batch.student_features))
    features = list(batch.peer_features)
    features[index - 1] = other(features[index - 1])
    return replace(batch, peer_features=features)


@pytest.mark.parametrize("peers", [1, 2, 3])
def test_networks_stand_in_a_circle(peers: int) -> None:
    """D_k depends on the features of k and of the next one, the last on the first's."""
    count = 1 + peers
    given = case(teachers=[], peers=[edsr(seed=number) for number in range(1, count)])
    distiller, batch = afd(given), given.batch()
    judging, fooling = turn(distiller, "discriminator"), turn(distiller, "adversarial")

    def changed(which: Turn, index: int) -> list[bool]:
        before = list(distiller.turn_terms(which, batch).values())
        after = list(distiller.turn_terms(which, perturbed(batch, index)).values())
        return [not torch.equal(one, two) for one, two in zip(before, after, strict=True)]

    for index in range(count):
        assert changed(fooling, index) == [k == index for k in range(count)]
        assert changed(judging, index) == [index in (k, (k + 1) % count) for k in range(count)]


def test_images_are_learned_from_the_next_one() -> None:
    given = three()
    distiller, batch = afd(given), given.batch()
    first, second, third = batch.student, *batch.peers
    expected = sum(
        (one - other).abs().mean()
        for one, other in [(first, second), (second, third), (third, first)]
    )
    output = distiller(batch)["output"]
    torch.testing.assert_close(output, expected)
    # Each network is pulled towards the next one's image, and none pulls that one back.
    gradients = torch.autograd.grad(output, [first, second, third])
    pairs = [(first, second), (second, third), (third, first)]
    for gradient, (one, other) in zip(gradients, pairs, strict=True):
        torch.testing.assert_close(gradient, (one - other).sign() / one.numel())


def test_two_networks_are_symmetric() -> None:
    one, two = edsr(seed=1), edsr(seed=2)
    terms = []
    for student, peer in ((one, two), (two, one)):
        given = case(copy.deepcopy(student), [], [copy.deepcopy(peer)])
        distiller, batch = afd(given), given.batch()
        with torch.no_grad():  # both networks get the same critic
            for parameter in distiller.discriminators.parameters():
                parameter.fill_(0.1).flatten()[::2].mul_(-1)
        names = ("discriminator", "adversarial")
        own = [list(distiller.turn_terms(turn(distiller, n), batch).values()) for n in names]
        terms.append((distiller(batch)["output"], own))
    torch.testing.assert_close(terms[0][0], terms[1][0])
    for these, those in zip(terms[0][1], terms[1][1], strict=True):
        torch.testing.assert_close(torch.stack(these), torch.stack(those[::-1]))
        assert not torch.isclose(these[0], these[1])


def test_the_losses_of_known_scores() -> None:
    true, false = torch.tensor([0.75, 0.5]), torch.tensor([0.5, 0.25])
    assert discriminator_loss(true, false).item() == pytest.approx(
        (0.0625 + 0.25) / 2 + (0.25 + 0.0625) / 2
    )
    assert adversarial_loss(false).item() == pytest.approx((0.25 + 0.5625) / 2)


def test_a_discriminator_that_knows_nothing() -> None:
    given = three()
    distiller, batch = afd(given), given.batch()
    with torch.no_grad():
        for judge in distiller.discriminators:
            judge.layers[-1].weight.zero_()
            judge.layers[-1].bias.zero_()
    for name, value in (("discriminator", 0.5), ("adversarial", 0.25)):
        terms = distiller.turn_terms(turn(distiller, name), batch)
        assert [term.item() for term in terms.values()] == pytest.approx([value] * 3)


def test_equal_features_cannot_be_told_apart() -> None:
    """L_D is never below 1/2, and that is where training takes it."""
    given = agreeing_case()
    distiller, batch = afd(given), given.batch()
    with torch.no_grad():
        distiller.discriminators[0].layers[-1].bias.fill_(1.0)  # far from knowing nothing
    judging = turn(distiller, "discriminator")
    optimizer = torch.optim.Adam(distiller.turn_parameters(judging), lr=0.01)
    losses = []
    for _ in range(80):
        loss = distiller.turn_terms(judging, batch)["discriminator"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert min(losses) >= 0.5 and losses[0] > 0.55 and losses[-1] < 0.51


def test_unequal_features_can() -> None:
    given = three()
    distiller, batch = afd(given), given.batch()
    judging = turn(distiller, "discriminator")
    optimizer = torch.optim.Adam(distiller.turn_parameters(judging), lr=0.01)
    for _ in range(40):
        terms = distiller.turn_terms(judging, batch)
        optimizer.zero_grad()
        summed(terms).backward()
        optimizer.step()
    assert all(term.item() < 0.3 for term in terms.values())


def test_networks_learn_to_fool() -> None:
    given = three()
    distiller = afd(given)
    fooling = turn(distiller, "adversarial")
    parameters = [p for network in networks(given) for p in network.parameters()]
    optimizer = torch.optim.Adam([*parameters, *distiller.turn_parameters(fooling)], lr=1e-3)
    losses = []
    for _ in range(15):
        terms = distiller.turn_terms(fooling, given.batch())
        optimizer.zero_grad()
        summed(terms).backward()
        optimizer.step()
        losses.append([term.item() for term in terms.values()])
    assert all(last < first for first, last in zip(losses[0], losses[-1], strict=True))


def test_the_scale_of_features_tells_nothing() -> None:
    torch.manual_seed(0)
    judge, feature = Discriminator(6, 8), 50 * torch.randn(3, 6, 8, 10)
    scale = torch.rand(6, 1, 1) + 0.5
    scores = judge(feature)
    torch.testing.assert_close(judge(feature * scale + 100), scores, rtol=1e-3, atol=1e-3)
    assert scores.shape == (3, 1, 8, 10) and scores.dtype == torch.float32
    assert scores.std() > 0.01


def test_layers_between_widths_only_where_they_differ() -> None:
    def widths(given: Case) -> list[tuple[int, int] | None]:
        return [
            (layer.in_channels, layer.out_channels) if isinstance(layer, nn.Conv2d) else None
            for layer in afd(given).transfers
        ]

    assert widths(three()) == [(6, 8), (7, 8), None]
    assert widths(case(edsr(9), [], [edsr(7)])) == [None, (7, 9)]
    assert widths(case(edsr(), [], [edsr(seed=1)])) == [None, None]


def test_the_last_tap_counts() -> None:
    given = three()
    distiller = afd(given)
    assert distiller.student_tap == TAP and distiller.peer_taps == [TAP, TAP]


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_flat_features_are_harmless(value: float) -> None:
    given = three()
    distiller, batch = afd(given), given.batch()
    flat = replace(
        batch,
        student_features={
            name: torch.full_like(feature, value).requires_grad_()
            for name, feature in batch.student_features.items()
        },
        peer_features=[
            {name: torch.full_like(feature, value) for name, feature in features.items()}
            for features in batch.peer_features
        ],
    )
    for each in distiller.turns():
        loss = summed(distiller.turn_terms(each, flat))
        loss.backward()
        assert loss.isfinite()
    gradients = [p.grad for p in distiller.parameters()] + [flat.student_features[TAP].grad]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "^width: must be at least 1, not 0"),
        ({"adversarial_lr": 0.0}, "^adversarial_lr: must be more than 0, not 0"),
        ({"discriminator_lr": -1.0}, "^discriminator_lr: must be more than 0, not -1"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(LsfdError, match=message):
        afd(three(), **options)
