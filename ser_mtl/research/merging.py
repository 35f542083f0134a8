"""A model of speech recognition and one of emotion, merged layer by layer (after AdaLTM, arXiv 2603.25041).

Both were finetuned from the same encoder. Each layer l of the merged one has the weights

    (1 - a_l - b_l) base_l + a_l asr_l + b_l emotion_l  =  base_l + a_l (asr_l - base_l) + b_l (emotion_l - base_l),

computed as on the left, so that a = 1, b = 0 is the parent bitwise. The coefficients start at one half each and are
learned with the emotion head, on the emotion loss; their number, learning rate and start are ours, since only the
abstract was available.
"""

from pathlib import Path

import torch
from datasets import DatasetDict
from torch import Tensor, nn
from transformers import AutoConfig, TrainerCallback

from modeling_ser_mtl import SerMtlConfig, SerMtlModel
from ser_mtl.errors import UserError, hub_errors
from ser_mtl.files import write_json
from ser_mtl.model.saved import check_saved
from ser_mtl.research.gradients import shared_parameters
from ser_mtl.training.arguments import SerMtlArguments
from ser_mtl.training.earlier_run import check_finished
from ser_mtl.training.heard import check_never_heard
from ser_mtl.training.method import Earlier, Start
from ser_mtl.training.stage import Stage
from ser_mtl.training.start import start_of
from ser_mtl.training.trainer import SerMtlTrainer

RATE = 100.0
"""The learning rate of the coefficients over that of the heads: Adam moves each by at most its rate in an update, which
at 1e-4 would leave a coefficient within a few hundredths of its start."""


class LayerMerge(nn.Module):
    """The coefficients of each layer, and the weights of the three models, from which those of `model` are computed.

    Args:
        model: with the weights of the encoder that both were finetuned from.
        asr: the model of speech recognition.
        emotion: the model of emotion.
    """

    def __init__(self, model: SerMtlModel, asr: SerMtlModel, emotion: SerMtlModel):
        super().__init__()
        self.groups = shared_parameters(model)
        self.coefficients = nn.Parameter(torch.full((len(self.groups), 2), 0.5))
        names = {id(parameter): name for name, parameter in model.encoder.named_parameters()}
        for i, parameter in enumerate(self._parameters_in_order()):
            name = names[id(parameter)]
            parts = [parameter, *(one.encoder.get_parameter(name) for one in (asr, emotion))]
            self.register_buffer(f"of_{i}", torch.stack([part.detach() for part in parts]), persistent=False)

    def _parameters_in_order(self) -> list[nn.Parameter]:
        return [parameter for group in self.groups.values() for parameter in group]

    def _parts(self) -> list[tuple[int, nn.Parameter, Tensor]]:
        """The group, the parameter, and its three values (base, asr, emotion), of every merged parameter."""
        of_group = [index for index, group in enumerate(self.groups.values()) for _ in group]
        merged = zip(of_group, self._parameters_in_order(), strict=True)
        return [(index, parameter, self.get_buffer(f"of_{i}")) for i, (index, parameter) in enumerate(merged)]

    @torch.no_grad()
    def merge(self) -> None:
        """Set the model's weights by the coefficients."""
        for index, parameter, (base, asr, emotion) in self._parts():
            a, b = self.coefficients[index]
            parameter.copy_((1 - a - b) * base + a * asr + b * emotion)

    @torch.no_grad()
    def collect(self) -> None:
        """Turn the gradients of the merged weights into those of the coefficients, by the chain rule."""
        gradients = torch.zeros_like(self.coefficients)
        for index, parameter, (base, asr, emotion) in self._parts():
            if parameter.grad is not None:
                gradients[index] += torch.stack([(parameter.grad * (one - base)).sum() for one in (asr, emotion)])
                parameter.grad = None
        self.coefficients.grad = gradients

    def record(self) -> dict:
        """The content of `merge.json`: the coefficients by layer."""
        return {
            name: {"asr": round(a, 5), "emotion": round(b, 5)}
            for name, (a, b) in zip(self.groups, self.coefficients.tolist(), strict=True)
        }


