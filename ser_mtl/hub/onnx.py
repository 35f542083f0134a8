"""Export a run as one ONNX file, which answers recordings without torch, transformers and this project."""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from transformers import Wav2Vec2Processor

from answers_ser_mtl import NO_TRANSCRIPT, adapters_off, special_characters, transcript_source
from modeling_ser_mtl import SerMtlModel
from ser_mtl.corpora.audio import SAMPLING_RATE
from ser_mtl.errors import UserError, hub_errors, notice
from ser_mtl.hub.complete import read_results
from ser_mtl.model.base import base_of
from ser_mtl.model.fast_front_end import receptive_field
from ser_mtl.model.processor import load_processor
from ser_mtl.model.saved import check_saved

if TYPE_CHECKING:
    import onnx

INPUTS = ("input_values", "attention_mask")
OPSET = 18
ONE_FILE = 2_000_000_000
"""The most bytes of weights in the file itself; an ONNX file can hold 2 GiB."""


def write_onnx(run: Path, folder: Path, int8: bool = False, base: str | None = None) -> Path:
    """Write a run's model as `model.onnx`, or `model_int8.onnx`, with everything that answers need in its metadata.

    Weights of more than 2 GB are in a second file, `<name>.data`.

    Args:
        run: folder of a finished run.
        folder: where the file is written; other files there stay.
        int8: store the weights of matrix products as 8-bit integers. Convolutions stay in float32: in integers,
            they change many answers.
        base: folder or Hub id of the base of adapters; by default, the one that they name.

    Returns:
        The file.

    Raises:
        UserError: the extra `onnx` is not installed, or the run is not finished or cannot be loaded.
    """
    if missing := [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]:
        raise UserError(f"--to onnx: needs {', '.join(missing)}; pip install {' '.join(missing)}")
    model, processor = _loaded(run, base)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output_dir {folder}: cannot be written ({error.strerror})") from error
    name = "model_int8.onnx" if int8 else "model.onnx"
    large = sum(weight.nbytes for weight in model.parameters()) > ONE_FILE
    with TemporaryDirectory(prefix=".partial.", dir=folder) as partial_folder:
        float32, written = Path(partial_folder, "float32", name), Path(partial_folder, name)
        export(model, float32 if int8 else written, large)
        if int8:
            quantize(float32, written, large)
        set_metadata(written, metadata(model, processor))
        for file in sorted(Path(partial_folder).glob(f"{name}*"), reverse=True):  # the weights before what names them
            file.replace(folder / file.name)
    return folder / name


def _loaded(run: Path, base: str | None) -> tuple[SerMtlModel, Wav2Vec2Processor]:
    """The model of a finished run, and its processor."""
    read_results(run)
    with hub_errors(f"--to onnx: {run} cannot be loaded"):
        check_saved(str(run), base=base)
        model = SerMtlModel.from_pretrained(run, base=base_of(run, base)).float().eval()
        processor = load_processor(str(run), f"--to onnx: {run}")
    if model.ctc_head is not None and transcript_source(model) is None:
        notice(f"--to onnx: {run}: {NO_TRANSCRIPT}")
    return model, processor


