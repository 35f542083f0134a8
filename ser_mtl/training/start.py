"""Which model a stage starts from: a pretrained encoder under new heads, or the model of stage 1."""

import json
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset
from peft import PeftConfig, PeftModel
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    PreTrainedConfig,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
    Wav2Vec2Processor,
    set_seed,
)
from transformers.utils import cached_file, find_adapter_config_file
from transformers.utils.hub import extract_commit_hash

from modeling_ser_mtl import SerMtlConfig, SerMtlModel
from ser_mtl.corpora.audio import SAMPLING_RATE
from ser_mtl.corpora.targets import character_tokenizer
from ser_mtl.errors import UserError, hub_errors
from ser_mtl.files import read_json, replacing
from ser_mtl.training.adapters import (
    attach_adapters,
    continue_adapters,
    freeze_encoder,
    freeze_for_full_finetuning,
    local_or_hub,
)
from ser_mtl.training.arguments import CorpusArguments, MethodArguments, RunArguments, Stage1Arguments, Stage2Arguments

XLS_R = "facebook/wav2vec2-xls-r-300m"
FAMILIES = ("wav2vec2", "hubert", "wavlm", "data2vec-audio", "unispeech", "unispeech-sat", "moonshine")
"""Encoders of raw waveforms whose layers have the attention and feed-forward that the adapters go into."""
DEMO_ENCODER = Path("runs/demo/encoder")


@dataclass
class Start:
    """What a run trains: model, processor, the classes of its tasks, and the pretrained encoder it goes back to.

    `base_transcribes`: the model that adapters go onto has a CTC head of its own.
    """

    model: SerMtlModel | PeftModel
    processor: Wav2Vec2Processor
    labels: dict[str, list[str]]
    encoder: str
    base_transcribes: bool = False


def choose_encoder(args: Stage1Arguments, corpus: CorpusArguments, run: RunArguments) -> None:
    """Settle `--encoder`: XLS-R, or for the demo corpus a small one, whose front end must be trained too."""
    if args.encoder is None and corpus.corpus == "demo":
        with run.main_process_first(desc="making the demo's encoder"):
            args.encoder = demo_encoder(DEMO_ENCODER)
        args.train_front_end = args.trainable == "all"
    args.encoder = local_or_hub(args.encoder or XLS_R)


def stage1_start(args: Stage1Arguments, labels: dict[str, list[str]], train: Dataset) -> Start:
    """A pretrained encoder under new heads.

    Args:
        args: the method, with the encoder settled.
        labels: classes of each classification task.
        train: utterances whose transcripts give the vocabulary.

    Raises:
        UserError: the encoder cannot be loaded, or is none.
    """
    encoder = args.encoder
    encoder_config = pretrained_encoder_config(encoder)
    revision = commit_on_hub(encoder)
    tokenizer = character_tokenizer(train["text"])
    processor = Wav2Vec2Processor(feature_extractor=feature_extractor_of(encoder), tokenizer=tokenizer)
    config = SerMtlConfig(
        encoder_config=with_overrides(encoder_config, args),
        vocab_size=len(tokenizer) if "asr" in args.tasks else None,
        pad_token_id=tokenizer.pad_token_id,
        **method_config(args, labels),
    )
    with hub_errors(f"--encoder {encoder}: its weights cannot be loaded"):
        model = SerMtlModel.from_pretrained(encoder, config=config, revision=revision)
    if args.trainable == "adapters":
        model = attach_adapters(model, encoder, args.lora_rank, args.lora_alpha, revision=revision)
    elif args.trainable == "heads":
        freeze_encoder(model)
    else:
        freeze_for_full_finetuning(model, args.train_front_end)
    return Start(model, processor, labels, encoder)


def choose_stage1(args: Stage2Arguments, corpus: CorpusArguments) -> None:
    """Settle `--stage1`: the stage-1 run of the same corpus and fold."""
    args.stage1 = local_or_hub(args.stage1 or f"runs/{corpus.corpus}/stage1/fold{corpus.fold}")


