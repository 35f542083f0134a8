"""The emotion heads of earlier systems against their definitions, and each in a run of its own."""

import json
import math

import pytest
import torch
import torch.nn.functional as F
from helpers.encoders import all_tasks_config
from helpers.tiny import check_one_line, check_refused, run_flags, run_script
from torch import Tensor

from modeling_ser_mtl import SerMtlModel
from ser_mtl.research.asr_fusion import AsrFusion, Transcript
from ser_mtl.research.co_attention import SEGMENT, CoAttention, co_attend, mean_by, segments
from ser_mtl.research.heads import FramesHead, MeanHead, RectifiedMeanHead, mean_cross_entropy
from ser_mtl.research.layer_attention import AllLayers, LayerAttention
from ser_mtl.training.loss_targets import LossTargets, balanced_weights

DIM, CLASSES = 32, 4


def model(**more) -> SerMtlModel:
    torch.manual_seed(0)
    return SerMtlModel(all_tasks_config(**more)).eval()


def padded() -> tuple[Tensor, Tensor]:
    """Frames of two utterances, of 7 and 3 real ones, with noise where there is no frame."""
    torch.manual_seed(1)
    return torch.randn(2, 7, DIM), torch.arange(7) < torch.tensor([[7], [3]])


# ------------------------------------------------------------------------------------------------------ co-attention


def test_co_attention_is_a_weighted_sum_whose_weights_need_not_sum_to_one():
    frames = torch.tensor([[[1.0, 2.0], [3.0, 5.0]], [[1.0, 0.0], [0.0, 1.0]]])
    weights = torch.tensor([[0.5, 2.0], [0.0, 3.0]])
    assert co_attend(weights, frames).tolist() == [[6.5, 11.0], [0.0, 3.0]]


def test_segments_are_full_and_the_last_one_begins_earlier():
    waveforms = torch.zeros(3, 2 * SEGMENT + 9)
    waveforms[:, :] = torch.arange(2 * SEGMENT + 9)
    pieces, owners = segments(waveforms, [2 * SEGMENT + 9, SEGMENT, 5])
    assert owners.tolist() == [0, 0, 0, 1, 2]
    assert [(int(piece[0]), int(piece[-1])) for piece in pieces] == [
        (0, SEGMENT - 1), (SEGMENT, 2 * SEGMENT - 1), (SEGMENT + 9, 2 * SEGMENT + 8), (0, SEGMENT - 1), (0, 4)
    ]  # fmt: skip
    assert pieces[4][-5:].tolist() == [0, 1, 2, 3, 4] and not pieces[4][:-5].any()


def test_an_utterance_is_the_mean_of_its_segments_and_does_not_depend_on_the_batch():
    owner = model()
    head = CoAttention(owner, CLASSES, normalise=True).eval()
    waveforms, mask = torch.randn(2, SEGMENT + 800), torch.ones(2, SEGMENT + 800, dtype=torch.long)
    waveforms[1] *= 1e-4  # so quiet that a range shared with the other would leave nothing of it
    mask[1, 5000:] = 0

    def answer(rows: list[int]) -> Tensor:
        inputs = head.prepare({"input_values": waveforms[rows], "attention_mask": mask[rows]})
        features, lengths = owner.extract_features(inputs["input_values"], inputs["attention_mask"])
        frames, frame_mask, _ = owner.encode(features, lengths)
        return head(frames, frame_mask)[1]

    with torch.no_grad():
        together = answer([0, 1])
        assert torch.allclose(together, torch.cat([answer([0]), answer([1])]), atol=1e-5)
    assert mean_by(torch.tensor([0, 0, 1]), torch.tensor([[1.0], [3.0], [5.0]])).tolist() == [[2.0], [5.0]]


def test_the_loss_of_parts_is_the_mean_of_their_cross_entropies():
    logits, labels = torch.randn(2, 5, CLASSES), torch.tensor([2, -100])
    found = mean_cross_entropy(logits.log_softmax(-1).mean(1), labels)
    assert found[0] == pytest.approx(float(F.cross_entropy(logits[0], torch.full((5,), 2)))) and found[1] == 0
    shares = torch.tensor([[0.0, 0.0, 1.5, 0.0], [-100.0] * 4])  # a class weight of 1.5; not annotated
    assert torch.allclose(
        mean_cross_entropy(logits.log_softmax(-1).mean(1), shares), torch.stack([1.5 * found[0], found[1]])
    )


