"""The model card: metadata the Hub can read, the numbers of results.json, warnings, and no local path."""

import copy

import pytest
from compatibility import VERSIONS
from helpers.markup import HOSTILE, elements
from helpers.tiny import ROOT
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

import ser_mtl
from ser_mtl.hub.card import model_card
from ser_mtl.hub.card_use import TESTED
from ser_mtl.hub.folds import overview_card
from ser_mtl.metrics import METRICS
from ser_mtl.safe_text import printable
from ser_mtl.tasks import TASKS


def scores_of(n: int, ua: float) -> dict:
    return {
        "n": n,
        "emotion": {
            "ua": ua, "wa": ua + 0.01, "macro_f1": ua - 0.01,
            "confusion_matrix": [[1, 0], [0, 1]], "labels": ["happy", "sad"],
        },
        "gender": {"ua": 0.9876, "wa": 0.98},
        "asr": {"wer": 0.2101, "cer": 0.1},
    }  # fmt: skip


STAGE1 = {
    "stage": 1,
    "fold": 5,
    "seed": 7,
    "corpus": "iemocap",
    "encoder": "facebook/wav2vec2-xls-r-300m",
    "tasks": ["emotion", "asr"],
    "trainable": "all",
    "selection": "dev",
    "epoch": 12.0,
    "commit": "0123abc",
    "versions": {"torch": "2.11.0"},
    "audio_seconds_per_second": 33.1,
    "minutes": 61.5,
    "labels": {"emotion": ["happy", "sad"]},
    "held_out_speakers": ["Ses05F", "Ses05M"],
    "sizes": {"train": 4000, "dev": 290, "test": 1241},
    "test": {"all": scores_of(1241, 0.71234), "improvised": scores_of(700, 0.69), "scripted": scores_of(541, 0.75)},
}
STAGE2 = STAGE1 | {"stage": 2, "trainable": "adapters", "stage1": "someone/xlsr-ser-stage1"}


def test_metadata_says_what_the_hub_needs():
    data = ModelCard(model_card(STAGE1, "someone/ser")).data
    assert data.library_name == "transformers"
    assert data.pipeline_tag == "audio-classification"
    assert data.language == "en"
    assert data.base_model == "facebook/wav2vec2-xls-r-300m"
    assert data.base_model_relation == "finetune"
    assert data.license_name == "iemocap"
    assert data.metrics == ["recall", "accuracy", "f1", "wer", "cer"]
    assert data.model_name == "someone/ser"


def test_metadata_numbers_are_those_of_results_json():
    evaluations = ModelCard(model_card(STAGE1)).data.eval_results
    found = {evaluation.metric_name.split(" (")[0]: evaluation.metric_value for evaluation in evaluations}
    everyone = STAGE1["test"]["all"]
    assert found == {
        "emotion UA": everyone["emotion"]["ua"],
        "emotion WA": everyone["emotion"]["wa"],
        "emotion macro F1": everyone["emotion"]["macro_f1"],
        "gender UA": everyone["gender"]["ua"],
        "gender WA": everyone["gender"]["wa"],
        "ASR WER": everyone["asr"]["wer"],
        "ASR CER": everyone["asr"]["cer"],
    }


def test_each_metric_is_in_the_index_and_in_the_table():
    scores: dict = {"n": 1}
    for number, metric in enumerate(METRICS, start=1):
        scores.setdefault(metric.group, {})[metric.key] = number / 100
    card = ModelCard(model_card(STAGE1 | {"test": {"all": scores}}))
    header, _, row = (line for line in card.text.splitlines() if line.count("|") > 5)
    table = dict(zip(*([cell.strip() for cell in line.split("|")] for line in (header, row)), strict=True))
    index = {evaluation.metric_value: evaluation for evaluation in card.data.eval_results}
    for number, metric in enumerate(METRICS, start=1):
        assert table.get(metric.title) == (f"{number}.0" if metric.in_summary else None)
        if metric.group in TASKS:  # the transcripts with the adapters off are the base model's
            entry = index.pop(number / 100)
            assert (entry.metric_type, entry.task_type) == (metric.hub_type, TASKS[metric.group].hub_type)
    assert not index


def test_a_wer_that_says_nothing_is_a_note_and_no_column():
    scores = scores_of(1241, 0.7) | {"asr": {"wer": 1.0, "cer": 0.9}}
    card = ModelCard(model_card(STAGE1 | {"test": {"all": scores}}))
    assert "| 98.8 |" in card.text and "WER |" not in card.text
    assert "- WER is left out: the model has not learned to transcribe (WER 100.0 %)." in card.text
    assert [entry.metric_value for entry in card.data.eval_results if entry.metric_type in ("wer", "cer")] == []
    assert "left out" not in model_card(STAGE1)


