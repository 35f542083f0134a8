"""The model a stage starts from: a pretrained encoder under new heads, or the model of stage 1."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from datasets import DatasetDict
from peft import PeftConfig, PeftModel
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    PreTrainedConfig,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Processor,
)
from transformers.utils import cached_file, find_adapter_config_file
from transformers.utils.hub import extract_commit_hash
from typing_extensions import TypedDict

from modeling_ser_mtl import FAMILIES, SerMtlConfig, SerMtlModel
from ser_mtl.corpora.audio import SAMPLING_RATE
from ser_mtl.corpora.folds import Split
from ser_mtl.corpora.loading import name_in_results
from ser_mtl.corpora.targets import character_tokenizer, label_sets, unusable_tasks, value_scales
from ser_mtl.corpora.utterances import joined
from ser_mtl.errors import UserError, hub_errors, notice
from ser_mtl.evaluation.results import Results
from ser_mtl.files import read_json
from ser_mtl.hub.names import hashed
from ser_mtl.model.base import base_of
from ser_mtl.model.processor import check_preprocessor, load_processor
from ser_mtl.model.saved import check_saved
from ser_mtl.training.adapters import (
    attach_adapters,
    continue_adapters,
    freeze_encoder,
    freeze_for_full_finetuning,
)
from ser_mtl.training.arguments import DefaultTasks, Stage, Stage1, Stage2
from ser_mtl.training.flags import ADAPTERS, refuse_without
from ser_mtl.training.run_folder import Record

XLS_R = "facebook/wav2vec2-xls-r-300m"


@dataclass
class Start:
    """The model of a run before training, and what belongs to it.

    Attributes:
        model: with what is frozen frozen.
        processor: feature extractor and tokenizer.
        labels: classes of each classification task.
        encoder: Hub id or folder of the pretrained encoder at the bottom.
        base_transcribes: whether the model under the adapters has a CTC head of its own.
    """

    model: SerMtlModel | PeftModel
    processor: Wav2Vec2Processor
    labels: dict[str, list[str]]
    encoder: str
    base_transcribes: bool = False


def leave_out_unusable(stage: Stage, parts: DatasetDict, tasks: Iterable[str]) -> list[str]:
    """Leave out those of these tasks that nobody asked for and that the corpus has no labels for; name each in a line.

    Raises:
        UserError: fusion or SCL was asked for, and has too few tasks left.
    """
    reasons = unusable_tasks(parts, tasks) if isinstance(stage.tasks, DefaultTasks) else {}
    stage.leave_out(reasons)
    for task, reason in reasons.items():
        notice(f"--tasks: {task} is left out: {reason}")
    return list(reasons)


def start_of(stage: Stage, parts: DatasetDict) -> Start:
    """The model that a stage starts from, for the labels and transcripts of a split corpus.

    Raises:
        UserError: a model that cannot be loaded or does not fit the corpus or the flags, or a corpus without the
            annotations that a task needs.
    """
    labels = label_sets(joined(parts), stage.tasks)
    if isinstance(stage, Stage2):
        if stage.stage1 is None:
            raise UserError("--stage1: is missing; name the folder or Hub id of the stage-1 model")
        start = stage2_start(stage, labels, value_scales(parts["train"], stage.tasks))
        check_stage1_never_heard(stage.stage1, parts)
        return start
    assert isinstance(stage, Stage1)
    stage.encoder = stage.encoder or XLS_R
    return stage1_start(stage, labels, parts)


# ------------------------------------------------------------------------------------------------------------ stage 1


def stage1_start(stage: Stage1, labels: dict[str, list[str]], parts: DatasetDict) -> Start:
    """A pretrained encoder under new heads. The transcripts of `parts["train"]` give the vocabulary.

    Raises:
        UserError: the encoder cannot be loaded, or is not one.
    """
    encoder = stage.encoder
    encoder_config = pretrained_encoder_config(encoder)
    revision = commit_on_hub(encoder)
    tokenizer = character_tokenizer(parts["train"]["text"])
    with hub_errors(f"--encoder {encoder}: its feature extractor cannot be loaded"):
        processor = Wav2Vec2Processor(feature_extractor=feature_extractor_of(encoder), tokenizer=tokenizer)
    vocab_size, scales = len(tokenizer) if "asr" in stage.tasks else None, value_scales(parts["train"], stage.tasks)
    config = method_config(stage, labels, encoder_config, vocab_size, tokenizer, scales)
    with hub_errors(f"--encoder {encoder}: its weights cannot be loaded"):
        model = SerMtlModel.from_pretrained(encoder, config=config, revision=revision)
    check_pretrained(model, f"--encoder {encoder}")
    if stage.trainable == "adapters":
        model = attach_adapters(model, encoder, stage.lora_rank, stage.lora_alpha, revision=revision)
    elif stage.trainable == "heads":
        freeze_encoder(model)
    else:
        freeze_for_full_finetuning(model, stage.train_front_end)
    return Start(model, processor, labels, encoder)


def pretrained_encoder_config(encoder: str) -> PreTrainedConfig:
    """The config of an encoder on the Hub or in a folder.

    Raises:
        UserError: it cannot be read, or is not of a supported family.
    """
    with hub_errors(f"--encoder {encoder}: cannot be loaded, neither as a folder nor from the Hub"):
        check_saved(encoder)
        config = AutoConfig.from_pretrained(encoder, trust_remote_code=False)
    if config.model_type not in FAMILIES:
        raise UserError(
            f"--encoder {encoder}: {config.model_type!r} is not a supported encoder of raw waveforms; supported: "
            f"{', '.join(FAMILIES)}"
        )
    return config


def feature_extractor_of(encoder: str) -> Wav2Vec2FeatureExtractor:
    """The encoder's own feature extractor; without one, a feature extractor that normalises each waveform.

    Moonshine takes waveforms as they are.

    Raises:
        UserError: its settings are damaged, or of another sampling rate.
    """
    normalise = AutoConfig.from_pretrained(encoder, trust_remote_code=False).model_type != "moonshine"
    if check_preprocessor(encoder, f"--encoder {encoder}"):
        try:
            own = AutoFeatureExtractor.from_pretrained(encoder, trust_remote_code=False)
        except ValueError:  # one of the encoder's own, whose code is not run
            return _feature_extractor(normalise)
        normalise = getattr(own, "do_normalize", normalise)
    return _feature_extractor(normalise)


def _feature_extractor(normalise: bool) -> Wav2Vec2FeatureExtractor:
    return Wav2Vec2FeatureExtractor(sampling_rate=SAMPLING_RATE, do_normalize=normalise, return_attention_mask=True)


def check_pretrained(model: SerMtlModel, what: str) -> None:
    """Check the weights of a model that training starts from.

    Raises:
        UserError: names those that are not finite, or all are zero in the encoder.
    """
    if bad := [name for name, weight in model.named_parameters() if not bool(weight.isfinite().all())]:
        raise UserError(f"{what}: {len(bad)} of its weights are not finite numbers, such as {bad[0]}; load it again")
    if not any(bool(weight.any()) for weight in model.encoder.parameters() if weight.ndim > 1):
        raise UserError(f"{what}: all weight matrices of its encoder are zero; load it again")


# ------------------------------------------------------------------------------------------------------------ stage 2


@dataclass
class SavedStage1:
    """A stage-1 model on disk or on the Hub.

    Attributes:
        name: Hub id or folder.
        config: its config.
        lora: its adapter config, if it trained adapters.
        base: Hub id or folder of the weights that stage 2 freezes: its own, or its encoder's if it trained adapters.
        revision: commit of `base` on the Hub.
    """

    name: str
    config: SerMtlConfig
    lora: PeftConfig | None
    base: str
    revision: str | None


def stage2_start(stage: Stage2, labels: dict[str, list[str]], scales: dict[str, list[float]] | None = None) -> Start:
    """The model of stage 1 with the heads, the fusion and the adapters of stage 2; all but these are frozen.

    A stage 1 that trained adapters hands its own adapters on, on the encoder they were trained on.

    Raises:
        UserError: the model cannot be loaded, is not of stage 1, or does not fit the corpus or the flags.
    """
    stage1 = read_stage1(stage.stage1)
    check_fits(stage, stage1, labels)
    with hub_errors(f"--stage1 {stage1.name}: its processor cannot be loaded"):
        processor = load_processor(stage1.name, f"--stage1 {stage1.name}")
    transcribes = stage1.config.vocab_size is not None
    vocab_size = stage1.config.vocab_size or (len(processor.tokenizer) if "asr" in stage.tasks else None)
    config = method_config(stage, labels, stage1.config.encoder_config, vocab_size, processor.tokenizer, scales)
    if stage1.lora is not None:
        config.bottleneck_dim = stage1.config.bottleneck_dim  # they are there, whatever is trained
    with hub_errors(f"--stage1 {stage1.name}: the weights in {stage1.base} cannot be loaded"):
        model = SerMtlModel.from_pretrained(stage1.base, config=config, revision=stage1.revision)
    check_pretrained(model, f"--stage1 {stage1.name}: {stage1.base}")
    model = with_adapters(model, stage, stage1)
    if stage.trainable == "all":
        model = model.merge_and_unload() if isinstance(model, PeftModel) else model
        freeze_for_full_finetuning(model, stage.train_front_end)
    encoder: str = getattr(stage1.config.encoder_config, "name_or_path", "")
    return Start(model, processor, labels, encoder, base_transcribes=transcribes and stage1.lora is None)


def with_adapters(model: SerMtlModel, stage: Stage2, stage1: SavedStage1) -> SerMtlModel | PeftModel:
    """The model with new adapters, or with those of stage 1, or as it is if neither stage has any."""
    if stage1.lora is None and stage.trainable != "adapters":
        return model
    save_ctc_head = stage1.lora is not None and model.ctc_head is not None
    adapted = attach_adapters(model, stage1.base, stage.lora_rank, stage.lora_alpha, save_ctc_head, stage1.revision)
    if stage1.lora is not None:
        with hub_errors(f"--stage1 {stage1.name}: its adapters cannot be loaded"):
            continue_adapters(adapted, stage1.name, stage1.config)
    return adapted


def read_stage1(name: str) -> SavedStage1:
    """Read the configs of a stage-1 model.

    Raises:
        UserError: there is none, its run is not finished, or it cannot be continued.
    """
    check_run_of_stage1(Path(name))
    with hub_errors(f"--stage1 {name}: no stage-1 model; train one with run_stage1.py, or name its folder or Hub id"):
        check_saved(name)
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    if config.model_type != SerMtlConfig.model_type or (Path(name).is_dir() and not has_weights(Path(name))):
        raise UserError(f"--stage1 {name}: is not a finished stage-1 model of this project")
    if config.layer_weights:
        raise UserError(f"--stage1 {name}: was trained with --trainable heads, which stage 2 cannot continue")
    if find_adapter_config_file(name) is None:
        return SavedStage1(name, config, None, name, commit_on_hub(name))
    lora = PeftConfig.from_pretrained(name)
    return SavedStage1(
        name,
        config,
        lora,
        base_of(name, say="name another stage-1 model") or lora.base_model_name_or_path,
        lora.revision,
    )


def check_run_of_stage1(folder: Path) -> None:
    """Check the run in `folder`, if it is one; a model from the Hub may come without its `args.json`.

    Raises:
        UserError: the run is not finished, or not of stage 1.
    """
    if not (folder / "args.json").is_file():
        return
    record, results = read_json(folder / "args.json", Record), folder / "results.json"
    stage = (read_json(results, Results) if results.is_file() else record).get("stage")
    if stage != 1:
        raise UserError(f"--stage1 {folder}: holds a run of stage {stage}; name the stage-1 model it started from")
    # A Trainer used from Python leaves no results; version 0.1 did not say who ran it, it was always a script.
    by_script = record.get("script", "run_stage1.py") is not None
    if not has_weights(folder) or (by_script and not results.is_file()):
        raise UserError(f"--stage1 {folder}: its run is not finished; start run_stage1.py again, which resumes it")


def has_weights(folder: Path) -> bool:
    """Whether a folder holds trained weights; a run writes them when its training is over."""
    return any((folder / name).is_file() for name in ("model.safetensors", "adapter_model.safetensors"))


def check_fits(stage: Stage2, stage1: SavedStage1, labels: dict[str, list[str]]) -> None:
    """Check that both stages have the same classes, and sizes that go together.

    Raises:
        UserError: names the task and both label sets, or the flag and the value it must have.
    """
    saved = stage1.config
    for task in saved.classification_tasks:
        if task in labels and saved.labels[task] != labels[task]:
            raise UserError(
                f"--stage1 {stage1.name}: its {task} labels ({', '.join(saved.labels[task])}) differ from the corpus's "
                f"({', '.join(labels[task])})"
            )
    sizes = {"embedding_dim": saved.embedding_dim}
    if stage1.lora is None:
        refuse_without(stage, (ADAPTERS,))
    else:
        sizes |= {"bottleneck_dim": saved.bottleneck_dim}
        sizes |= {"lora_rank": stage1.lora.r, "lora_alpha": stage1.lora.lora_alpha}
    for name, value in sizes.items():
        if getattr(stage, name) != value:
            raise UserError(f"--{name} {getattr(stage, name)}: that of --stage1 {stage1.name} is {value}")


_HELD_OUT = {
    "test": ("test set", ("train", "dev"), "use the stage 1 of the same fold"),
    "dev": ("development set", ("train",), "use a stage 1 with the same --dev, or --dev none with --selection last"),
}
"""Parts of stage 2: name, the parts of stage 1 that must not hold any of its utterances, and what to do."""


def check_stage1_never_heard(stage1: str, parts: DatasetDict, audio: dict[str, str] | None = None) -> None:
    """Check that stage 1 was not trained on what stage 2 is tested on, or chooses its epoch and temperature on.

    Stage 1 must hold out the same fold, and the same development set. Utterances are known by their names or, if
    `audio` is given, by their samples, whatever their names. A stage 1 without `args.json` and `split.json` cannot be
    checked and passes, with a notice.

    Args:
        stage1: Hub id or folder.
        parts: the split corpus of stage 2.
        audio: the digest of each utterance's samples.

    Raises:
        UserError: names an utterance that stage 1 was trained on.
    """
    heard = utterances_of_stage1(stage1, by_audio=audio is not None)
    if heard is None:
        if audio is None:  # else it has been said
            notice(
                f"--stage1 {stage1}: cannot be checked for training on the test or development set, since it has no "
                "args.json or no split.json"
            )
        return
    for part, (name, earlier, remedy) in _HELD_OUT.items():
        known = set().union(*(heard[one] for one in earlier))
        utterances = parts[part].select_columns(["id", "corpus", "path"]) if part in parts else []
        both = [
            row["id"]
            for row in utterances
            if known & (utterance_keys(row) if audio is None else {audio.get(row["id"], "silence")})
        ]
        if both:
            raise UserError(
                f"--stage1 {stage1}: was trained on {len(both)} utterances of the {name}, such as {min(both)}; {remedy}"
            )


class _Stage1Corpus(TypedDict):
    corpus: str
    data_dir: list[str] | None


class _Stage1Record(TypedDict):
    corpus: _Stage1Corpus


def utterances_of_stage1(stage1: str, by_audio: bool) -> dict[str, set[str]] | None:
    """What stage 1 was trained ("train") and chosen on ("dev"): keys as of `utterance_keys`, or digests of samples.

    None if the model does not come with a record of it.
    """
    args, split = (
        cached_file(stage1, name, _raise_exceptions_for_missing_entries=False) for name in ("args.json", "split.json")
    )
    if not (args and split):
        return None
    corpus, record = read_json(args, _Stage1Record)["corpus"], read_json(split, Split)
    ids = {part: record[part]["ids"] if part in record else [] for part in ("train", "dev")}
    if by_audio:
        return {part: set(record.get(part, {}).get("audio", [])) for part in ids}  # version 0.1 did not write them
    folders = [Path(folder) for folder in corpus["data_dir"] or []]
    if len(folders) > 1:
        return {part: set(names) for part, names in ids.items()}
    name = name_in_results(corpus["corpus"])
    prefixes = {folders[0].name, folders[0].resolve().name} if folders and name == "folder" else {name}
    return {part: {f"{prefix}/{name}" for prefix in prefixes for name in names} for part, names in ids.items()}


def utterance_keys(row: dict) -> set[str]:
    """The id of an utterance with the name of its corpus in front, as joined folders have it already.

    A folder that is a link goes by the name of the link as well, and every id by its hash: a public repository has
    hashes in the place of ids.
    """
    corpus, name, path = row["corpus"], row["id"], row["path"]
    folder = Path(path.removesuffix(name)).name if path.endswith(name) else corpus
    if name.startswith(f"{corpus}/"):
        return {name, hashed(name)}
    return {f"{prefix}/{known}" for prefix in (corpus, folder) for known in (name, hashed(name))}


# -------------------------------------------------------------------------------------------------------- both stages


def method_config(
    stage: Stage,
    labels: dict[str, list[str]],
    encoder_config: PreTrainedConfig,
    vocab_size: int | None,
    tokenizer: Wav2Vec2CTCTokenizer,
    scales: dict[str, list[float]] | None = None,
) -> SerMtlConfig:
    """The model's config: settings of the stage that have a place there, under the same names, and the corpus's.

    `scales` are those of `value_scales`.
    """
    known = {one.name for one in fields(SerMtlConfig)}
    method: dict[str, Any] = {name: value for name, value in asdict(stage).items() if name in known}
    method["bottleneck_dim"] = stage.bottleneck_dim if stage.trainable == "adapters" else None
    return SerMtlConfig(
        encoder_config=with_overrides(encoder_config, stage),
        labels=labels,
        value_scales=scales,
        vocab_size=vocab_size,
        pad_token_id=tokenizer.pad_token_id,
        layer_weights=stage.trainable == "heads",
        **method,
    )


def with_overrides(config: PreTrainedConfig, stage: Stage) -> PreTrainedConfig:
    """The encoder's config with layer drop off, and with the dropout and SpecAugment of the flags.

    Layer drop leaves parameters without a gradient, which training in several processes does not allow.
    """
    config.layerdrop = 0.0
    if stage.dropout is not None:
        for name in ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout"):
            setattr(config, name, stage.dropout)
    for axis, probability in (("time", stage.mask_time_prob), ("feature", stage.mask_feature_prob)):
        if probability is not None:
            setattr(config, f"mask_{axis}_prob", probability)
            # Encoders without SpecAugment of their own (Moonshine) get wav2vec2's spans.
            for name, default in (("length", 10), ("min_masks", 0)):
                if not hasattr(config, f"mask_{axis}_{name}"):
                    setattr(config, f"mask_{axis}_{name}", default)
    return config


def commit_on_hub(model: str) -> str | None:
    """The commit of a repository whose config has been loaded; None for a folder."""
    return extract_commit_hash(cached_file(model, "config.json"), None)