# ----------------------------------------------------------------------------------------------------- mean of frames


def test_mean_heads_are_a_linear_layer_on_the_mean_of_real_frames():
    frames, mask = padded()
    for head_class, change in ((MeanHead, lambda x: x), (RectifiedMeanHead, F.relu)):
        head = head_class(model(), CLASSES)
        mean = change(frames[1, :3]).mean(0)
        embedding, logits = head(frames, mask)
        assert torch.allclose(embedding[1], mean, atol=1e-6)
        assert torch.allclose(logits[1], head.linear.weight @ mean + head.linear.bias, atol=1e-6)


def test_emotion_is_learned_on_every_frame_too():
    frames, mask = padded()
    head = FramesHead(model(), CLASSES)
    labels = torch.tensor([1, 3])
    usual = F.cross_entropy(head(frames, mask)[1], labels, reduction="none")
    of_frames = F.cross_entropy(head.of_frame(frames[1, :3]), torch.tensor([3] * 3))
    torch.testing.assert_close(head.loss(usual, labels)[1], usual[1] + of_frames)


def test_class_weights_are_those_of_chen_whose_sum_is_one():
    train = {"emotion": ["angry"] * 6 + ["happy"] * 3 + ["sad"]}
    weights = balanced_weights(train, {"emotion": ["angry", "happy", "sad"]})
    ours = torch.tensor(list(weights["emotion"].values()))
    inverse = 1 / torch.tensor([0.6, 0.3, 0.1])
    assert torch.allclose(ours / ours.sum(), inverse / inverse.sum())
    targets = LossTargets({"emotion": ["angry", "happy", "sad"]}, 0.0, weights)
    batch, logits = {"emotion_labels": torch.tensor([0, 2, 1, 0])}, torch.randn(4, 3)
    scale = {"emotion": 4 / targets.weight_sums([batch])["emotion"]}
    shares = targets.of_batch(batch, scale)["emotion_labels"]
    found = F.cross_entropy(logits, shares, reduction="none").sum() / 4
    assert torch.allclose(found, F.cross_entropy(logits, batch["emotion_labels"], weight=inverse / inverse.sum()))


# ------------------------------------------------------------------------------------------------- layers of an encoder


def test_layer_attention_is_that_computed_by_hand():
    owner = model(layer_weights=True)
    head = LayerAttention(owner, CLASSES).eval()
    assert isinstance(owner.layer_weights, AllLayers) and head.attention.num_heads == 8
    states = [torch.randn(2, 7, DIM) for _ in range(3)]
    mask = padded()[1]
    embedding, logits = head(owner.layer_weights(states), mask)
    x = torch.stack([F.layer_norm(state, (DIM,))[1, :3].mean(0) for state in states[1:]])  # without the first's input
    qkv = x @ head.attention.in_proj_weight.T + head.attention.in_proj_bias
    q, k, v = (part.view(2, 8, 4).transpose(0, 1) for part in qkv.split(DIM, dim=1))
    weights = (q @ k.transpose(1, 2) / math.sqrt(4)).softmax(-1)
    attended = head.attention.out_proj((weights @ v).transpose(0, 1).reshape(2, DIM))
    assert torch.allclose(embedding[1], head.projection(attended.mean(0)), atol=1e-5)
    assert torch.allclose(logits[1], head.classifier(embedding[1]), atol=1e-6)
    received = head.record()["layers"]
    assert sum(received) == pytest.approx(1, abs=1e-3) and head.record() is None
    head(owner.layer_weights([state[1:] for state in states]), mask[1:])
    assert head.record()["layers"] == pytest.approx(weights.mean((0, 1)).tolist(), abs=1e-4)


# -------------------------------------------------------------------------------------------------------- words heard


