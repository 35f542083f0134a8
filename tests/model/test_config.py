"""`SerMtlConfig` refuses what it does not know, and the modeling file keeps to its plan."""

import ast
import re
import sys

import pytest
import torch
from helpers.encoders import ENCODERS, LABELS, all_tasks_config, stock_input
from helpers.tiny import OWN, ROOT, TRAVELLING
from transformers import SEWConfig

from modeling_ser_mtl import SerMtlConfig, SerMtlModel


@pytest.mark.parametrize("values", [{"temperature": 0.0}, {"scl": "Norm"}, {"aux_weight": 0.5}])
def test_nonsense_given_to_from_pretrained_is_refused_too(values, tmp_path):
    SerMtlModel(all_tasks_config()).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"^{next(iter(values))} "):
        SerMtlModel.from_pretrained(tmp_path, **values)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"scl": "Norm"}, "scl 'Norm': must be 'none' or one of"),
        ({"scl": True}, "scl True"),
        ({"fusion": "concatenate"}, "fusion 'concatenate': must be 'none' or 'concat'"),
        ({"aux_weight": 0.5}, "aux_weight 0.5: leaves emotion the weight -0.5"),
        ({"aux_weight": 1 / 3}, "aux_weight"),
        ({"aux_weight": -0.1}, "aux_weight -0.1"),
        ({"ctc_scale": "mean"}, "ctc_scale 'mean': must be one of ['characters', 'utterance', 'batch']"),
        ({"aux_weight": float("nan")}, "aux_weight nan"),
        ({"tasks": "emotion"}, "tasks 'emotion': must be list"),
        ({"tasks": []}, "tasks []"),
        ({"tasks": ["emotion", "emotion"]}, "tasks"),
        ({"tasks": ["emotion", "mood"]}, "tasks ['mood']: must be 'asr' or have a list of different labels"),
        ({"labels": LABELS | {"gender": []}}, "tasks ['gender']"),
        ({"labels": LABELS | {"style": ["acted", "acted"]}}, "tasks ['style']"),
        ({"tasks": ["emotion", "asr"], "fusion": "concat"}, "fusion, scl: need emotion and another"),
        ({"tasks": ["gender", "style"], "scl": "cos"}, "fusion, scl: need emotion and another"),
        ({"scl_weight": -1.0}, "scl_weight -1.0: must not be negative"),
        ({"head_dropout": 1.0}, "head_dropout 1.0"),
        ({"temperature": 0.0}, "temperature 0.0: must be above 0"),
        ({"bottleneck_dim": -8}, "bottleneck_dim"),
        ({"embedding_dim": 0}, "embedding_dim"),
        ({"embedding_dim": "a"}, "embedding_dim 'a': must be a number"),
        ({"aux_weight": "0.1"}, "aux_weight '0.1': must be a number"),
        ({"temperature": None}, "temperature None: must be a number"),
        ({"bottleneck_dim": True}, "bottleneck_dim True: must be a number"),
        ({"id2label": 3}, "id2label, label2id, num_labels: must be dicts"),
        ({"no_such": 3}, "no_such: unknown to SerMtlConfig and to transformers"),
        ({"head_drop": 0.1, "embed_dim": 8}, "head_drop, embed_dim: unknown"),
        ({"encoder_config": SEWConfig()}, "encoder 'sew': must be one of wav2vec2"),
    ],
    ids=str,
)
def test_nonsense_is_refused_in_one_line(values, said):
    with pytest.raises(ValueError) as caught:
        all_tasks_config(**values)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_what_transformers_knows_passes_and_what_another_release_wrote():
    stock = {"torch_dtype": "float32", "attn_implementation": "eager", "num_labels": 4, "problem_type": None}
    config = all_tasks_config(**stock, output_hidden_states=True, architectures=["SerMtlModel"], auto_map={})
    saved = config.to_dict() | {"of_a_later_release": 1}
    assert SerMtlConfig(**saved).of_a_later_release == SerMtlConfig.from_dict(saved).of_a_later_release == 1


def test_speech_recognition_needs_a_vocabulary():
    with pytest.raises(ValueError, match="vocab_size"):
        SerMtlModel(all_tasks_config(vocab_size=None))


def test_a_config_without_arguments_is_one_of_emotion_alone():
    config = SerMtlConfig()
    assert (config.tasks, list(config.labels), config.id2label[0]) == (["emotion"], ["emotion"], "angry")


