"""A small model, untrained, with labels that would do harm where they were not text."""

from pathlib import Path

import pytest

HARMFUL = ["<script>window.harm=1</script>", "<img src=x onerror=window.harm=2>", "${window.harm=3}", "{{value}}"]


@pytest.fixture(scope="session")
def small_model(tmp_path_factory) -> Path:
    """Its folder. Not to be changed."""
    import torch
    from helpers.encoders import LABELS, all_tasks_config
    from transformers import Wav2Vec2FeatureExtractor, Wav2Vec2Processor

    from modeling_ser_mtl import SerMtlModel
    from ser_mtl.corpora.targets import character_tokenizer

    tokenizer = character_tokenizer(["the quick brown fox"])
    torch.manual_seed(0)
    model = SerMtlModel(all_tasks_config(vocab_size=len(tokenizer), labels=LABELS | {"emotion": HARMFUL}))
    torch.nn.init.normal_(model.ctc_head.weight)
    folder = tmp_path_factory.mktemp("models") / "small"
    model.save_pretrained(folder)
    Wav2Vec2Processor(Wav2Vec2FeatureExtractor(return_attention_mask=True), tokenizer).save_pretrained(folder)
    return folder
