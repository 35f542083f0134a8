"""Inputs that once broke the contract, or stand for a kind that did: kept, and tried in every run of the suite."""

from typing import Any

SLOW_PATTERN = "(((x+)+)+)+y" + "x" * 40
"""A pattern of names whose match does not end."""

_CONTENTS = ("{}", "null", "[]", '"text"', "{", "[" * 100_000)
_FILES = {
    "predict stage1": ("config.json", "vocab.json", "tokenizer_config.json", "processor_config.json"),
    "predict stage2": ("config.json", "adapter_config.json"),
    "publish stage1": ("results.json", "args.json", "split.json", "predictions.jsonl", "config.json"),
    "same run": ("results.json", "args.json"),
    "stage 2": ("results.json", "args.json", "split.json", "config.json"),
    "args.json": ("args.json",),
    "encoder": ("config.json", "preprocessor_config.json"),
    "checkpoint": ("trainer_state.json", "losses.json", "files.json"),
}
_RUN = "seed0/fold1/t1-full-ser"

FINDINGS: list[tuple[str, Any]] = [
    (target, (file, ("content", content)))
    for target, files in _FILES.items()
    for file in files
    for content in _CONTENTS
]
FINDINGS += [
    ("report", (f"{_RUN}/{file}", ("content", content), False))
    for file in ("results.json", "args.json", "history.json", "predictions.jsonl", "gradient_cosines.json")
    for content in _CONTENTS[:4]
]
FINDINGS += [("report", ("baselines.json", ("content", content), False)) for content in _CONTENTS[:4]]
FINDINGS += [
    ("predict stage1", ("config.json", ("value", ("temperature",), 0))),
    ("predict stage1", ("config.json", ("value", ("labels", "emotion"), [1, 2]))),
    ("predict stage1", ("config.json", ("value", ("labels", "emotion"), "angry"))),
    ("predict stage1", ("config.json", ("value", ("encoder_config", "num_hidden_layers"), 10**9))),
    ("predict stage1", ("config.json", ("value", ("encoder_config", "hidden_size"), 65536))),
    ("predict stage1", ("config.json", ("value", ("num_labels",), 10**9))),
    ("predict stage1", ("config.json", ("value", ("encoder_config", "activation_dropout"), float("nan")))),
    ("predict stage1", ("vocab.json", ("gone", ()))),
    ("predict stage1", ("processor_config.json", ("value", ("feature_extractor", "sampling_rate"), 8000))),
    ("predict stage2", ("adapter_config.json", ("value", ("target_modules",), SLOW_PATTERN))),
    ("predict stage2", ("adapter_config.json", ("value", ("rank_pattern",), {SLOW_PATTERN: 2}))),
    ("predict stage2", ("adapter_config.json", ("value", ("megatron_config",), {"a": 1}))),
    ("predict stage2", ("adapter_config.json", ("value", ("base_model_name_or_path",), "nowhere/at/all"))),
    ("predict stage2", ("adapter_config.json", ("value", ("base_model_name_or_path",), ""))),
    ("predict stage2", ("adapter_config.json", ("value", ("r",), 10**6))),
    ("predict stage2", ("adapter_config.json", ("value", ("lora_bias",), 110))),
    ("export stage2", ("adapter_config.json", ("value", ("target_modules",), SLOW_PATTERN))),
    ("export stage1", ("results.json", ("value", ("test",), []))),
    ("publish stage1", ("results.json", ("gone", ("test", "all", "asr", "wer")))),
    ("publish stage1", ("results.json", ("value", ("selection",), "guess"))),
    ("publish stage1", ("config.json", ("value", ("encoder_config", "_name_or_path"), [True, None]))),
    ("publish stage1", ("results.json", ("gone", ("intervals", "all", "emotion", "macro_f1", 1)))),
    ("publish stage1", ("results.json", ("gone", ("speakers",)))),
    ("export stage2", ("config.json", ("value", ("auto_map",), ""))),
    ("same run", ("results.json", ("gone", ("test", "all")))),
    ("same run", ("results.json", ("gone", ("test", "all", "asr", "wer")))),
    ("same run", ("results.json", ("gone", ("sizes",)))),
    ("stage 2", ("config.json", ("gone", ("encoder_config",)))),
    ("stage 2", ("args.json", ("gone", ("corpus",)))),
    ("stage 2", ("args.json", ("value", ("corpus", "data_dir"), []))),
    ("stage 2", ("split.json", ("value", ("dev", "ids", 1), {}))),
    ("encoder", ("preprocessor_config.json", ("value", ("feature_extractor_type",), {}))),
    ("encoder", ("config.json", ("value", ("feat_proj_dropout",), {"n": "x" * 5000}))),
    ("encoder", ("config.json", ("value", ("intermediate_size",), 2**40))),
    ("args.json", ("args.json", ("value", ("training",), 0))),
    ("args.json", ("args.json", ("value", ("training", "neftune_noise_alpha"), ["x" * 5000]))),
    ("report", (f"{_RUN}/history.json", ("value", (0, "loss_emotion"), None), False)),
    ("report", (f"{_RUN}/predictions.jsonl", ("gone", (1, "style")), False)),
    ("report", (f"{_RUN}/predictions.jsonl", ("value", (1, "emotion"), None), False)),
    ("report", (f"{_RUN}/history.json", ("value", (17, "test_emotion_ua"), float("nan")), False)),
    ("report", (f"{_RUN}/history.json", ("value", (0,), {"emotion": None}), True)),
    ("report", (f"{_RUN}/results.json", ("value", ("test", "all", "emotion", "confusion_matrix"), [[1]]), False)),
    ("report", ("baselines.json", ("gone", ("text_only", 47, "style")), False)),
    ("checkpoint", ("trainer_state.json", ("value", ("no_such_key",), 1))),
    ("metadata.csv", "file_name;emotion\nf1_angry_improvised.wav;angry"),
    ("metadata.csv", f"file_name,emotion\n{'x' * 5000},angry"),
    ("metadata.csv", 'file_name,emotion\n"a\nb",angry'),
    ("metadata.csv", b"\xff\xfe\x00"),
    ("metadata.csv", f"\t,emotion,{'x' * 5000}"),
    ("IEMOCAP", ("EmoEvaluation", "folder")),
    ("IEMOCAP", ("EmoEvaluation", "link")),
    ("IEMOCAP", ("transcriptions", "folder")),
    ("IEMOCAP", ("EmoEvaluation", "[6.2.5 - 7.5]\tSes01F_impro01_F000\tneu\t[1, 2, 3]")),
    ("IEMOCAP", ("EmoEvaluation", "[1 - 2]\tSes01F_impro01_F001\tang\t[3.000 0, 1, 2]")),
    ("IEMOCAP", ("EmoEvaluation", f"[96 - 96]\tSes01F_impro01_{'x' * 5000}\tneu\t[1, 2, 3]")),
    ("recognizer", ("array", ("int16", (800,), "large"), 2_147_483_647)),
    ("recognizer", ("array", ("float32", (1, 0), "ones"), 16000)),
    ("recognizer", ("bytes", b"")),
    ("audio", ("mp3", b"")),
    ("audio", ("wav", b"RIFF\xff\xff\xff\xffWAVEfmt ")),
    ("flags", ["--num_train_epochs", "inf"]),
    ("flags", ["--adam_epsilon", "-1"]),
    ("flags", ["--data_seed", "-1"]),
    ("flags", ["x" * 5000]),
    ("verbs", ["predict", " ", "nan", "x" * 5000]),
    ("verbs", ["corpus", "x" * 5000]),
    ("verbs", ["predict", "/proc/self/mem", "--model", "RUN"]),
    ("SerMtlConfig", {"encoder_config": {"model_type": "\x1b[31m"}}),
    ("SerMtlConfig", {"encoder_config": {"model_type": "wav2vec2", "hidden_size": "a"}}),
    ("SerMtlConfig", {"encoder_config": []}),
    ("SerMtlConfig", {"labels": {"emotion": [1, 2]}}),
    ("SerMtlConfig", {"tasks": [["emotion"]]}),
    ("SerMtlConfig", {"temperature": "1"}),
    ("SerMtlConfig", {"temperature": float("inf")}),
]
