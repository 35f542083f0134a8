"""Pins soft labels: the raters' distribution, the batch, and the loss against a computation by hand."""

import json
import math

import pytest
import torch
from datasets import Dataset
from helpers.iemocap_tree import write_tree
from helpers.tiny import check_refused, run_flags, run_script
from transformers import Wav2Vec2FeatureExtractor

from modeling_ser_mtl import annotated, classification_loss
from ser_mtl.corpora.batching import Collator
from ser_mtl.corpora.iemocap import read_iemocap
from ser_mtl.corpora.raters import emotion_distribution
from ser_mtl.corpora.targets import with_targets
from ser_mtl.corpora.utterances import FEATURES

LABELS = ["angry", "happy", "neutral", "sad"]


def rater(name: str, *categories: str) -> dict:
    return {"rater": name, "categories": list(categories), "comment": None} | dict.fromkeys(
        ("valence", "activation", "dominance")
    )


@pytest.mark.parametrize(
    ("raters", "expected"),
    [
        ([rater("C-E1", "Anger"), rater("C-E2", "Anger"), rater("C-E3", "Neutral")], [2 / 3, 0, 1 / 3, 0]),
        ([rater("C-E1", "Happiness"), rater("C-E2", "Excited")], [0, 1, 0, 0]),
        ([rater("C-E1", "Anger", "Frustration"), rater("C-E2", "Sadness")], [1 / 3, 0, 0, 2 / 3]),
        ([rater("C-E1", "Sadness"), rater("C-F1", "Anger"), rater("A-E3")], [0, 0, 0, 1]),
        ([rater("C-E1", "Frustration"), rater("C-E2", "Other"), rater("C-M1", "Anger")], None),
        ([], None),
    ],
    ids=["shares", "merged", "divided vote", "outside raters only", "none left", "no raters"],
)
def test_every_outside_rater_has_one_vote_among_the_classes(raters, expected):
    found = emotion_distribution(raters, LABELS)
    assert found is None if expected is None else found == pytest.approx(expected)


def test_the_raters_of_iemocap_files_become_targets(tmp_path):
    write_tree(tmp_path)
    corpus = with_targets(read_iemocap(tmp_path, check_counts=False), {"emotion": LABELS}, None, soft_labels=True)
    # Each has one vote for neutral and half a vote for anger. The other half and the actor's vote do not count.
    assert all(target == pytest.approx([1 / 3, 0, 2 / 3, 0]) for target in corpus["emotion_labels"])


def corpus_of(*rows: dict) -> Dataset:
    return Dataset.from_list([dict.fromkeys(FEATURES) | {"raters": []} | row for row in rows], features=FEATURES)


def test_without_votes_the_label_counts_and_without_label_nothing():
    disagreeing = [rater("C-E1", "Frustration")]
    heard = [rater("C-E1", "Sadness")]
    corpus = corpus_of(
        {"emotion": "sad", "raters": disagreeing},
        {"emotion": None, "raters": heard},
        {"emotion": "angry", "raters": heard},
    )
    targets = with_targets(corpus, {"emotion": LABELS}, None, soft_labels=True)["emotion_labels"]
    assert list(targets) == [[0, 0, 0, 1], [-100] * 4, [0, 0, 0, 1]]


def test_the_loss_is_the_cross_entropy_to_the_distribution():
    logits = torch.tensor([[1.0, 2.0, 0.5], [0.0, 0.0, 0.0], [3.0, 1.0, 2.0]])
    targets = torch.tensor([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0], [-100.0, -100.0, -100.0]])
    log_sum = math.log(math.exp(1) + math.exp(2) + math.exp(0.5))
    by_hand = [log_sum - (0.5 * 1.0 + 0.25 * 2.0 + 0.25 * 0.5), math.log(3), 0.0]
    torch.testing.assert_close(classification_loss(logits, targets), torch.tensor(by_hand))
    assert annotated("emotion", targets).tolist() == [True, True, False]


def test_an_utterance_without_a_label_has_no_gradient():
    logits = torch.randn(2, 3, requires_grad=True)
    classification_loss(logits, torch.tensor([[-100.0] * 3, [0.2, 0.3, 0.5]])).sum().backward()
    assert logits.grad[0].tolist() == [0, 0, 0] and logits.grad[1].abs().sum() > 0


def test_a_one_hot_distribution_gives_the_loss_of_the_hard_label():
    logits, hard = torch.randn(5, 4), torch.tensor([0, 3, 1, 2, -100])
    soft = torch.nn.functional.one_hot(hard.clamp(min=0), 4).float().masked_fill(hard[:, None] < 0, -100)
    torch.testing.assert_close(classification_loss(logits, soft), classification_loss(logits, hard))


def test_a_batch_holds_a_distribution_for_each_utterance():
    corpus = corpus_of({"emotion": "sad", "raters": [rater("C-E1", "Sadness"), rater("C-E2", "Anger")]}, {})
    corpus = with_targets(corpus, {"emotion": LABELS}, None, soft_labels=True)
    corpus = corpus.add_column("row", [0, 1]).add_column("samples", [[1, 2, 3], [4, 5]])
    rows = corpus.select_columns(["row", "samples", "emotion_labels"]).with_format("numpy")
    batch = Collator(Wav2Vec2FeatureExtractor())([rows[0], rows[1]])
    expected = torch.tensor([[0.5, 0, 0, 0.5], [-100.0] * 4])
    torch.testing.assert_close(batch["emotion_labels"], expected)


def test_a_corpus_without_raters_is_refused(good_corpus, encoder, tmp_path):
    flags = run_flags(good_corpus, tmp_path / "out", encoder=encoder)
    check_refused("run_stage1", [*flags, "--soft_labels"], "soft_labels: ", "no rater")


def test_a_run_trains_on_soft_labels_and_is_scored_on_hard_ones(tmp_path, encoder):
    flags = ["--corpus", "iemocap", "--data_dir", tmp_path / "tree", "--no_check_counts", "--fold", 1]
    write_tree(tmp_path / "tree")
    flags += ["--encoder", encoder, "--output_dir", tmp_path / "out", "--soft_labels", "--selection", "last"]
    ended = run_script("run_stage1", [*flags, "--tasks", "emotion", "--num_train_epochs", 2, "--learning_rate", 1e-2])
    assert ended.code == 0, ended.stderr
    loss = [
        entry["loss_emotion"] for entry in json.loads((tmp_path / "out/history.json").read_text()) if "loss" in entry
    ]
    # All recordings are silent and all targets are 1/3 and 2/3, so the loss approaches the entropy of the targets.
    assert loss[-1] == pytest.approx(math.log(3) - 2 / 3 * math.log(2), abs=0.1)
    emotion = json.loads((tmp_path / "out/results.json").read_text())["test"]["all"]["emotion"]
    assert [sum(row) for row in emotion["confusion_matrix"]] == [16, 32, 16, 16]
