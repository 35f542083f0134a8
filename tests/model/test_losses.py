"""Every loss of the method against a computation by hand."""

import itertools
import math

import pytest
import torch

from modeling_ser_mtl import (
    SerMtlConfig,
    classification_loss,
    ctc_loss,
    loss_weights,
    masked_mean,
    self_contrastive_loss,
    weighted_loss,
)
from ser_mtl.model.spec_augment import span_mask


def config(tasks, **more):
    labels = {"emotion": list("abcd"), "gender": list("fm"), "style": list("is")}
    return SerMtlConfig(tasks=tasks, labels=labels, **more)


def test_cross_entropy_is_minus_the_log_of_the_softmax():
    logits = torch.tensor([[1.0, 2.0, 0.5], [0.0, 0.0, 0.0]])
    by_hand = [-math.log(math.exp(2) / (math.exp(1) + math.exp(2) + math.exp(0.5))), math.log(3)]
    torch.testing.assert_close(classification_loss(logits, torch.tensor([1, 2])), torch.tensor(by_hand))


def test_an_utterance_without_label_has_no_cross_entropy():
    assert classification_loss(torch.randn(2, 3), torch.tensor([-100, 0])).tolist()[0] == 0


def ctc_by_enumeration(probabilities: torch.Tensor, target: list[int], blank: int) -> float:
    """Minus the log of the summed probability of every path of frames that collapses to the target."""
    frames, vocabulary = probabilities.shape
    total = 0.0
    for path in itertools.product(range(vocabulary), repeat=frames):
        collapsed = [symbol for symbol, _ in itertools.groupby(path) if symbol != blank]
        if collapsed == target:
            total += math.prod(float(probabilities[i, symbol]) for i, symbol in enumerate(path))
    return -math.log(total)


def test_ctc_sums_over_all_paths_and_divides_by_the_characters():
    torch.manual_seed(0)
    logits = torch.randn(3, 5, 3)
    lengths = torch.tensor([5, 4, 3])
    labels = torch.tensor([[1, 2, 1], [2, 2, -100], [-100, -100, -100]])
    probabilities = logits.softmax(dim=-1)
    by_hand = [
        ctc_by_enumeration(probabilities[0], [1, 2, 1], 0) / 3,
        ctc_by_enumeration(probabilities[1, :4], [2, 2], 0) / 2,
        0.0,
    ]
    torch.testing.assert_close(ctc_loss(logits, lengths, labels, blank=0), torch.tensor(by_hand))
    sums = torch.tensor(by_hand) * torch.tensor([3, 2, 1])
    for scale in ("utterance", "batch"):
        torch.testing.assert_close(ctc_loss(logits, lengths, labels, 0, scale), sums)


def test_ctc_of_a_target_longer_than_its_frames_is_zero():
    logits = torch.randn(1, 2, 4, requires_grad=True)
    loss = ctc_loss(logits, torch.tensor([2]), torch.tensor([[1, 2, 3]]), blank=0)
    loss.sum().backward()
    assert loss.item() == 0
    assert logits.grad.isfinite().all()


def test_scl_norm_is_the_sum_of_the_distances():
    x = [torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]]), torch.tensor([[3.0, 0.0]])]
    torch.testing.assert_close(self_contrastive_loss(x, "norm"), torch.tensor([5.0 + 3.0 + 4.0]))


def test_scl_cos_is_minus_the_sum_of_the_cosines():
    x = [torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 1.0]]), torch.tensor([[0.0, 2.0]])]
    by_hand = -(math.sqrt(0.5) + 0.0 + math.sqrt(0.5))
    torch.testing.assert_close(self_contrastive_loss(x, "cos"), torch.tensor([by_hand]))


@pytest.mark.parametrize("form", ["norm", "cos"])
def test_a_step_down_the_scl_gradient_pulls_every_pair_together(form):
    torch.manual_seed(1)
    x = [torch.randn(6, 8, requires_grad=True) for _ in range(3)]
    self_contrastive_loss(x, form).sum().backward()
    moved = [(embedding - 0.05 * embedding.grad).detach() for embedding in x]
    for (a, b), (c, d) in zip(itertools.combinations(x, 2), itertools.combinations(moved, 2), strict=True):
        if form == "norm":
            assert ((c - d).norm(dim=1) < (a - b).norm(dim=1)).all()
        else:
            assert torch.cosine_similarity(c, d).mean() > torch.cosine_similarity(a, b).mean()


