"""The processor of a saved model, with checks: transformers reads its files unchecked, and says little of damage."""

from transformers import Wav2Vec2Processor

from ser_mtl.corpora.audio import SAMPLING_RATE
from ser_mtl.errors import UserError
from ser_mtl.files import read_json
from ser_mtl.model.saved import SCHEMAS, file_of

_TOKENIZER = "Wav2Vec2CTCTokenizer"


def load_processor(model: str, what: str) -> Wav2Vec2Processor:
    """The processor of a model of this project, whose files `ser_mtl.model.saved.check_saved` has checked.

    Args:
        model: folder or Hub id.
        what: the flag and model that messages begin with.

    Raises:
        UserError: a file is missing or damaged, or of another sampling rate.
        OSError, ValueError: it cannot be loaded for another reason.
    """
    check_preprocessor(model, what)
    if file_of(model, "vocab.json") is None:
        raise UserError(f"{what}: its vocab.json is missing; copy or publish the whole model")
    settings = file_of(model, "tokenizer_config.json")
    if settings and (kind := read_json(settings).get("tokenizer_class", _TOKENIZER)) != _TOKENIZER:
        raise UserError(f"{what}: needs code of its own (auto_map) for its tokenizer {kind!r}, which is not run")
    return Wav2Vec2Processor.from_pretrained(model, trust_remote_code=False)


def check_preprocessor(model: str, what: str) -> bool:
    """Check the settings of a model's feature extractor.

    Args:
        model: folder or Hub id.
        what: the flag and model that messages begin with.

    Returns:
        Whether there are any.

    Raises:
        UserError: a damaged file, or another sampling rate than 16 kHz.
    """
    names = ("preprocessor_config.json", "processor_config.json")
    files = {name: file for name in names if (file := file_of(model, name))}
    for name, file in files.items():
        content = read_json(file, SCHEMAS[name])
        settings = content.get("feature_extractor", content)
        if (rate := settings.get("sampling_rate", SAMPLING_RATE)) != SAMPLING_RATE:
            raise UserError(
                f"{what}: its {name} says a sampling rate of {rate!r}; only {SAMPLING_RATE} hertz is supported"
            )
    return bool(files)