def test_the_table_has_a_row_for_each_style():
    lines = model_card(STAGE1).splitlines()
    header = next(line for line in lines if line.startswith("| utterances | n |")).split(" | ")
    shown = [header.index(title) for title in ("emotion UA", "emotion WA", "emotion F1", "gender UA")]
    rows = {line.split(" | ")[0].strip("| "): line.split(" | ") for line in lines}
    assert [rows["all"][column] for column in shown] == ["71.2", "72.2", "70.2", "98.8"]
    assert "style UA" not in header  # it was not trained
    assert header[-1] == "WER |" and rows["all"][-1] == "21.0 |"
    for style, n, ua in (("improvised", "700", "69.0"), ("scripted", "541", "75.0")):
        assert rows[style][1:3] == [n, ua]


def test_the_metrics_of_the_table_are_explained_and_no_others():
    assert (
        "\nUA is the mean of the per-class recalls, WA the accuracy, F1 the mean of the per-class F1 scores, WER the "
        in (model_card(STAGE1))
    )
    transcripts = {"n": 9, "asr": {"wer": 0.2, "cer": 0.1}}
    text = model_card(STAGE1 | {"tasks": ["asr"], "test": {"all": transcripts}})
    assert "\nWER is the word error rate.\n" in text and "UA is" not in text
    text = model_card(STAGE1 | {"test": {"all": {"n": 9, "emotion": {"ua": 0.5, "wa": 0.5, "macro_f1": 0.5}}}})
    assert "F1 scores.\n" in text and "WER" not in text
    unlearned = {"n": 9, "asr": {"wer": 1.0, "cer": 0.9}}  # a column that is left out
    assert "\n\n- Checkpoint:" in model_card(STAGE1 | {"tasks": ["asr"], "test": {"all": unlearned}})


def test_the_index_has_one_entry_for_each_task():
    data = ModelCard(model_card(STAGE1)).data.to_dict()
    (model,) = data["model-index"]
    entries = {entry["task"]["name"]: [one["type"] for one in entry["metrics"]] for entry in model["results"]}
    assert entries == {
        "emotion recognition": ["recall", "accuracy", "f1"],
        "gender recognition": ["recall", "accuracy"],
        "speech recognition": ["wer", "cer"],
    }
    assert "datasets" not in data  # the Hub has no IEMOCAP


def test_a_card_has_what_an_experienced_user_looks_for():
    size = {"parameters": 315_438_720, "megabytes": 1262.0}
    for results in (STAGE1, STAGE2):
        text = model_card(results | {"size": size, "calibration": {"test": {"before": 0.1}}}, "someone/ser")
        for needed in (
            "https://doi.org/10.1109/ICASSP48485.2024.10446645", "doi = {10.1109/ICASSP48485.2024.10446645}",
            f"with ser-mtl {ser_mtl.__version__}", "(modeling_ser_mtl.py)", "315.4 million parameters, 1262.0 MB",
            "(reliability.png)", "any rate, mono or stereo",
        ):  # fmt: skip
            assert needed in text
        assert ("besides those of the base" in text) == (results is STAGE2)
    assert 'pass `revision="..."`' in model_card(STAGE1)
    assert "reliability.png" not in model_card(STAGE1) and "parameters," not in model_card(STAGE1)


def test_adapters_are_an_adapter_of_the_stage_1_model():
    data = ModelCard(model_card(STAGE2)).data
    assert data.library_name == "peft"
    assert data.base_model == "someone/xlsr-ser-stage1"
    assert data.base_model_relation == "adapter"


@pytest.mark.parametrize("folder", ["/home/ada/models/enc", "runs/demo/stage1/fold1", "./enc", "../enc", "enc"])
def test_a_local_path_is_never_published(folder):
    for results in (STAGE1 | {"encoder": folder}, STAGE2 | {"stage1": folder}):
        text = model_card(results)
        data = ModelCard(text).data
        assert data.base_model is None and "base_model_relation" not in data
        assert "/home" not in text and "runs/demo" not in text


def test_a_folder_that_reads_like_a_hub_id_is_no_base_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert ModelCard(model_card(STAGE1 | {"encoder": "models/enc"})).data.base_model == "models/enc"
    (tmp_path / "models" / "enc").mkdir(parents=True)
    assert ModelCard(model_card(STAGE1 | {"encoder": "models/enc"})).data.base_model is None


def test_only_a_checkpoint_chosen_on_the_test_fold_carries_the_warning():
    assert "[!WARNING]" in model_card(STAGE1 | {"selection": "oracle"})
    assert "[!WARNING]" not in model_card(STAGE1)
    assert "[!WARNING]" not in model_card(STAGE1 | {"selection": "last"})


def test_the_text_holds_what_a_reader_must_know():
    text = model_card(STAGE1, "someone/ser")
    for needed in (
        "fold 5", "Ses05F, Ses05M", "best emotion UA on the development set", "0123abc", 'name = "someone/ser"',
        "confusion_matrix.png", "training_curves.png", "article 5(1)(f)", "University of Southern California",
        "@inproceedings{",
    ):  # fmt: skip
        assert needed in text