def test_a_task_that_the_file_has_never_heard_of_needs_only_labels():
    labels = LABELS | {"age": ["old", "young"]}
    model = SerMtlModel(all_tasks_config(tasks=["emotion", "age"], labels=labels, fusion="concat", scl="cos")).eval()
    output = model(torch.randn(2, 4000), age_labels=torch.tensor([0, 1]), labels=torch.tensor([1, -100]))
    assert output.task_logits["age"].shape == (2, 2)
    assert set(output.losses) == {"emotion", "age", "scl"}


# ------------------------------------------------------------------------------------------------ the forward pass


@pytest.fixture(scope="module")
def model() -> SerMtlModel:
    torch.manual_seed(0)
    return SerMtlModel(all_tasks_config()).eval()


@torch.inference_mode()
def test_labels_are_the_labels_of_emotion(model):
    waveforms, labels = torch.randn(2, 4000), torch.tensor([1, 2])
    assert model(waveforms, labels=labels).loss == model(waveforms, emotion_labels=labels).loss
    with pytest.raises(TypeError, match="labels and emotion_labels"):
        model(waveforms, labels=labels, emotion_labels=labels.clone())
    with pytest.raises(TypeError, match="'mood_labels'"):
        model(waveforms, mood_labels=labels)


@torch.inference_mode()
def test_a_tuple_is_returned_instead_of_an_output(model):
    waveforms = torch.randn(2, 4000)
    output = model(waveforms, return_dict=False)
    assert isinstance(output, tuple) and torch.equal(output[0], model(waveforms).logits)


@pytest.mark.parametrize("encoder", ENCODERS)
@torch.inference_mode()
def test_hidden_states_are_those_of_the_stock_encoder(encoder):
    torch.manual_seed(0)
    model = SerMtlModel(all_tasks_config(encoder)).eval()
    waveform, stock_takes = stock_input(model, torch.randn(1, 6000))
    assert model(waveform).hidden_states is None
    states = model(waveform, output_hidden_states=True).hidden_states
    expected = model.encoder(stock_takes, output_hidden_states=True).hidden_states
    assert len(states) == len(expected) == 3
    for ours, stock in list(zip(states, expected, strict=True))[:-1]:  # the last of some is after the final norm
        torch.testing.assert_close(ours, stock, atol=1e-5, rtol=0)


@pytest.mark.parametrize("encoder", ["wav2vec2, layer norm", "HuBERT", "Moonshine", "Whisper"])
@torch.inference_mode()
def test_eager_attention_is_honoured_and_gives_the_same(encoder, tmp_path):
    torch.manual_seed(0)
    SerMtlModel(all_tasks_config(encoder)).save_pretrained(tmp_path)
    waveforms, mask = torch.randn(2, 6000), torch.ones(2, 6000, dtype=torch.long)
    mask[1, 4000:] = 0
    answers = {}
    for attention in ("eager", "sdpa"):
        model = SerMtlModel.from_pretrained(tmp_path, attn_implementation=attention).eval()
        answers[attention] = model(waveforms * mask, mask)
        assert model.encoder.config._attn_implementation == attention
    torch.testing.assert_close(answers["eager"].logits, answers["sdpa"].logits, atol=1e-5, rtol=0)
    frames = int(answers["sdpa"].frame_lengths[1])
    eager, fused = (answers[name].asr_logits[1, :frames] for name in ("eager", "sdpa"))
    torch.testing.assert_close(eager, fused, atol=1e-5, rtol=0)


# ------------------------------------------------------------------------------------------------ the modeling file


OPTIONAL = {"scipy", "silero_vad", "soundfile", "torchaudio"}  # imported where they are used


def test_the_modeling_file_imports_only_what_a_reader_of_the_hub_has():
    files = [ROOT / name for name in TRAVELLING]
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text()))]
    modules = {node.module for node in nodes if isinstance(node, ast.ImportFrom)} - {file.stem for file in files}
    modules |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    others = {name.split(".")[0] for name in modules} - set(sys.stdlib_module_names)
    assert others == {"torch", "transformers", "safetensors", "peft", "accelerate", "numpy"} | OPTIONAL


def test_transformers_4_wants_nothing_optional_installed():
    """It takes every import for one that must be there, except between a `try:` and the next `except`."""
    for name in TRAVELLING:
        code = re.sub(r"\s*try\s*:.*?except.*?:", "", (ROOT / name).read_text(), flags=re.DOTALL)
        wanted = re.findall(r"^\s*(?:from|import)\s+(\w+)", code, re.MULTILINE)
        assert not {*wanted} & {*OPTIONAL, *OWN}, name
