"""Starting a new stage 1 from the encoder of a model of this project."""

from pathlib import Path
from typing import NamedTuple

from peft import PeftConfig
from transformers import AutoConfig
from transformers.utils import find_adapter_config_file

from modeling_ser_mtl import SerMtlConfig, SerMtlModel
from ser_mtl.errors import UserError, hub_errors, notice
from ser_mtl.model.base import base_of
from ser_mtl.model.saved import check_saved
from ser_mtl.training.earlier_run import check_finished
from ser_mtl.training.method import commit_on_hub


class Pretrained(NamedTuple):
    """An encoder to start from: Hub id or folder, its commit on the Hub, and whether a model of this project has it."""

    name: str
    revision: str | None
    own: bool


def encoder_behind(name: str) -> Pretrained:
    """The encoder that `name` means: a stock one, that of a whole model, or the one under a model's adapters.

    Adapters are left out, with a notice: bottlenecks do not fit into an encoder.

    Raises:
        UserError: it cannot be loaded, its run is not finished, or it has bottlenecks and no known base.
    """
    revision = None
    flag = f"--encoder {name}"
    while True:
        check_finished(Path(name), "--encoder")
        with hub_errors(f"{flag}: cannot be loaded, neither as a folder nor from the Hub"):
            check_saved(name, revision)
            config = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
        if config.model_type != SerMtlConfig.model_type:
            return Pretrained(name, revision or commit_on_hub(name), own=False)
        if find_adapter_config_file(name, revision=revision) is None:
            break
        adapters = PeftConfig.from_pretrained(name, revision=revision)
        base = base_of(name, say="name another --encoder") or adapters.base_model_name_or_path
        notice(
            f"{flag}: its adapters are left out, since bottlenecks do not fit into an encoder; it starts from {base}"
        )
        name, revision = base, adapters.revision
    if config.bottleneck_dim:
        raise UserError(
            f"{flag}: has bottleneck adapters, which do not fit into an encoder; name the model they were trained on"
        )
    return Pretrained(name, revision or commit_on_hub(name), own=True)


def model_on(encoder: Pretrained, config: SerMtlConfig) -> SerMtlModel:
    """The encoder under new heads."""
    if not encoder.own:
        return SerMtlModel.from_pretrained(encoder.name, config=config, revision=encoder.revision)
    model = SerMtlModel._from_config(config)
    trained = SerMtlModel.from_pretrained(encoder.name, revision=encoder.revision)
    model.encoder.load_state_dict(trained.encoder.state_dict())
    return model