def stage2_start(args: Stage2Arguments, labels: dict[str, list[str]]) -> Start:
    """The model of stage 1 with what stage 2 adds: heads, fusion and, frozen but for them, adapters.

    A stage 1 that was trained with adapters gives its own adapters to start from, on the encoder they were trained on.

    Raises:
        UserError: the model cannot be loaded, is none of stage 1, or does not fit the corpus or the flags.
    """
    stage1 = args.stage1
    saved = stage1_config(stage1)
    if saved.layer_weights:
        raise UserError(f"--stage1 {stage1}: was trained with --trainable heads, which stage 2 cannot go on from")
    check_same_labels(saved, labels, stage1)
    with hub_errors(f"--stage1 {stage1}: its processor cannot be loaded"):
        processor = Wav2Vec2Processor.from_pretrained(stage1)
    tokenizer = processor.tokenizer
    vocab_size = saved.vocab_size or (len(tokenizer) if "asr" in args.tasks else None)
    config = SerMtlConfig(
        encoder_config=with_overrides(saved.encoder_config, args),
        vocab_size=vocab_size,
        pad_token_id=tokenizer.pad_token_id,
        **method_config(args, labels),
    )
    lora = PeftConfig.from_pretrained(stage1) if find_adapter_config_file(stage1) is not None else None
    adapted = lora is not None
    base, revision = (lora.base_model_name_or_path, lora.revision) if adapted else (stage1, commit_on_hub(stage1))
    sizes = {"embedding_dim": saved.embedding_dim}
    if adapted:
        config.bottleneck_dim = saved.bottleneck_dim  # whatever is trained, these are there
        sizes |= {"bottleneck_dim": saved.bottleneck_dim, "lora_rank": lora.r, "lora_alpha": lora.lora_alpha}
    for name, value in sizes.items():
        if getattr(args, name) != value:
            raise UserError(f"--{name} {getattr(args, name)}: that of --stage1 {stage1} is {value}")
    with hub_errors(f"--stage1 {stage1}: the weights in {base} cannot be loaded"):
        model = SerMtlModel.from_pretrained(base, config=config, revision=revision)
    if adapted or args.trainable == "adapters":
        save_ctc_head = adapted and vocab_size is not None
        model = attach_adapters(model, base, args.lora_rank, args.lora_alpha, save_ctc_head, revision)
    if adapted:
        with hub_errors(f"--stage1 {stage1}: its adapters cannot be loaded"):
            continue_adapters(model, stage1)
    if args.trainable == "all":
        model = model.merge_and_unload() if adapted else model
        freeze_for_full_finetuning(model, args.train_front_end)
    transcribes = not adapted and saved.vocab_size is not None
    return Start(model, processor, labels, saved.encoder_config.name_or_path, transcribes)


def method_config(args: MethodArguments, labels: dict[str, list[str]]) -> dict:
    """The part of a `SerMtlConfig` that the flags of the method give."""
    return {
        "tasks": args.tasks,
        "labels": labels,
        "embedding_dim": args.embedding_dim,
        "aux_weight": args.aux_weight,
        "fusion": args.fusion,
        "scl": args.scl,
        "scl_weight": args.scl_weight,
        "bottleneck_dim": args.bottleneck_dim if args.trainable == "adapters" else None,
        "layer_weights": args.trainable == "heads",
        "head_dropout": args.head_dropout,
    }


def pretrained_encoder_config(encoder: str) -> PreTrainedConfig:
    """The config of an encoder on the Hub or in a folder.

    Raises:
        UserError: it cannot be read, or is not a speech encoder.
    """
    with hub_errors(f"--encoder {encoder}: cannot be loaded, neither as a folder nor from the Hub"):
        config = AutoConfig.from_pretrained(encoder)
    if config.model_type not in FAMILIES:
        raise UserError(
            f"--encoder {encoder}: {config.model_type!r} is none of the encoders of raw waveforms that are known here: "
            f"{', '.join(FAMILIES)}"
        )
    return config


def commit_on_hub(model: str) -> str | None:
    """The commit of a repository whose config has been loaded; None for a folder."""
    return extract_commit_hash(cached_file(model, "config.json"), None)


def demo_encoder(folder: Path) -> str:
    """Make a small, untrained encoder of XLS-R's architecture in `folder`, unless it is there. Returns the folder."""
    if not (folder / "config.json").is_file():
        config = Wav2Vec2Config(
            hidden_size=96,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=384,
            conv_dim=(64,) * 7,
            conv_bias=True,
            feat_extract_norm="layer",
            do_stable_layer_norm=True,
            num_conv_pos_embeddings=32,
            num_conv_pos_embedding_groups=4,
            hidden_dropout=0.0,  # so small and so briefly trained, it gains nothing from being disturbed
            attention_dropout=0.0,
            activation_dropout=0.0,
            feat_proj_dropout=0.0,
            mask_time_prob=0.0,
        )
        set_seed(0)
        with replacing(folder) as partial:
            Wav2Vec2Model(config).save_pretrained(partial)
            Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(partial)
    return str(folder)


