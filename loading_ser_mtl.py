"""Saving and loading the models of `modeling_ser_mtl.py`, with transformers 4.50 and every newer version.

This file travels to the Hub with `config_ser_mtl.py` and `layers_ser_mtl.py`; they need nothing else of this project.
"""

import re
from collections.abc import Callable, Iterable
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModel, PretrainedConfig
from transformers.dynamic_module_utils import custom_object_save
from transformers.utils import ModelOutput, cached_file, find_adapter_config_file, logging

try:  # as in modeling_ser_mtl.py
    from .config_ser_mtl import LABEL_NAMES
    from .layers_ser_mtl import LayeredModel
except ImportError:
    try:
        from config_ser_mtl import LABEL_NAMES
        from layers_ser_mtl import LayeredModel
    except ImportError:
        raise


WRAPPERS = r"^(?:(?:module|model|_orig_mod|wav2vec2|hubert|wavlm|data2vec_audio|unispeech|unispeech_sat)\.)+"
"""Names that wrappers and models with a head put in front of an encoder's tensors."""
PREFIXES = {r"^(?:(?:module|_orig_mod)\.)*model\.encoder\.": "model.", r"^(?:(?:module|_orig_mod)\.)*encoder\.": ""}
"""Likewise, in a checkpoint of encoder and decoder. `model.` stays: transformers itself removes it from all names."""


class ByTask(ModelOutput):
    """A tensor for each task, by its name: a dict that pipelines can take apart and torch.export can pass on."""

    def __init__(self, by_task: Iterable = (), /, **tensors: Tensor):  # that of ModelOutput wants a dataclass
        for task, tensor in {**dict(by_task), **tensors}.items():
            self[task] = tensor


class BaseFingerprint(nn.Module):
    """A few values of every frozen tensor of the base, saved with the adapters, to detect a wrong base."""

    def __init__(self, size: int):
        super().__init__()
        self.register_buffer("values", torch.zeros(size))