def test_scl_norm_of_equal_embeddings_has_a_finite_gradient():
    x = torch.ones(2, 4, requires_grad=True)
    self_contrastive_loss([x, x * 1.0, x * 1.0], "norm").sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize(
    ("tasks", "scl", "expected"),
    [
        (["emotion", "asr", "gender", "style"], "none", {"emotion": 0.7, "asr": 0.1, "gender": 0.1, "style": 0.1}),
        (["emotion", "asr"], "none", {"emotion": 0.9, "asr": 0.1}),
        (["emotion", "gender", "style"], "cos", {"emotion": 0.8, "gender": 0.1, "style": 0.1, "scl": 1.0}),
        (["emotion"], "none", {"emotion": 1.0}),
    ],
    ids=["eq3", "eq4", "eq5+7", "emotion alone"],
)
def test_loss_weights_are_those_of_the_equations(tasks, scl, expected):
    assert loss_weights(config(tasks, scl=scl)) == pytest.approx(expected)


def test_the_weighted_loss_is_a_mean_over_annotated_utterances():
    losses = {"emotion": torch.tensor([1.0, 0.0, 3.0]), "asr": torch.tensor([0.0, 0.0, 5.0])}
    counts = {"emotion": 2, "asr": 1}
    loss = weighted_loss(config(["emotion", "asr"]), losses, counts)
    assert loss.item() == pytest.approx(0.9 * (1 + 3) / 2 + 0.1 * 5)


def test_a_task_that_nobody_in_the_batch_is_annotated_for_adds_nothing():
    losses = {"emotion": torch.tensor([2.0]), "asr": torch.tensor([0.0])}
    assert weighted_loss(config(["emotion", "asr"]), losses, {"emotion": 1, "asr": 0}).item() == pytest.approx(1.8)


def test_the_masked_mean_leaves_padding_out():
    frames = torch.tensor([[[1.0], [3.0], [100.0]], [[5.0], [7.0], [9.0]]])
    mask = torch.tensor([[True, True, False], [True, True, True]])
    torch.testing.assert_close(masked_mean(frames, mask), torch.tensor([[2.0], [7.0]]))


def test_specaugment_masks_whole_spans_inside_real_frames():
    torch.manual_seed(0)
    lengths = torch.tensor([100, 50, 7])
    mask = span_mask(lengths, 100, probability=0.3, span=10, min_spans=1)
    assert not mask[1, 50:].any()
    assert not mask[2].any(), "an utterance shorter than a span is left alone"
    runs = [len(list(group)) for value, group in itertools.groupby(mask[0].tolist()) if value]
    assert runs and min(runs) >= 10


def expected_share(frames: int, probability: float, span: int, min_spans: int) -> float:
    """The share of frames that the documented number of spans covers, if each of their starts is as likely."""
    wanted, starts = probability * frames / span, frames - span + 1

    def covered(spans: int) -> float:
        spans = min(max(spans, min_spans), frames // span)
        reaching = [min(i, starts - 1) - max(0, i - span + 1) + 1 for i in range(frames)]  # starts that cover frame i
        return sum(1 - math.comb(starts - n, spans) / math.comb(starts, spans) for n in reaching) / frames

    more = wanted - math.floor(wanted)
    return (1 - more) * covered(math.floor(wanted)) + more * covered(math.floor(wanted) + 1)


# Frames of 0.3, 0.6, 3.6 and 11 seconds; XLS-R masks two spans at least, which decides for the shorter three.
@pytest.mark.parametrize(("frames", "min_spans"), [(15, 2), (30, 2), (178, 2), (178, 0), (550, 2)])
def test_specaugment_masks_the_share_of_the_formula(frames, min_spans):
    torch.manual_seed(0)
    mask = span_mask(torch.full((8000,), frames), frames, probability=0.075, span=10, min_spans=min_spans)
    assert mask.float().mean().item() == pytest.approx(expected_share(frames, 0.075, 10, min_spans), abs=0.002)