def with_overrides(config: PreTrainedConfig, args: MethodArguments) -> PreTrainedConfig:
    """The encoder's config with layer drop off, and dropout and SpecAugment as the flags say where they do.

    Layer drop leaves parameters without a gradient, which training in several processes does not allow.
    """
    config.layerdrop = 0.0
    if args.dropout is not None:
        for name in ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout"):
            setattr(config, name, args.dropout)
    for axis, probability in (("time", args.mask_time_prob), ("feature", args.mask_feature_prob)):
        if probability is not None:
            setattr(config, f"mask_{axis}_prob", probability)
            # Encoders without SpecAugment of their own (Moonshine) take wav2vec2's spans.
            for name, default in (("length", 10), ("min_masks", 0)):
                if not hasattr(config, f"mask_{axis}_{name}"):
                    setattr(config, f"mask_{axis}_{name}", default)
    return config


def feature_extractor_of(encoder: str) -> Wav2Vec2FeatureExtractor:
    """The encoder's own feature extractor; where it has none, one that scales each waveform as wav2vec2 wants it.

    Moonshine takes waveforms as they are.
    """
    try:
        normalise = AutoFeatureExtractor.from_pretrained(encoder).do_normalize
    except (OSError, ValueError, AttributeError):
        normalise = AutoConfig.from_pretrained(encoder).model_type != "moonshine"
    return Wav2Vec2FeatureExtractor(sampling_rate=SAMPLING_RATE, do_normalize=normalise, return_attention_mask=True)


def stage1_config(stage1: str) -> SerMtlConfig:
    """The config of a stage-1 model.

    Raises:
        UserError: there is none, or its run is not finished.
    """
    _check_run_of_stage1(Path(stage1))
    with hub_errors(f"--stage1 {stage1}: no stage-1 model; train one with run_stage1.py, or name its folder or Hub id"):
        config = AutoConfig.from_pretrained(stage1)
    weights = [Path(stage1, name) for name in ("model.safetensors", "adapter_model.safetensors")]
    if config.model_type != SerMtlConfig.model_type or (Path(stage1).is_dir() and not any(map(Path.is_file, weights))):
        raise UserError(f"--stage1 {stage1}: is not a finished stage-1 model of this project")
    return config


def _check_run_of_stage1(folder: Path) -> None:
    """Look at the run in `folder`, where it is one: a model from the Hub comes without its `args.json`."""
    if not (folder / "args.json").is_file():
        return
    results = folder / "results.json"
    if not results.is_file():
        raise UserError(f"--stage1 {folder}: its run is not finished; start run_stage1.py again, which goes on with it")
    with hub_errors(f"--stage1 {folder}: its results.json is damaged"):
        stage = json.loads(results.read_text(encoding="utf-8"))["stage"]
    if stage != 1:
        raise UserError(f"--stage1 {folder}: holds a run of stage {stage}; name the stage-1 model that it started from")


def check_stage1_never_heard(stage1: str, corpus: CorpusArguments, test: Dataset) -> None:
    """Make sure that stage 1 was not trained on what is the test set now: the same fold must be held out in both.

    A stage 1 of another corpus, or one without `split.json`, cannot be checked and passes.

    Raises:
        UserError: names an utterance that stage 1 was trained on.
    """
    args, split = (
        cached_file(stage1, name, _raise_exceptions_for_missing_entries=False) for name in ("args.json", "split.json")
    )
    if not (args and split):
        return
    theirs = read_json(args)["corpus"]
    folders = [{Path(name).name for name in names or []} for names in (theirs["data_dir"], corpus.data_dir)]
    if theirs["corpus"] != corpus.corpus or (corpus.corpus == "folder" and not folders[0] & folders[1]):
        return
    parts = read_json(split)
    heard = {name for part in ("train", "dev") if part in parts for name in parts[part]["ids"]}
    tested = set(test["id"])
    if corpus.corpus == "folder" and len(theirs["data_dir"]) != len(corpus.data_dir):
        heard, tested = _with_folder(heard, theirs["data_dir"]), _with_folder(tested, corpus.data_dir)
    if both := sorted(heard & tested):
        raise UserError(
            f"--stage1 {stage1}: was trained with fold {parts['fold']} held out, on {both[0]} and {len(both) - 1} more "
            f"utterances that --fold {corpus.fold} tests on; use the stage 1 of the same fold"
        )


def _with_folder(ids: set[str], folders: list[str]) -> set[str]:
    """Ids as they are where several folders are joined: each with its folder's name in front."""
    return ids if len(folders) > 1 else {f"{Path(folders[0]).resolve().name}/{name}" for name in ids}


def check_same_labels(saved: SerMtlConfig, labels: dict[str, list[str]], stage1: str) -> None:
    """Make sure that both stages know the same classes.

    Raises:
        UserError: names the task and both label sets.
    """
    for task in saved.classification_tasks:
        if task in labels and saved.labels[task] != labels[task]:
            raise UserError(
                f"--stage1 {stage1}: its {task} labels ({', '.join(saved.labels[task])}) differ from the corpus's "
                f"({', '.join(labels[task])})"
            )
