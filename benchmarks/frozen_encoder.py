"""The line a finetuned model has to beat: logistic regression on a frozen encoder's mean-pooled features, same folds.

python benchmarks/frozen_encoder.py --data_dir my_recordings --encoder facebook/wav2vec2-xls-r-300m
"""

import argparse
import sys
from pathlib import Path
from typing import get_args

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from datasets import Dataset
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from modeling_ser_mtl import SerMtlConfig, SerMtlModel
from recordings_ser_mtl import waveforms
from ser_mtl.cli import command_line
from ser_mtl.corpora.audio import with_samples
from ser_mtl.corpora.folder import read_folder
from ser_mtl.corpora.folds import FOLDS, DevChoice, split
from ser_mtl.training.stage1_start import feature_extractor_of, pretrained_encoder_config


@torch.inference_mode()
def mean_pooled_layers(corpus: Dataset, encoder: str) -> np.ndarray:
    """The mean over time of every layer's output, the last one's after the final norm: (utterances, layers, d)."""
    config = SerMtlConfig(encoder_config=pretrained_encoder_config(encoder))
    model = SerMtlModel.from_pretrained(encoder, config=config).eval()
    extractor = feature_extractor_of(encoder)
    outputs: list[torch.Tensor] = []
    for layer in model.transformer_layers():
        layer.register_forward_hook(lambda _, __, out: outputs.append(out[0] if isinstance(out, tuple) else out))
    pooled = []
    for samples in tqdm(corpus.with_format("numpy")["samples"], desc="encoding"):
        outputs.clear()
        batch = waveforms([samples], extractor)
        last, *_ = model.encode(*model.extract_features(**batch))
        pooled.append(torch.stack([out.mean(dim=1)[0] for out in (*outputs[:-1], last)]).numpy())
    return np.stack(pooled)


def main() -> None:
    """Print UA and WA of each layer, for every fold and in the mean."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", nargs="+", required=True, help="folders with a metadata.csv")
    parser.add_argument("--encoder", required=True, help="Hub id or folder of the pretrained encoder")
    parser.add_argument(
        "--dev", choices=get_args(DevChoice), default="none", help="set aside as by run_stage1.py, and unused"
    )
    args = parser.parse_args()
    corpus = read_folder(args.data_dir)
    labelled = corpus.filter(lambda row: row["emotion"] is not None)
    features = mean_pooled_layers(with_samples(labelled), args.encoder)
    ids, emotions = np.array(labelled["id"]), np.array(labelled["emotion"])
    splits = [split(corpus, fold, args.dev) for fold in FOLDS]  # as a run's: of all utterances
    rows = [[np.isin(ids, parts[name]["id"]) for name in ("train", "test")] for parts in splits]
    print("layer  " + "  ".join(f"fold {fold} UA" for fold in FOLDS) + "  mean UA  mean WA")
    for layer in range(features.shape[1]):
        scores = []
        for train, test in rows:
            classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
            classifier.fit(features[train, layer], emotions[train])
            predicted, truth = classifier.predict(features[test, layer]), emotions[test]
            scores.append((balanced_accuracy_score(truth, predicted), accuracy_score(truth, predicted)))
        ua, wa = 100 * np.mean(scores, axis=0)
        print(f"{layer + 1:5}  " + "  ".join(f"{100 * s:9.1f}" for s, _ in scores) + f"  {ua:7.1f}  {wa:7.1f}")


if __name__ == "__main__":
    command_line(main)
