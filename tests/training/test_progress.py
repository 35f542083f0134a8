"""What is printed after each epoch."""

from types import SimpleNamespace

from transformers import TrainerState

from ser_mtl.training.callbacks import EpochProgress


def printed(*logs: dict[str, float]) -> list[str]:
    """The lines of these logs."""
    lines: list[str] = []
    progress = EpochProgress()
    progress.training_bar = SimpleNamespace(write=lines.append)
    for epoch, log in enumerate(logs, start=1):
        progress.on_log(None, TrainerState(epoch=epoch), None, logs=log)
    return lines


def test_losses_are_numbers_and_metrics_percent_as_in_the_table():
    log = {"loss": 1.25, "loss_asr": 2.0, "loss_emotion": 0.5, "grad_norm": 3.0}
    assert printed(log | {"eval_emotion_ua": 0.8333, "eval_emotion_wa": 0.9, "eval_asr_wer": 0.451}) == [
        "epoch 1: loss 1.250, emotion 0.500, asr 2.000, dev emotion UA 83.3 %, dev WER 45.1 %"
    ]


def test_a_wer_that_says_nothing_is_explained_once():
    untrained = {"eval_emotion_ua": 0.5, "eval_asr_wer": 1.0}
    assert printed(untrained, untrained, untrained | {"eval_asr_wer": 0.8}) == [
        "dev WER is shown once it is below 90 %",
        "epoch 1: dev emotion UA 50.0 %",
        "epoch 2: dev emotion UA 50.0 %",
        "epoch 3: dev emotion UA 50.0 %, dev WER 80.0 %",
    ]
