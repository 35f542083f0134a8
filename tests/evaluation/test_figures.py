"""Pins the pictures: what is drawn is what was logged, and the files are whole PNGs."""

from itertools import pairwise

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from ser_mtl.evaluation.figures import plot_confusion_matrix, plot_training_curves

PNG = b"\x89PNG\r\n\x1a\n"
TRAINING = [
    {"epoch": 1.0, "loss": 0.3, "loss_emotion": 1.2, "loss_gender": 0.6, "loss_scl": -0.4, "learning_rate": 1e-4},
    {"epoch": 2.0, "loss": -1.1, "loss_emotion": 0.8, "loss_gender": 0.4, "loss_scl": -1.9, "grad_norm": 2.0},
]
DEVELOPMENT = [
    {"epoch": 1.0, "eval_loss": 1.3, "eval_emotion_ua": 0.4, "eval_asr_wer": 1.2},
    {"epoch": 2.0, "eval_loss": 1.0, "eval_emotion_ua": 0.6, "eval_asr_wer": 0.5},
]
SUMMARY = [{"epoch": 2.0, "train_loss": 0.7, "train_runtime": 12.0}]


def curves(figure: Figure, panel: int) -> dict[str, tuple[list, list]]:
    """Label, x and y of every curve of a panel."""
    lines = figure.axes[panel].get_lines()
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in lines}


def cell_texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_every_logged_loss_and_score_is_one_curve(tmp_path):
    figure = plot_training_curves(TRAINING + DEVELOPMENT + SUMMARY, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(PNG)
    losses, scores = curves(figure, 0), curves(figure, 1)
    assert len(losses) == 4 and len(scores) == 2
    assert losses["emotion"] == ([1.0, 2.0], [1.2, 0.8])
    assert losses["weighted sum"] == ([1.0, 2.0], [0.3, -1.1])
    assert scores["emotion UA"][1] == pytest.approx([40, 60])
    assert scores["WER"][1] == pytest.approx([120, 50])
    assert figure.axes[1].get_ylim()[1] > 120


def test_the_kept_epoch_is_marked_in_both_panels(tmp_path):
    figure = plot_training_curves(TRAINING + DEVELOPMENT, tmp_path / "curves.png", chosen_epoch=2.0)
    for panel in (0, 1):
        assert curves(figure, panel)["kept: epoch 2"][0] == [2.0, 2.0]


def test_a_panel_of_the_test_fold_says_so(tmp_path):
    path = tmp_path / "curves.png"
    assert plot_training_curves(TRAINING + DEVELOPMENT, path).axes[1].get_title() == "Development set"
    assert (
        plot_training_curves(TRAINING + DEVELOPMENT, path, evaluated_on="Test fold").axes[1].get_title() == "Test fold"
    )


def test_without_a_development_set_there_is_one_panel(tmp_path):
    figure = plot_training_curves(TRAINING, tmp_path / "curves.png")
    assert len(figure.axes) == 1


@pytest.mark.parametrize(("lowest", "scale"), [(0.01, "log"), (-1.0, "linear")])
def test_losses_are_on_a_log_axis_where_they_can_be(tmp_path, lowest, scale):
    log = [{"epoch": 1.0, "loss": 30.0}, {"epoch": 2.0, "loss": lowest}]
    assert plot_training_curves(log, tmp_path / "curves.png").axes[0].get_yscale() == scale


@pytest.mark.parametrize("lowest", [1.0, 1e-3, 1e-8])
def test_the_labels_of_a_log_axis_do_not_touch(tmp_path, lowest):
    log = [{"epoch": 1.0, "loss": 3.0}, {"epoch": 2.0, "loss": lowest}]
    figure = plot_training_curves(log, tmp_path / "curves.png")
    boxes = [label.get_window_extent() for label in figure.axes[0].get_yticklabels() if label.get_text()]
    inside = [box for box in sorted(boxes, key=lambda box: box.y0) if 0 <= box.y0 < figure.bbox.height]
    assert len(inside) >= 2
    assert all(below.y1 < above.y0 for below, above in pairwise(inside))


def test_curves_can_be_told_apart_without_colour(tmp_path):
    log = [
        {"epoch": 1.0} | {f"loss_{task}": 1.0 for task in ("emotion", "gender", "style", "asr", "scl")} | {"loss": 1}
    ]
    lines = plot_training_curves(log, tmp_path / "curves.png").axes[0].get_lines()
    looks = {(line.get_linestyle(), line.get_marker(), line.get_linewidth()) for line in lines}
    assert len(looks) == len(lines) == 6


def test_the_confusion_matrix_shows_row_percentages_and_counts(tmp_path):
    figure = plot_confusion_matrix([[3, 1], [0, 0]], ["happy", "sad"], tmp_path / "matrix.png", title="fold 1")
    assert (tmp_path / "matrix.png").read_bytes().startswith(PNG)
    assert cell_texts(figure) == ["75 %\n(3)", "25 %\n(1)", "–", "–"]
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), [[75, 25], [0, 0]])
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["happy\n(n = 4)", "sad\n(n = 0)"]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["happy", "sad"]


def test_numbers_stand_out_from_their_cells(tmp_path):
    percentages = [[p, 100 - p] for p in range(0, 101, 4)]
    matrix = [row + [0] * 24 for row in percentages]
    axes = plot_confusion_matrix(matrix, [str(i) for i in range(26)], tmp_path / "m.png", title="").axes[0]
    image = axes.images[0]
    for text in axes.texts:
        column, row = text.get_position()
        cell = luminance(image.to_rgba(image.get_array()[row, column])[:3])
        contrast = sorted((cell + 0.05, luminance(matplotlib.colors.to_rgb(text.get_color())) + 0.05))
        assert contrast[1] / contrast[0] > 7, (text.get_text(), text.get_color())


def luminance(rgb) -> float:
    """Relative luminance of an sRGB colour, as WCAG defines it."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))