def test_what_is_padded_has_no_part_in_the_fusion():
    owner = model()
    head = AsrFusion(owner, CLASSES).eval()
    frames, mask = padded()
    middle = torch.randn(2, 7, DIM)

    def answer(rows: slice, length: int) -> Tensor:
        head._middle = middle[rows, :length]
        return head(frames[rows, :length], mask[rows, :length])[1]

    with torch.no_grad():
        assert torch.allclose(answer(slice(0, 2), 7)[1], answer(slice(1, 2), 3)[0], atol=1e-5)


def test_the_fusion_sees_the_middle_layer_and_leaves_the_ctc_head_alone():
    owner = model()
    owner.heads["emotion"] = head = AsrFusion(owner, CLASSES)
    assert not any(parameter is owner.ctc_head.weight for parameter in head.parameters())
    output = owner(torch.randn(2, 8000), emotion_labels=torch.tensor([0, 1]))
    assert head._middle is None
    output.losses["emotion"].sum().backward()
    assert owner.ctc_head.weight.grad is None
    states = owner.encode(*owner.extract_features(torch.randn(2, 8000)))[2]
    assert torch.equal(head._middle, states[1])  # of two layers, the first one's output


def test_an_empty_transcript_is_one_learned_vector():
    transcript = Transcript(vocab_size=5, dim=DIM)
    read, mask = transcript(torch.tensor([[-100, -100], [3, -100], [3, 4]]))
    assert mask.tolist() == [[True, False], [True, False], [True, True]]
    lone, _ = transcript.lstm(transcript.embedding.weight[5].view(1, 1, -1))
    assert torch.allclose(read[0, 0], transcript.projection(lone)[0, 0], atol=1e-6)
    assert not torch.allclose(read[0, 0], read[1, 0])


# ------------------------------------------------------------------------------------------------------ whole runs


def trained(corpus, encoder, output, **flags):
    brief = {"max_steps": 1, "per_device_train_batch_size": 2, "selection": "last", "save_strategy": "no"}
    brief |= {"eval_strategy": "no"}
    ended = run_script("run_stage1", run_flags(corpus, output, encoder=encoder, **brief, **flags))
    assert ended.code == 0, ended.stderr
    return output


@pytest.mark.parametrize(
    ("head", "flags"),
    [
        ("co_attention", {"tasks": ["emotion"]}),
        ("asr_fusion", {"tasks": ["emotion", "asr"]}),
        ("layer_attention", {"tasks": ["emotion"], "trainable": "heads"}),
    ],
)
def test_a_run_has_results_and_is_neither_loaded_nor_published(good_corpus, encoder, tmp_path, head, flags):
    run = trained(good_corpus, encoder, tmp_path / "run", emotion_head=head, **flags)
    results = json.loads((run / "results.json").read_text())
    assert results["research"] == f"emotion head {head}" and 0 <= results["test"]["all"]["emotion"]["ua"] <= 1
    assert (run / "predictions.jsonl").is_file() and "earlier system" in (run / "README.md").read_text()
    assert (run / "emotion_head.json").is_file() == (head == "layer_attention")
    check_one_line(run_script("publish", [run, "--repo_id", "ada/head"]), "publish", "earlier system", head)
    check_one_line(run_script("predict", [good_corpus, "--model", run]), "predict", run, head)


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ({"emotion_head": "asr_fusion", "tasks": ["emotion"]}, "asr among --tasks"),
        ({"emotion_head": "layer_attention", "tasks": ["emotion"]}, "--trainable heads"),
        ({"emotion_head": "co_attention", "tasks": ["emotion", "asr"]}, "--tasks emotion"),
        ({"emotion_head": "layer_attention", "tasks": ["emotion", "gender"], "trainable": "heads"}, "--tasks emotion"),
        ({"emotion_head": "linear", "trainable": "adapters"}, "--trainable all"),
        ({"emotion_head": "linear", "push_to_hub": True, "hub_model_id": "ada/x"}, "--push_to_hub"),
    ],
)
def test_a_head_names_what_it_needs(good_corpus, encoder, tmp_path, flags, named):
    check_refused("run_stage1", run_flags(good_corpus, tmp_path / "out", encoder=encoder, **flags), named)
