"""Pins that what is cached is what would be computed: damage is found, and so is any other decoder, code or weight."""

from pathlib import Path

import datasets
import pytest
import torch
from datasets import Dataset
from helpers.encoders import all_tasks_config
from helpers.tiny import write_corpus
from transformers import Wav2Vec2FeatureExtractor

from modeling_ser_mtl import SerMtlModel
from ser_mtl.corpora import audio, load_corpus
from ser_mtl.corpora.audio import with_samples
from ser_mtl.model import front_end
from ser_mtl.model.front_end import with_features


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """The folder of the cache, empty."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache/ser_mtl"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Dataset:
    return load_corpus("folder", write_corpus(tmp_path_factory.mktemp("cached") / "corpus"))


def kept(cache: Path, kind: str) -> set[str]:
    return {file.name for file in cache.glob(f"{kind}-*.arrow")}


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


DAMAGES = {
    "cut": cut,
    "one bit": flip,
    "empty": lambda file: file.write_bytes(b""),
    "something else": lambda file: file.write_bytes(b"no arrow" * 1000),
    "no checksum": lambda file: file.with_suffix(".crc32").unlink(),
    "half a checksum": lambda file: file.with_suffix(".crc32").write_text("12"),
    "gone": Path.unlink,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_computed_again(cache, corpus, damage):
    expected = with_samples(corpus).to_list()
    (file,) = cache.glob("decoded-*.arrow")
    damage(file)
    assert with_samples(corpus).to_list() == expected
    assert file.with_suffix(".crc32").is_file()


def test_a_whole_file_is_opened(cache, corpus, monkeypatch):
    expected = with_samples(corpus).to_list()
    monkeypatch.setattr(audio, "decode", lambda file: pytest.fail(f"{file} was decoded again"))
    assert with_samples(corpus).to_list() == expected


def test_other_versions_of_the_decoders_decode_again(cache, corpus, monkeypatch):
    with_samples(corpus)
    before = kept(cache, "decoded")
    monkeypatch.setattr(audio, "DECODERS", ("1.2.3", *audio.DECODERS[1:]))
    with_samples(corpus)
    assert len(kept(cache, "decoded") - before) == 1


def features(corpus: Dataset, model: SerMtlModel, normalise: bool = True) -> list:
    extractor = Wav2Vec2FeatureExtractor(do_normalize=normalise, return_attention_mask=True)
    return with_features(with_samples(corpus), model, extractor, torch.device("cpu")).to_list()


def test_features_are_kept_by_weights_code_and_libraries(cache, corpus, monkeypatch):
    torch.manual_seed(0)
    model = SerMtlModel(all_tasks_config())
    expected = features(corpus, model)
    (file,) = cache.glob("features-*.arrow")
    model.config.encoder_config.hidden_dropout = 0.3
    assert features(corpus, model) == expected and len(kept(cache, "features")) == 1
    flip(file)
    assert features(corpus, model) == expected
    features(corpus, model, normalise=False)
    assert len(kept(cache, "features")) == 2
    monkeypatch.setattr(front_end, "version", lambda package: "1.2.3")
    features(corpus, model)
    assert len(kept(cache, "features")) == 3
    monkeypatch.setattr(front_end, "source_digest", lambda *modules: "changed")
    features(corpus, model)
    assert len(kept(cache, "features")) == 4
    with torch.no_grad():
        model.front_end_parameters()[0][0] += 0.1
    assert features(corpus, model) != expected and len(kept(cache, "features")) == 5