class OnnxModel(nn.Module):
    """The exported form of a model: tensors in, tensors out, with transcripts from the model that transcribes.

    Args:
        model: in evaluation mode.
    """

    def __init__(self, model: SerMtlModel):
        super().__init__()
        self.model = model

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs of `forward`."""
        characters = ["asr_logits"] if transcript_source(self.model) else []
        config = self.model.config
        heads = [*(f"{t}_logits" for t in config.classification_tasks), *(f"{t}_value" for t in config.value_tasks)]
        return [*heads, *characters, "frame_lengths"]

    def forward(self, input_values: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        """(batch, samples) each -> logits, (batch, classes); values, (batch,); characters; and real frames, (batch,).

        Logits of emotion are not yet divided by the temperature. Those of characters come from the model that
        transcribes, which may be the one under the adapters.
        """
        model = self.model
        features, frame_lengths = model.extract_features(input_values, attention_mask)
        output = model(features=features, frame_lengths=frame_lengths)
        characters = [] if (source := transcript_source(model)) is None else [output.asr_logits]
        if source == "frozen" and model.ctc_head is not None:
            with adapters_off(model):
                characters = [model.ctc_head(model.encode(features, frame_lengths)[0])]
        values = () if output.task_values is None else output.task_values.values()
        return (*output.task_logits.values(), *values, *characters, frame_lengths)


@torch.no_grad()
def export(model: SerMtlModel, file: Path, large: bool) -> None:
    """Write the graph; `large`: with the weights in a second file. Batch and length are dynamic."""
    file.parent.mkdir(exist_ok=True)
    wrapped = OnnxModel(model).eval()
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("samples", min=receptive_field(model)[0])}
    mask = torch.ones(2, SAMPLING_RATE, dtype=torch.long)
    with _quiet():
        program = torch.onnx.export(
            wrapped,
            (torch.zeros(mask.shape), mask),
            dynamo=True,
            opset_version=OPSET,
            input_names=INPUTS,
            output_names=wrapped.outputs,
            dynamic_shapes=dict.fromkeys(INPUTS, sizes),
            verbose=False,
        )
        program.save(file, external_data=large)


def quantize(float32: Path, file: Path, large: bool) -> None:
    """Write a graph with the weights of its matrix products in 8 bits, a scale for each output channel."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quiet(), TemporaryDirectory(prefix=".partial.", dir=file.parent) as folder:
        prepared = Path(folder, float32.name)
        onnx.save(
            _transposed(onnx.load(float32)), prepared, save_as_external_data=large, location=f"{float32.name}.data"
        )
        quantize_dynamic(
            prepared,
            file,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=large,
        )


def _transposed(model: "onnx.ModelProto") -> "onnx.ModelProto":
    """The graph with its weights transposed beforehand.

    The quantizer changes a weight only where a product takes it directly. The exporter leaves a `Transpose` between,
    where two products share the weight: in a stage 2, whose Transformer runs twice, that is nearly all of them.
    """
    from onnx import numpy_helper

    weights = {weight.name: weight for weight in model.graph.initializer}
    instead: dict[str, str] = {}
    for node in [node for node in model.graph.node if node.op_type == "Transpose" and node.input[0] in weights]:
        order = list(node.attribute[0].ints) if node.attribute else None
        name = f"{node.input[0]} transposed {order}"
        if name not in instead.values():  # one copy for all products
            values = numpy_helper.to_array(weights[node.input[0]]).transpose(order)
            model.graph.initializer.append(numpy_helper.from_array(values.copy(), name))
        instead[node.output[0]] = name
        model.graph.node.remove(node)
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = instead.get(name, name)
    return model


def metadata(model: SerMtlModel, processor: Wav2Vec2Processor) -> dict:
    """The values that turn samples into inputs of the graph, and its outputs into answers."""
    config, tokenizer = model.config, processor.tokenizer
    content = {
        "labels": {task: config.labels[task] for task in config.classification_tasks},
        "values": config.value_tasks,
        "temperature": config.temperature,
        "sampling_rate": SAMPLING_RATE,
        "normalise": processor.feature_extractor.do_normalize,
        "receptive_field": receptive_field(model)[0],
    }
    if model.longest_input is not None:
        content["longest_input"] = model.longest_input
    if transcript_source(model):
        content["vocabulary"] = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
        content |= {"blank": tokenizer.pad_token_id, "word_delimiter": tokenizer.word_delimiter_token}
        content["special"] = special_characters(tokenizer)
    return content


def set_metadata(file: Path, content: dict) -> None:
    """Replace the metadata of an ONNX file by `content`, each value as JSON.

    The exporter's notes on every operation are removed: they are stack traces, with the paths of this machine.
    """
    import onnx

    graph = onnx.load(file, load_external_data=False)
    for part in (graph.graph, *graph.graph.node):
        del part.metadata_props[:]
    onnx.helper.set_model_props(graph, {name: json.dumps(value, ensure_ascii=False) for name, value in content.items()})
    onnx.save(graph, file)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence warnings and logs: the exporters' are for their own developers."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