def test_language_and_licence_of_an_unknown_folder_are_not_guessed():
    text = model_card(STAGE1 | {"corpus": "folder"})
    data = ModelCard(text).data
    assert data.language is None and data.license is None
    assert "whose licence this card does not know" in text


def test_optional_keys_may_be_missing_and_results_stay_untouched():
    results = {
        k: v for k, v in STAGE2.items() if k not in ("labels", "held_out_speakers", "sizes", "minutes", "stage1")
    }
    before = copy.deepcopy(results)
    text = model_card(results | {"commit": None})
    assert ModelCard(text).data.base_model == "facebook/wav2vec2-xls-r-300m"
    assert "None" not in text
    assert results == before


def test_near_duplicates_and_calibration_are_stated_if_measured():
    leaks = {"near_duplicates": {"all": {"n": 800, "share": 0.125}}}
    plain = {"test": {"before": 0.0712}}
    fitted_on = {"utterances": 290, "speakers": 8, "also_in_training": 6}
    tempered = {"temperature": 1.4, "fitted_on": fitted_on, "test": {"before": 0.0712, "after": 0.0213}}
    text = model_card(STAGE1 | {"leaks": leaks, "calibration": plain})
    assert "with a near-duplicate in training: 12.5 % of 800." in text
    assert "probabilities are not calibrated, for want of a development set: expected calibration error 7.1 %." in text
    text = model_card(STAGE1 | {"calibration": tempered})
    assert "temperature 1.40, fitted on the 290 development utterances (8 speakers, 6 of them also in training)" in text
    assert "expected calibration error 7.1 % without it, 2.1 % with it" in text
    for absent in ("near-duplicate", "alibration"):
        assert absent not in model_card(STAGE1)


def test_the_transcripts_of_a_base_are_not_in_the_index_of_its_adapters():
    for tasks, its_own in ((["emotion", "gender"], False), (["emotion", "asr"], True)):
        card = ModelCard(model_card(STAGE2 | {"tasks": tasks}))
        assert ("wer" in {evaluation.metric_type for evaluation in card.data.eval_results}) == its_own
        assert (
            ("processor.batch_decode" in card.text)
            == its_own
            != ("comes from the frozen" in " ".join(card.text.split()))
        )
    assert "take transcripts from" in " ".join(
        model_card(STAGE2 | {"tasks": ["emotion"], "merged": True}).lower().split()
    )


def test_card_and_docs_name_the_versions_that_were_tried():
    oldest, *_, newest = sorted(VERSIONS, key=order)
    assert (oldest.rsplit(".", 1)[0], newest.rsplit(".", 1)[0]) == TESTED
    for results in (STAGE1, STAGE2):
        assert f'pip install torch torchaudio soundfile "transformers>={TESTED[0]}" peft' in model_card(results)
    table = (ROOT / "docs" / "publishing.md").read_text(encoding="utf-8")
    assert all(f"| {version} | {peft} |" in table for version, peft in VERSIONS.items())


def order(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


# ------------------------------------------------------------------------------------------------------ names of others


def shown_on_the_hub(card: str) -> tuple[list[str], str]:
    return elements(MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(ModelCard(card).text))


def with_names(name: str) -> dict:
    """Results in which `name` stands wherever a name of others can."""
    test = {"all": STAGE2["test"]["all"], name: scores_of(3, 0.5)}
    base = {"repo_id": name, "revision": name}
    named = {
        "corpus": name,
        "encoder": name,
        "stage1": name,
        "commit": name,
        "base": base,
        "test": test,
        "fold": name,
        "stage": name,
    }
    named |= {"seed": name, "minutes": name, "audio_seconds_per_second": name, "versions": {name: name}}
    named |= {"sizes": {name: 3}, "labels": {name: [name]}, "tasks": ["emotion", name], "held_out_speakers": [name]}
    return STAGE2 | named


@pytest.mark.parametrize(
    "field", [*(key for key, value in with_names("x").items() if value != STAGE2.get(key)), "all of them"]
)
def test_names_of_others_are_text_wherever_they_stand(field):
    cards = []
    for name in ("a plain name", HOSTILE):
        results = with_names(name)
        cards.append(model_card(results if field == "all of them" else STAGE2 | {field: results[field]}, "me/model"))
    (plain, before), (found, shown) = map(shown_on_the_hub, cards)
    assert found == plain
    tail = printable(HOSTILE.rsplit("/", 1)[1])  # of a path, the last part is shown
    in_code = 2 if field == "base" else 0  # there, as Python writes it
    assert shown.count(tail) == before.count("a plain name") - in_code


def test_names_of_others_are_text_on_the_card_of_all_folds():
    cards = []
    for name in ("a plain name", HOSTILE):
        results = {fold: with_names(name) | {"fold": fold} for fold in (1, 2)}
        cards.append(overview_card(results, {1: "me/one", 2: "me/two"}, "me/all"))
    (plain, before), (found, shown) = map(shown_on_the_hub, cards)
    assert found == plain
    assert shown.count(printable(HOSTILE)) == before.count("a plain name") > 2