class _Merging(TrainerCallback):
    def on_train_begin(self, args, state, control, model, **kwargs):
        """Set the weights at the start, or those of a resumed run's coefficients."""
        model.merge.merge()

    def on_optimizer_step(self, args, state, control, model, **kwargs):
        """Set the weights after the coefficients have changed."""
        model.merge.merge()


class MergeTrainer(SerMtlTrainer):
    """A `SerMtlTrainer` that learns the coefficients of a merge, and the emotion head. Leaves a plain model of stage 1.

    Args:
        asr, emotion: folders of the two finished runs.
    """

    def __init__(self, stage: Stage, args: SerMtlArguments, parts: DatasetDict, *, asr: str, emotion: str, **kwargs):
        super().__init__(stage, args, parts, start=merged_start(stage, parts, asr, emotion), **kwargs)
        self.add_callback(_Merging())

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The optimizer of the heads, with a group for the coefficients; the merged weights are not in it."""
        optimizer = super().create_optimizer(model)
        merge = self.model.merge
        derived = {id(parameter) for parameter in (*merge._parameters_in_order(), merge.coefficients)}
        heads = optimizer.param_groups[-1]
        for group in optimizer.param_groups:
            group["params"] = [parameter for parameter in group["params"] if id(parameter) not in derived]
        own = {"params": [merge.coefficients], "lr": RATE * self.args.learning_rate, "weight_decay": 0.0}
        optimizer.param_groups = [group for group in optimizer.param_groups if group["params"]]
        optimizer.param_groups.append(heads | own | {"of_encoder": False})
        return optimizer

    def training_step(self, *args, **kwargs) -> Tensor:
        """Backpropagate a batch; after the last one of an update, the gradients are those of the coefficients."""
        loss = super().training_step(*args, **kwargs)
        if self.accelerator.sync_gradients:
            self.model.merge.collect()
        return loss

    def _calibrate(self) -> None:
        """After training: keep the coefficients in `merge.json`, and leave a model that is like any other."""
        if self.is_world_process_zero():
            write_json(Path(self.args.output_dir) / "merge.json", self.model.merge.record())
        del self.model.merge
        super()._calibrate()


def merged_start(stage: Stage, parts: DatasetDict, asr: str, emotion: str) -> Start:
    """The stage's own encoder with the emotion model's head; its `merge` is a `LayerMerge`.

    Raises:
        UserError: a model that cannot be loaded, or does not fit the other, the flags or the corpus.
    """
    start = start_of(stage, parts)
    of_asr = _parent("--merge_asr", asr, "asr", start)
    of_emotion = _parent("--merge_emotion", emotion, "emotion", start)
    for flag, folder in (("--merge_asr", asr), ("--merge_emotion", emotion)):
        check_never_heard(Earlier(flag, folder), parts)
    for name in ("labels", "embedding_dim", "layer_weights", "layer_statistics"):
        here, there = (getattr(one.config, name) for one in (start.model, of_emotion))
        if here != there:
            raise UserError(f"--merge_emotion {emotion}: has {name} {there}, which is {here} here; use the same")
    for name, parameter in start.model.encoder.named_parameters():
        differs = any(not torch.equal(one.encoder.get_parameter(name), parameter) for one in (of_asr, of_emotion))
        if differs and not parameter.requires_grad:
            raise UserError("--train_front_end: the models to be merged have trained it; add it here too")
    head = {
        name: of_emotion.get_parameter(name) for name, _ in start.model.named_parameters() if "encoder." not in name
    }
    start.model.load_state_dict(start.model.state_dict() | head)
    start.model.merge = LayerMerge(start.model, of_asr, of_emotion)
    return start


def _parent(flag: str, folder: str, task: str, start: Start) -> SerMtlModel:
    check_finished(Path(folder), flag, stage=1)
    with hub_errors(f"{flag} {folder}: cannot be loaded"):
        check_saved(folder)
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        if config.model_type != SerMtlConfig.model_type or config.bottleneck_dim or task not in config.tasks:
            raise UserError(f"{flag} {folder}: must be a stage 1 of --tasks {task} that trained all parameters")
        encoder = getattr(config.encoder_config, "name_or_path", "")
        if encoder != start.encoder:
            raise UserError(f"{flag} {folder}: was trained from {encoder}, not from --encoder {start.encoder}")
        return SerMtlModel.from_pretrained(folder)
