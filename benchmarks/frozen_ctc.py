"""Speech recognition before fine-tuning: a CTC head alone, trained on the frozen encoder.

python benchmarks/frozen_ctc.py --data_dir my_recordings --encoder facebook/wav2vec2-xls-r-300m --fold 1
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jiwer
import numpy as np
import torch
from datasets import Dataset
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from modeling_ser_mtl import SerMtlConfig, SerMtlModel, ctc_loss
from recordings_ser_mtl import waveforms
from ser_mtl.cli import command_line
from ser_mtl.corpora.audio import with_samples
from ser_mtl.corpora.batching import LengthGroupedSampler
from ser_mtl.corpora.folder import read_folder
from ser_mtl.corpora.folds import split
from ser_mtl.corpora.targets import character_tokenizer, with_targets
from ser_mtl.corpora.utterances import normalise_text
from ser_mtl.training.stage1_start import feature_extractor_of, pretrained_encoder_config

BATCH_SIZE = 16


@torch.inference_mode()
def encode(corpus: Dataset, encoder: str) -> list[torch.Tensor]:
    """The frozen encoder's output for each utterance: (frames, d) each."""
    config = SerMtlConfig(encoder_config=pretrained_encoder_config(encoder))
    model = SerMtlModel.from_pretrained(encoder, config=config).eval()
    extractor = feature_extractor_of(encoder)
    samples = tqdm(corpus.with_format("numpy")["samples"], desc="encoding")
    return [model.encode(*model.extract_features(**waveforms([s], extractor)))[0][0] for s in samples]


def train_head(frames: list[torch.Tensor], targets: list[list[int]], vocabulary: int, epochs: int) -> nn.Linear:
    """Train a linear CTC head; learning rate 1e-3 with linear decay.

    Args:
        frames: (frames, d) of each utterance.
        targets: character ids of each utterance.
        vocabulary: number of characters, the blank included.
        epochs: of the training.
    """
    head = nn.Linear(frames[0].shape[1], vocabulary)
    sampler = LengthGroupedSampler(np.array([len(f) for f in frames]), BATCH_SIZE, seed=0)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, epochs * -(-len(frames) // BATCH_SIZE))
    for epoch in tqdm(range(epochs), desc="training the head"):
        sampler.set_epoch(epoch)
        order = list(sampler)
        for rows in (order[i : i + BATCH_SIZE] for i in range(0, len(order), BATCH_SIZE)):
            labels = pad_sequence([torch.tensor(targets[i]) for i in rows], batch_first=True, padding_value=-100)
            lengths = torch.tensor([len(frames[i]) for i in rows])
            logits = head(pad_sequence([frames[i].clone() for i in rows], batch_first=True))
            optimizer.zero_grad()
            ctc_loss(logits, lengths, labels, blank=0).mean().backward()
            optimizer.step()
            schedule.step()
    return head


def main() -> None:
    """Print WER and CER of the test fold for each corpus."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", nargs="+", required=True, help="folders with a metadata.csv")
    parser.add_argument("--encoder", required=True, help="Hub id or folder of the pretrained encoder")
    parser.add_argument("--fold", type=int, required=True, help="1..5, held out for the test")
    parser.add_argument("--epochs", type=int, default=60, help="epochs of the head's training")
    args = parser.parse_args()
    torch.manual_seed(0)
    corpus = with_samples(read_folder(args.data_dir).filter(lambda row: normalise_text(row["text"] or "") != ""))
    splits = split(corpus, args.fold, "none")
    tokenizer = character_tokenizer(splits["train"]["text"])
    train = with_targets(splits["train"], {}, tokenizer)
    head = train_head(encode(train, args.encoder), train["asr_labels"][:], len(tokenizer), args.epochs)
    test = splits["test"]
    with torch.inference_mode():
        hypotheses = [tokenizer.decode(head(f).argmax(dim=-1)) for f in encode(test, args.encoder)]
    references = [normalise_text(text) for text in test["text"]]
    for name in sorted(set(test["corpus"])):
        pairs = [(r, h) for r, h, c in zip(references, hypotheses, test["corpus"], strict=True) if c == name]
        wer, cer = (f(*map(list, zip(*pairs, strict=True))) for f in (jiwer.wer, jiwer.cer))
        print(f"{name}: {len(pairs)} utterances, WER {100 * wer:.1f}, CER {100 * cer:.1f}")


if __name__ == "__main__":
    command_line(main)