class LoadableModel(LayeredModel):
    """The part of a `SerMtlModel` that loads and saves it: whole, as adapters, or around a stock encoder."""

    adapted_modules = ""  # the pattern of the modules with LoRA

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path, *args, config=None, base=None, is_trainable=False, **kwargs
    ):
        """Load a model, an adapter (with the base it names), or, given `config`, a stock encoder under new heads.

        `revision` is the adapter's, not that of its base, which `base` names if it has moved. Adapters are frozen
        unless `is_trainable`. A base that the adapter was not trained on is a ValueError, and so are other labels than
        the trained ones, unless `ignore_mismatched_sizes` asks for new classifiers.
        """
        adapter, in_adapter = kwargs.pop("adapter_kwargs", None) or {}, kwargs.pop("_in_adapter", ())
        if pretrained_model_name_or_path is None:
            return super().from_pretrained(None, *args, config=config, **kwargs)
        name, hub = str(pretrained_model_name_or_path), _hub_arguments(kwargs)
        if "_adapter_model_path" in adapter:  # an Auto class has put the base, as of today, in the adapter's place
            of_base = {"_base_revision": kwargs.get("revision"), "revision": adapter.get("revision")}
            name, kwargs = str(adapter["_adapter_model_path"]), kwargs | of_base
        is_adapter = "_adapter_model_path" in adapter or find_adapter_config_file(name, **hub) is not None
        kind = None if is_adapter else cls.config_class.get_config_dict(name, **hub)[0].get("model_type")
        if isinstance(config, str | PathLike) and kind != cls.config_class.model_type:
            config = cls.config_class.from_pretrained(config, **hub)
        if is_adapter:
            return cls._from_adapter(name, base, config, is_trainable, kwargs)
        if config is not None and kind != cls.config_class.model_type:
            return cls._from_encoder(name, config, kwargs)
        saved = cls.config_class.from_pretrained(name, **hub)
        if saved.encoder_config is None:
            raise ValueError(f"{name}: has no config.json of such a model; under new heads, an encoder needs config=")
        with torch.device("meta"):  # the tensors that the checkpoint must hold; it may lack new tasks and adapters
            own = {key for key in cls(saved).state_dict() if not key.startswith(in_adapter)}
        loaded = _load_whole(partial(super().from_pretrained, name, *args, config=config), own, kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        for prefix in model._new_classifiers({} if in_adapter else saved.labels, kwargs):
            for module in model.get_submodule(prefix).modules():
                for parameter in module.parameters(recurse=False):
                    parameter._is_hf_initialized = False  # else transformers would leave it as it is
                model._init_weights(module)
        return loaded

    @classmethod
    def _from_encoder(cls, name: str, config: PretrainedConfig, arguments: dict):
        """The stock encoder `name` under new heads."""
        dtype = arguments.pop("dtype", arguments.pop("torch_dtype", None))
        with_info = arguments.pop("output_loading_info", False)
        model = cls._from_config(config, attn_implementation=arguments.pop("attn_implementation", None))
        half = config.encoder_config.is_encoder_decoder  # its encoder half is loaded alone
        load = (type(model.encoder) if half else AutoModel).from_pretrained
        # Some checkpoints lack the mask embedding, which matters only in training.
        own = {*model.encoder.state_dict()} - {"masked_spec_embed"}
        arguments |= {"config": config.encoder_config, "output_loading_info": True, "trust_remote_code": False}
        stock, info = _load_whole(partial(load, name), own, arguments, PREFIXES if half else None)
        model.encoder.load_state_dict(stock.state_dict())
        if dtype is not None:
            model.to(stock.dtype if dtype == "auto" else getattr(torch, dtype) if isinstance(dtype, str) else dtype)
        model.name_or_path = name
        heads = {key for key in model.state_dict() if not key.startswith("encoder.")}
        return (model, info | {"missing_keys": {*info["missing_keys"], *heads}}) if with_info else model

    @classmethod
    def _from_adapter(
        cls, name: str, base: str | None, asked: PretrainedConfig | None, trainable: bool, arguments: dict
    ):
        from accelerate import dispatch_model
        from peft import PeftConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict

        hub = _hub_arguments(arguments)
        peft_config = PeftConfig.from_pretrained(name, **hub)
        named = peft_config.base_model_name_or_path
        modules = peft_config.target_modules
        if isinstance(modules, str) and modules not in (cls.adapted_modules, "all-linear"):
            raise ValueError("adapter_config.json: has a pattern as target_modules that could take forever to match")
        peft_config.inference_mode = not trainable
        config, trained = cls._config_of_adapter(name, named, asked, arguments)
        # The commit that the adapter was trained on, even if the base has changed since.
        arguments = {key: value for key, value in arguments.items() if key != "subfolder"}
        arguments |= {"revision": peft_config.revision if base in (None, named) else None}
        # The adapter's own heads may have other shapes and labels than the base's.
        brought = tuple(peft_config.modules_to_save or ())
        load = partial(cls.from_pretrained, base or named, config=config, _in_adapter=brought)
        loaded, places = _in_memory(load, arguments)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        inject_adapter_in_model(peft_config, model)
        model.peft_config, model._hf_peft_config_loaded = {"default": peft_config}, True
        if model.ctc_head is not None and "asr" not in model.config.tasks:
            model.ctc_head.requires_grad_(False)  # saved with some adapters, trained with none
        weights = load_file(cached_file(name, "adapter_model.safetensors", **hub), device=str(model.device))
        # PEFT's names are those inside a PeftModel; here the adapters are in the model itself.
        weights = {key.removeprefix("base_model.model."): value for key, value in weights.items()}
        own = get_peft_model_state_dict(model, save_embedding_layers=False)
        _refuse_lost(sorted(own.keys() - weights.keys()), len(own), sorted(weights.keys() - own.keys()))
        new = model._new_classifiers(trained, arguments)
        set_peft_model_state_dict(model, weights | {key: own[key] for key in weights if key.startswith(new)})
        model.eval()
        if places is not None:
            dispatch_model(model, places, offload_dir=arguments.get("offload_folder"))
        if isinstance(loaded, tuple):
            missing = loaded[1]["missing_keys"]
            loaded[1]["missing_keys"] = {key for key in missing if key not in own or key.startswith(new)}
        return loaded

    @classmethod
    def _config_of_adapter(
        cls, name: str, base: str, asked: PretrainedConfig | None, arguments: dict
    ) -> tuple[PretrainedConfig | None, dict]:
        """The config of the adapter `name`, with the values that the caller asks for; and the labels of its training.

        Takes the config's values out of the arguments of `from_pretrained`. Adapters made elsewhere have no config.
        """
        hub, of_base = _hub_arguments(arguments), {"revision": arguments.pop("_base_revision", None), "subfolder": ""}
        if not cached_file(name, "config.json", _raise_exceptions_for_missing_entries=False, **hub):
            return asked, {}
        known = vars(cls.config_class()).keys() | {*LABEL_NAMES, "output_attentions"}
        given = {key: arguments.pop(key) for key in known - {"dtype", "torch_dtype"} if key in arguments}
        saved = trained = cls.config_class.from_pretrained(name, **hub)
        if asked is not None and asked.name_or_path == base != name:  # of an Auto class, from the Hub
            # Not at its `_commit_hash`: before transformers 5.23 that is the adapter's.
            saved = cls.config_class.from_pretrained(base, **hub | of_base)
        known_source = asked is not None and asked.name_or_path in (name, base)
        given = _asked_through_config(asked, saved, known_source, arguments) | given
        return cls.config_class.from_pretrained(name, **hub, **given), trained.labels

    def _new_classifiers(self, trained: dict, arguments: dict) -> tuple[str, ...]:
        """Names of the classifiers whose labels are not the trained ones.

        Raises:
            ValueError: there are some, and the arguments of `from_pretrained` do not ask for new classifiers.
        """
        labels = {task: self.config.labels[task] for task in self.config.classification_tasks}
        tasks = [task for task, own in labels.items() if trained.get(task, own) != own]
        if tasks and not arguments.get("ignore_mismatched_sizes"):
            raise ValueError(
                f"labels of {tasks[0]}: {self.config.labels[tasks[0]]}, but it was trained on {trained[tasks[0]]}; "
                "for a new classifier, pass ignore_mismatched_sizes=True"
            )
        fusion = ["fusion"] if "emotion" in tasks and self.fusion is not None else []
        return (*(f"heads.{task}.classifier" for task in tasks), *fusion)

    def save_pretrained(self, save_directory, is_main_process: bool = True, *args, push_to_hub: bool = False, **kwargs):
        """As in transformers; of a model with adapters, only these, its config, and the code for the Auto classes."""
        if not getattr(self, "_hf_peft_config_loaded", False):
            return super().save_pretrained(save_directory, is_main_process, *args, push_to_hub=push_to_hub, **kwargs)
        if not is_main_process:
            return None
        if push_to_hub:
            self.push_to_hub(kwargs.pop("repo_id", Path(save_directory).name), **kwargs)
        from peft import get_peft_model_state_dict

        Path(save_directory).mkdir(parents=True, exist_ok=True)
        custom_object_save(self, save_directory, config=self.config)
        self.config.architectures = [type(self).__name__]
        self.config.save_pretrained(save_directory)
        (peft_config,) = self.peft_config.values()
        peft_config.save_pretrained(save_directory)
        state = get_peft_model_state_dict(self, kwargs.get("state_dict"))
        state = {f"base_model.model.{name}": value.contiguous() for name, value in state.items()}
        save_file(state, Path(save_directory, "adapter_model.safetensors"), metadata={"format": "pt"})
        return None

    def load_adapter(self, *args, **kwargs):
        """As in transformers, which has not called `refuse_wrong_base` since version 5."""
        before = {*getattr(self, "peft_config", {})}
        info = super().load_adapter(*args, **kwargs)
        for name in {*self.peft_config} - before:
            if "fingerprint" in (getattr(self.peft_config[name], "modules_to_save", None) or ()):
                has_places = hasattr(self, "fingerprint")
                saved = self.fingerprint.modules_to_save[name].values if has_places else torch.empty(0)
                refuse_wrong_base(self, {"fingerprint.modules_to_save": saved})
        return info

    @property
    def longest_input(self) -> int | None:
        """Samples of the longest utterance; None for any length."""
        return self.family.longest_input(self.encoder)

    def get_input_embeddings(self) -> None:
        """None: waveforms are not looked up in a table. PEFT asks."""

    def enable_adapters(self) -> None:
        """Undo `disable_adapters`; transformers itself leaves the heads off, which then answer untrained."""
        super().enable_adapters()
        for module in self.modules():
            if type(module).__name__ == "ModulesToSaveWrapper":
                module.enable_adapters(True)

    def base_fingerprint(self, state: dict | None = None, prefix: str = "") -> Tensor:
        """Eight values of each of the encoder's own tensors, taken from `state` if it has them: (8 x tensors,)."""
        own = [(f"{prefix}encoder.{name}", p) for name, p in self.encoder.named_parameters() if "lora_" not in name]
        tensors = [(state or {}).get(name, parameter).detach().flatten() for name, parameter in own]
        picks = [torch.linspace(0, t.numel() - 1, 8, device=t.device).round().long() for t in tensors]
        return torch.cat([t[i] for t, i in zip(tensors, picks, strict=True)])


def _in_memory(load: Callable, arguments: dict) -> tuple[Any, dict | None]:
    """Call `load`; a model that it would offload comes in memory, for PEFT, with the places of its modules."""
    loaded = load(**arguments)
    model = loaded[0] if isinstance(loaded, tuple) else loaded
    if not any(parameter.is_meta for parameter in model.parameters()):
        return loaded, None
    asked, places = ("device_map", "max_memory", "offload_folder", "offload_buffers"), model.hf_device_map
    if "" in places:  # accelerate writes nothing of a whole model
        places = {name: places[""] for name, _ in model.named_children()}
    return load(**{name: value for name, value in arguments.items() if name not in asked}), places


def _load_whole(load: Callable, own: set[str], arguments: dict, prefixes: dict | None = None) -> Any:
    """Call `load` with these arguments, and take prefixes off the names in the checkpoint.

    Raises:
        ValueError: the checkpoint lacks a tensor of `own` or has it in another shape, or has more layers.
    """
    names = {**(prefixes or {WRAPPERS: ""}), **(arguments.get("key_mapping") or {})}
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # no report on what the checkpoint lacks by design: heads, a decoder
    try:
        model, info = load(
            **arguments | {"output_loading_info": True, "ignore_mismatched_sizes": True, "key_mapping": names}
        )
    finally:
        logging.set_verbosity(verbosity)
    vars(model).pop("_weight_conversions", None)  # transformers 5.0 would turn them round, and save under wrong names
    mismatched = [] if arguments.get("ignore_mismatched_sizes") else info["mismatched_keys"]
    shapes = {key: f"{key} of {tuple(there)} for {tuple(here)}" for key, there, here in mismatched}
    lost = [shapes.get(key, key) for key in sorted(own & {*shapes, *info["missing_keys"]})]
    others = sorted({*info["unexpected_keys"]} - own)
    _refuse_lost(lost, len(own), others)
    if further := [key for key in others if re.sub(r"\blayers\.\d+", "layers.0", key) in own]:
        raise ValueError(f"{len(further)} tensors are of layers that the config does not have ({_listed(further)})")
    return (model, info) if arguments.get("output_loading_info") else model


def _refuse_lost(lost: list[str], total: int, others: list[str]) -> None:
    """Raise ValueError if a checkpoint lacks tensors: they would silently stay random. It holds `others` instead."""
    if lost:
        unused = f"; {len(others)} others in it are not used ({_listed(others)})" if others else ""
        raise ValueError(f"{len(lost)} of {total} tensors are missing or of another shape ({_listed(lost)}){unused}")


def _listed(names: list[str]) -> str:
    return ", ".join(names if len(names) < 6 else [*names[:2], "...", *names[-2:]])


def refuse_wrong_base(model: LoadableModel, state: dict, prefix: str = "", *_) -> None:
    """Raise ValueError, before adapter weights are loaded, if this model is not the base they were trained on.

    The base is that of `state`, if it holds one. Either may have been rounded to a half precision since.
    """
    if not any("modules_to_save" in name or "lora_" in name for name in state):
        return
    names = [name for name in state if name.startswith(f"{prefix}fingerprint.")]
    saved = next((state[name] for name in names if ".original_module." not in name), None)  # PEFT's copies are zeros
    if saved is None:
        return  # adapters made elsewhere
    if not hasattr(model, "fingerprint"):
        raise ValueError(
            "this base has no places for the adapters: build it with the adapter's own config, "
            "SerMtlModel.from_pretrained(base, config=SerMtlConfig.from_pretrained(adapter))"
        )
    own = model.base_fingerprint(state, prefix)
    both = {saved.dtype, own.dtype} == {torch.float16, torch.bfloat16}  # each lacks digits that the other has
    expected, own = saved.to(own.device, own.dtype).float(), own.to(saved.dtype).float()
    if expected.shape != own.shape or not torch.allclose(expected, own, rtol=both * 2**-7, atol=both * 2**-20):
        raise ValueError("the adapter was trained on another base: the encoder's weights differ from the ones it knows")


def _asked_through_config(
    config: PretrainedConfig | None, saved: PretrainedConfig, is_of_saved: bool, arguments: dict
) -> dict:
    """What a caller asks of an Auto class for an adapter: the values in which `config` differs from the saved one.

    If it is neither the adapter's config nor its base's, only the labels count.
    """
    if config is None:
        return {}
    config.check_label_names()
    if implementation := getattr(config, "_attn_implementation_internal", None):
        arguments.setdefault("attn_implementation", implementation)
    flags = {"output_hidden_states", "output_attentions", "return_dict"}
    known = {*flags, *type(config).__annotations__} - {"encoder_config", "labels"}
    compared = known if is_of_saved else ()
    asked = {key: getattr(config, key) for key in compared if getattr(config, key) != getattr(saved, key)}
    labels = {task: names for task, names in config.labels.items() if names != saved.labels.get(task)}
    return asked | ({"labels": labels} if labels else {})


def _hub_arguments(arguments: dict) -> dict:
    names = ("revision", "token", "cache_dir", "force_download", "local_files_only", "subfolder")
    return {name: arguments[name] for name in names if name in arguments}
