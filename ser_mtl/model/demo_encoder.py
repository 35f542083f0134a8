"""The demo's encoder: XLS-R's architecture, small and untrained."""

from pathlib import Path

from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model, set_seed

from ser_mtl.files import replacing

DEMO_ENCODER = Path("runs/demo/encoder")


def demo_encoder(folder: Path = DEMO_ENCODER) -> str:
    """Write the demo's encoder to `folder`, unless it exists. Returns the folder's name."""
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
            hidden_dropout=0.0,  # this small and briefly trained, it gains nothing from regularisation
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
