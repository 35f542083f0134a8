"""Calibration: ECE of known cases, the temperature against a grid search, and that a run stores its temperature."""

import json

import numpy as np
import pytest
from helpers.tiny import run_flags, run_script
from scipy.special import softmax

from modeling_ser_mtl import SerMtlConfig
from ser_mtl.errors import Notice
from ser_mtl.evaluation.calibration import (
    BINS,
    calibrated,
    calibration,
    emotion_probabilities,
    fit_temperature,
    reliability,
    tempered,
)
from ser_mtl.evaluation.figures import figure_bins, plot_reliability
from ser_mtl.evaluation.predictions import read_predictions

RNG = np.random.default_rng(0)


def two_classes(confidence: list[float]) -> np.ndarray:
    return np.array([[p, 1 - p] for p in confidence])


def drawn(n: int, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of n utterances, and targets drawn under `temperature`, which is the one to find."""
    logits = RNG.normal(0, 3, (n, 4))
    truth = softmax(logits / temperature, axis=1)
    targets = np.array([RNG.choice(4, p=p) for p in truth])
    return softmax(logits, axis=1), targets


def test_ece_of_a_case_computed_by_hand():
    # Two of three are correct at 0.9, and both of two at 0.6: (3 * |2/3 - 0.9| + 2 * |1 - 0.6|) / 5.
    measured = reliability(two_classes([0.9, 0.9, 0.9, 0.6, 0.6]), np.array([0, 0, 1, 0, 0]))
    assert measured.error == pytest.approx((3 * (0.9 - 2 / 3) + 2 * 0.4) / 5)
    assert measured.count.sum() == 5 and (measured.count > 0).sum() == 2


def test_ece_is_that_of_a_plain_loop_over_bins():
    probabilities, targets = drawn(500, 2.5)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == targets
    by_hand = 0.0
    for i in range(BINS):
        inside = (confidence > i / BINS) & (confidence <= (i + 1) / BINS)
        if inside.any():
            by_hand += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert reliability(probabilities, targets).error == pytest.approx(by_hand)


@pytest.mark.parametrize(("targets", "error"), [([0, 0, 0], 0.0), ([1, 1, 1], 1.0)])
def test_certainty_is_perfect_or_as_wrong_as_can_be(targets, error):
    assert reliability(two_classes([1.0, 1.0, 1.0]), np.array(targets)).error == error


@pytest.mark.parametrize("right", [0.6, 1.0, 2.5])
def test_the_temperature_is_the_likeliest_of_a_grid(right):
    probabilities, targets = drawn(4000, right)
    grid = np.geomspace(0.1, 10, 2001)
    losses = [-np.log(tempered(probabilities, t)[np.arange(4000), targets]).mean() for t in grid]
    fitted = fit_temperature(probabilities, targets)
    assert fitted == pytest.approx(grid[np.argmin(losses)], rel=0.01)
    assert fitted == pytest.approx(right, rel=0.1)
    assert reliability(tempered(probabilities, fitted), targets).error < 0.03


def test_tempering_probabilities_is_tempering_logits():
    logits = RNG.normal(0, 5, (50, 4))
    np.testing.assert_allclose(tempered(softmax(logits, axis=1), 3.0), softmax(logits / 3.0, axis=1), rtol=1e-9)


def test_probabilities_of_zero_and_perfect_answers_stay_finite():
    certain, right = two_classes([1.0, 1.0]), np.array([0, 0])
    assert 0.1 <= fit_temperature(certain, right) <= 10
    assert np.isfinite(fit_temperature(certain, np.array([0, 1])))


def test_a_temperature_that_makes_dev_no_likelier_is_one():
    probabilities, targets = two_classes([0.75] * 4), np.array([0, 0, 0, 1])  # likeliest as they are
    assert fit_temperature(probabilities, targets) == 1
    assert fit_temperature(np.full((6, 4), 0.25), np.arange(6) % 4) == 1  # no temperature changes them
    assert fit_temperature(np.zeros((0, 4)), np.zeros(0, dtype=int)) == 1


def test_a_temperature_at_the_bound_of_its_search_has_a_notice():
    wrong = [{"emotion": {"label": "a", "probabilities": {"a": 1e-9, "b": 1 - 1e-9}}}] * 4
    with pytest.warns(Notice, match="is at the bound of its search"):
        assert calibration(wrong, wrong)["temperature"] > 9.9


def test_calibrated_rows_turn_back_into_plain_ones():
    plain = rows(*drawn(50, 2.0))
    scaled = calibrated(plain, 2.5)
    expected = tempered(emotion_probabilities(plain)[0], 2.5)
    np.testing.assert_allclose(emotion_probabilities(scaled)[0], expected, rtol=1e-5)
    back, _ = emotion_probabilities(calibrated(scaled, 1 / 2.5))
    np.testing.assert_allclose(back, emotion_probabilities(plain)[0], rtol=1e-4)
    assert calibrated(plain, 1.0) == plain
    assert calibrated([{"gender": {}}], 2.0) == [{"gender": {}}]


def test_it_is_said_what_the_temperature_was_fitted_on():
    test, dev = drawn(40, 2.0), rows(*drawn(30, 2.0))
    for number, row in enumerate(dev):
        row["speaker"] = (None, "anna", "ben")[number % 3]
    dev[1]["emotion"]["label"] = None
    errors = calibration(rows(*test), dev, {"anna", "carl", None})
    assert errors["fitted_on"] == {"utterances": 29, "speakers": 2, "also_in_training": 1}


def rows(probabilities: np.ndarray, targets: np.ndarray) -> list[dict]:
    """Prediction rows with the classes a, b, c, d."""
    named = [dict(zip("abcd", p, strict=True)) for p in probabilities.tolist()]
    return [{"emotion": {"label": "abcd"[t], "probabilities": p}} for p, t in zip(named, targets, strict=True)]


def test_calibration_of_a_run_counts_annotated_rows_only():
    dev, test = drawn(800, 3.0), drawn(600, 3.0)
    unlabelled = rows(*test)[0]
    unlabelled["emotion"]["label"] = None
    errors = calibration([unlabelled, *rows(*test)], rows(*dev))
    assert errors["temperature"] == pytest.approx(fit_temperature(*dev), abs=1e-4)
    assert errors["test"]["before"] == pytest.approx(reliability(*test).error)
    assert errors["test"]["after"] < 0.06 < 0.1 < errors["test"]["before"]
    assert errors["dev"]["after"] < errors["dev"]["before"]


def test_without_a_development_set_there_is_no_temperature():
    test = drawn(100, 2.0)
    errors = calibration(rows(*test), None)
    assert errors == {"bins": BINS, "test": {"before": pytest.approx(reliability(*test).error)}}


@pytest.mark.parametrize("dev", ["dialog", "none"])
def test_a_run_stores_its_temperature_and_draws_its_reliability(good_corpus, encoder, tmp_path, dev):
    flags = run_flags(good_corpus, tmp_path / "out", encoder=encoder, tasks=["emotion"], selection="last", dev=dev)
    ended = run_script("run_stage1", flags)
    assert ended.code == 0, ended.stderr
    errors = json.loads((tmp_path / "out/results.json").read_text())["calibration"]
    predictions = emotion_probabilities(read_predictions(tmp_path / "out/predictions.jsonl"))
    error = errors["test"]["after" if dev == "dialog" else "before"]
    assert error == pytest.approx(reliability(*predictions).error, rel=1e-5)  # of rounded probabilities
    assert ("temperature" in errors) == ("fitted_on" in errors) == (dev == "dialog")
    assert SerMtlConfig.from_pretrained(tmp_path / "out").temperature == errors.get("temperature", 1.0)
    assert (tmp_path / "out/reliability.png").read_bytes().startswith(b"\x89PNG")


def test_the_diagram_shows_accuracy_over_confidence(tmp_path):
    probabilities, targets = two_classes([0.9] * 30 + [0.6] * 40), np.array([0] * 20 + [1] * 10 + [0] * 40)
    figure = plot_reliability(probabilities, targets, tmp_path / "r.png", "fold 1", temperature=2.0)
    diagonal, plain, tempered_line = (line for line in figure.axes[0].get_lines() if line.get_linestyle() != "None")
    assert list(diagonal.get_xdata()) == list(diagonal.get_ydata()) == [0, 100]
    assert list(plain.get_xdata()) == pytest.approx([60, 90])
    assert list(plain.get_ydata()) == pytest.approx([100, 200 / 3])
    looks = {(line.get_linestyle(), line.get_marker()) for line in (plain, tempered_line)}
    assert len(looks) == 2
    ece = 100 * reliability(probabilities, targets).error
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[1] == f"uncalibrated: ECE {ece:.1f} %" and labels[2].startswith("temperature 2.00: ECE")


def test_the_error_bars_are_wilson_intervals(tmp_path):
    # By hand: (p + z^2 / 2n ± z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n) with z = 1.96, n = 30, p = 2/3.
    probabilities, targets = two_classes([0.9] * 30), np.array([0] * 20 + [1] * 10)
    figure = plot_reliability(probabilities, targets, tmp_path / "r.png", "fold 1")
    (bar,) = figure.axes[0].containers[0].lines[2][0].get_segments()
    assert [y for _, y in bar] == pytest.approx([48.78, 80.77], abs=0.01)


@pytest.mark.parametrize(("n", "bins"), [(3, 1), (49, 1), (50, 2), (144, 5), (250, 10), (5000, 10)])
def test_the_number_of_bins_grows_with_the_utterances(n, bins):
    confidence = RNG.permutation(np.linspace(0.3, 1, n))
    measured = figure_bins(confidence, confidence > 0.5)
    assert len(measured.count) == bins and measured.count.sum() == n
    assert measured.count.min() >= min(n, 25)


def test_bins_are_means_of_neighbours_and_do_not_crowd_near_one():
    confidence = RNG.permutation(np.concatenate([np.linspace(0.5, 0.9, 60), np.linspace(0.98, 1, 300)]))
    right = RNG.random(360) < confidence
    measured = figure_bins(confidence, right)
    assert np.diff(measured.confidence).min() > 0.05 and measured.count[-1] > 280
    order, ends = np.argsort(confidence), np.cumsum(measured.count)
    for values, means in ((confidence, measured.confidence), (right, measured.accuracy)):
        np.testing.assert_allclose([part.mean() for part in np.split(values[order], ends[:-1])], means)


def test_utterances_of_equal_confidence_share_a_bin():
    confidence = np.array([0.5, 0.7, 1.0]).repeat([30, 10, 200])
    measured = figure_bins(confidence, np.ones(240, dtype=bool))
    assert measured.count.tolist() == [30, 210]
