"""The figures of a run: what is drawn is what was logged, it can be read, and the files are whole PNGs."""

from importlib.util import find_spec, module_from_spec
from itertools import pairwise
from types import ModuleType

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from ser_mtl.evaluation.drawing import line_style
from ser_mtl.evaluation.figures import plot_confusion_matrix
from ser_mtl.evaluation.training_curves import plot_training_curves
from ser_mtl.metrics import METRICS, Metric
from ser_mtl.tasks import TASKS, Task

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


def test_every_logged_loss_and_main_metric_is_one_curve(tmp_path):
    figure = plot_training_curves(TRAINING + DEVELOPMENT + SUMMARY, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(PNG)
    tasks, _, metrics = (curves(figure, panel) for panel in range(3))
    assert list(tasks) == ["emotion", "gender"]
    assert tasks["emotion"] == ([1.0, 2.0], [1.2, 0.8])
    assert list(metrics) == ["emotion UA", "WER"]
    assert metrics["emotion UA"][1] == pytest.approx([40, 60])
    assert metrics["WER"][1] == pytest.approx([120, 50])
    assert figure.axes[2].get_ylim()[1] > 120


def test_a_wer_that_never_fell_is_no_curve(tmp_path):
    untrained = [entry | {"eval_asr_wer": 1.0} for entry in DEVELOPMENT]
    figure = plot_training_curves(TRAINING + untrained, tmp_path / "curves.png", title="$1 a corpus")
    assert list(curves(figure, 2)) == ["emotion UA"]
    assert figure.get_suptitle() == r"\$1 a corpus"


def test_scl_and_the_sum_it_dominates_are_off_the_axis_of_the_tasks(tmp_path):
    figure = plot_training_curves(TRAINING, tmp_path / "curves.png")
    tasks, terms = curves(figure, 0), curves(figure, 1)
    assert not {"SCL", "weighted sum"} & set(tasks)
    assert terms["SCL"] == ([1.0, 2.0], [-0.4, -1.9]) and terms["weighted sum"] == ([1.0, 2.0], [0.3, -1.1])
    assert figure.axes[0].get_ylim()[0] > 0 and figure.axes[0].get_yscale() == "log"


def test_without_other_terms_the_weighted_sum_is_among_the_tasks(tmp_path):
    log = [{"epoch": 1.0, "loss": 1.1, "loss_emotion": 1.2, "loss_asr": 3.0}]
    figure = plot_training_curves(log, tmp_path / "curves.png")
    assert list(curves(figure, 0)) == ["weighted sum", "emotion", "ASR"] and len(figure.axes) == 1


def test_a_run_that_logged_nothing_has_an_empty_panel(tmp_path):
    figure = plot_training_curves(SUMMARY, tmp_path / "curves.png", chosen_epoch=2.0)
    assert list(curves(figure, 0)) == ["kept: epoch 2"] and len(figure.axes) == 1


def test_an_unknown_loss_is_drawn_under_its_own_name(tmp_path):
    log = [entry | {"loss_centre": 0.25} for entry in TRAINING]
    figure = plot_training_curves(log, tmp_path / "curves.png")
    assert curves(figure, 1)["centre"] == ([1.0, 2.0], [0.25, 0.25])
    assert len({line.get_color() for line in figure.axes[1].get_lines()}) == 3


def test_a_fifth_task_needs_no_change_of_the_figures(tmp_path, monkeypatch):
    monkeypatch.setitem(TASKS, "age", Task("age", "age", "classes", "age group", "audio-classification"))
    metrics = (*METRICS, Metric("age", "ua", "age UA", "recall"))
    monkeypatch.setattr("ser_mtl.metrics.METRICS", metrics)
    names = ("training_curves", "cosine_figure")
    figures, cosine_figure = (loaded_again(f"ser_mtl.evaluation.{name}") for name in names)
    report_figures = loaded_again("ser_mtl.tables.figures")
    log = [entry | {"loss_age": 0.5} for entry in TRAINING] + [entry | {"eval_age_ua": 0.3} for entry in DEVELOPMENT]
    figure = figures.plot_training_curves(log, tmp_path / "curves.png")
    assert curves(figure, 0)["age group"][1] == [0.5, 0.5]
    assert curves(figure, 2)["age UA"][1] == pytest.approx([30, 30])
    cosines = {"age scl": (np.array([1]), np.array([0.5])), "emotion age": (np.array([1]), np.array([0.1]))}
    axes = cosine_figure.plot_gradient_cosines({"run": (cosines, cosines)}, tmp_path / "cosines.png").axes[0]
    assert [line.get_label() for line in axes.get_lines()[:2]] == ["age group and SCL", "emotion and age group"]
    points = {"run": [{"emotion": [0, 0], "age": [1, 1]}]}
    axes = report_figures.plot_embeddings(points, tmp_path / "points.png").axes[0]
    assert [line.get_label() for line in axes.get_lines()] == ["$x_e$, emotion", "$x_a$, age group"]


def loaded_again(name: str) -> ModuleType:
    """A module as a new import would give it, beside the one that is already there."""
    spec = find_spec(name)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_two_of_many_lines_look_alike_in_grey():
    looks = {(style["marker"], str(style["linestyle"])) for style in map(line_style, range(40))}
    assert len(looks) == 40


def test_the_same_figure_gives_the_same_bytes_and_a_small_file(tmp_path):
    for name in ("one.png", "two.png"):
        plot_training_curves(TRAINING + DEVELOPMENT, tmp_path / name, chosen_epoch=2.0, title="fold 1")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    assert (tmp_path / "one.png").stat().st_size < 60_000


def test_text_is_readable_where_a_figure_is_shrunk_to_400_pixels(tmp_path):
    matrix = np.eye(8, dtype=int).tolist()
    for figure in (
        plot_training_curves(TRAINING + DEVELOPMENT, tmp_path / "curves.png", chosen_epoch=2.0, title="fold 1"),
        plot_confusion_matrix(matrix, ["surprised"] * 8, tmp_path / "matrix.png", title="fold 1"),
    ):
        pixels = [400 * text.get_fontsize() / 72 / figure.get_figwidth() for text in figure.findobj(Text)]
        assert min(pixels) > 9


def test_nothing_is_cut_at_the_edges(tmp_path):
    figure = plot_training_curves(TRAINING + DEVELOPMENT, tmp_path / "curves.png", chosen_epoch=2.0, title="fold 1")
    drawn = figure.get_tightbbox()
    assert drawn.x0 >= 0 and drawn.y0 >= 0
    assert drawn.x1 <= figure.get_figwidth() and drawn.y1 <= figure.get_figheight()


def test_the_kept_epoch_is_marked_in_every_panel(tmp_path):
    figure = plot_training_curves(TRAINING + DEVELOPMENT, tmp_path / "curves.png", chosen_epoch=2.0)
    for panel in (0, 1, 2):
        assert curves(figure, panel)["kept: epoch 2"][0] == [2.0, 2.0]


def test_a_panel_of_the_test_fold_says_so(tmp_path):
    path = tmp_path / "curves.png"
    assert plot_training_curves(TRAINING + DEVELOPMENT, path).axes[-1].get_title() == "Development set"
    figure = plot_training_curves(TRAINING + DEVELOPMENT, path, evaluated_on="Test fold")
    assert figure.axes[-1].get_title() == "Test fold"


def test_without_a_development_set_there_is_no_panel_of_metrics(tmp_path):
    figure = plot_training_curves(TRAINING, tmp_path / "curves.png")
    assert [axes.get_ylabel() for axes in figure.axes] == ["Loss (nats)", "Loss (no unit)"]


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
    names = ("emotion", "gender", "style", "asr", "scl", "centre")
    log = [{"epoch": 1.0} | {f"loss_{name}": 1.0 for name in names} | {"loss": 1}]
    figure = plot_training_curves(log, tmp_path / "curves.png")
    lines = [line for axes in figure.axes for line in axes.get_lines()]
    looks = {(line.get_linestyle(), line.get_marker(), line.get_linewidth()) for line in lines}
    assert len(looks) == len(lines) == 7


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
