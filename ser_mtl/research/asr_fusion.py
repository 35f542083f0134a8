"""Hidden states and decoded characters of the recogniser, fused by cross-attention, after Li, Bell and Lai 2022.

Their papers give no sizes, so all of them are ours.
"""

import torch
from torch import Tensor, nn

from answers_ser_mtl import greedy_ctc
from modeling_ser_mtl import SerMtlModel, masked_mean
from ser_mtl.errors import UserError
from ser_mtl.research.heads import EmotionHead

TEXT_DIM, ATTENTION_HEADS = 128, 4


class CrossAttention(nn.Module):
    """Attention of one sequence to another; residual and layer norm."""

    def __init__(self, dim: int):
        super().__init__()
        heads = next(n for n in range(ATTENTION_HEADS, 0, -1) if dim % n == 0)
        self.attention = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.norm = nn.LayerNorm(dim)

    def forward(self, queries: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        """(batch, m, d), (batch, n, d) and its real positions (batch, n) bool -> (batch, m, d)."""
        attended, _ = self.attention(queries, keys, keys, key_padding_mask=~mask, need_weights=False)
        return self.norm(queries + attended)


class Transcript(nn.Module):
    """Characters of greedy CTC as vectors: an embedding and one BiLSTM. An empty transcript has its own embedding."""

    def __init__(self, vocab_size: int, dim: int):
        super().__init__()
        self.nothing = vocab_size
        self.embedding = nn.Embedding(vocab_size + 1, TEXT_DIM)
        self.lstm = nn.LSTM(TEXT_DIM, TEXT_DIM // 2, batch_first=True, bidirectional=True)
        self.projection = nn.Linear(TEXT_DIM, dim)

    def forward(self, characters: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, n) padded with -100 -> (batch, n, d), and its real positions, (batch, n) bool."""
        characters = characters.long()
        mask = characters >= 0
        empty = ~mask.any(dim=1)
        mask[:, 0] |= empty
        characters[:, 0] = characters[:, 0].masked_fill(empty, self.nothing)
        embedded = self.embedding(characters.clamp(min=0))
        packed = nn.utils.rnn.pack_padded_sequence(embedded, mask.sum(dim=1).cpu(), True, enforce_sorted=False)
        states, _ = nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0], True, total_length=mask.shape[1])
        return self.projection(states), mask


class AsrFusion(EmotionHead):
    """Level 1: the last layer's frames and the characters attend to each other. Level 2: both and a middle layer.

    Then the mean of each over real positions, FC layer (x), classifier. Characters pass no gradient to the CTC head.

    Raises:
        UserError: the model does not transcribe.
    """

    def __init__(self, model: SerMtlModel, classes: int, normalise: bool = False):
        super().__init__(model, classes, normalise)
        if model.ctc_head is None:
            raise UserError("--emotion_head asr_fusion: needs asr among --tasks, which no utterance is annotated for")
        config, dim = model.config, model.config.encoder_config.hidden_size
        self._ctc, self._blank = [model.ctc_head], config.pad_token_id  # a list, so that it is no submodule
        layers = model.transformer_layers()
        layers[max(0, len(layers) // 2 - 1)].register_forward_hook(self._keep)
        self._middle: Tensor | None = None
        self.transcript = Transcript(config.vocab_size, dim)
        self.words_to_speech, self.speech_to_words = CrossAttention(dim), CrossAttention(dim)
        self.fused_to_acoustic, self.acoustic_to_fused = CrossAttention(dim), CrossAttention(dim)
        self.projection = nn.Linear(2 * dim, config.embedding_dim)
        self.dropout = nn.Dropout(config.head_dropout)
        self.classifier = nn.Linear(config.embedding_dim, classes)

    def _keep(self, layer: nn.Module, args: tuple, output: Tensor | tuple) -> None:
        self._middle = output[0] if isinstance(output, tuple) else output

    def forward(self, frames: Tensor, frame_mask: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, frames, d), (batch, frames) bool -> embedding (batch, n), logits (batch, classes)."""
        acoustic, self._middle = self._middle, None
        with torch.no_grad():
            characters = greedy_ctc(self._ctc[0](frames), frame_mask.sum(dim=1), self._blank)
        words, words_mask = self.transcript(characters)
        speech = self.words_to_speech(frames, words, words_mask)
        words = self.speech_to_words(words, frames, frame_mask)
        fused, mask = torch.cat([speech, words], dim=1), torch.cat([frame_mask, words_mask], dim=1)
        acoustic, fused = (
            self.fused_to_acoustic(acoustic, fused, mask),
            self.acoustic_to_fused(fused, acoustic, frame_mask),
        )
        pooled = torch.cat([masked_mean(fused, mask), masked_mean(acoustic, frame_mask)], dim=1)
        embedding = self.projection(pooled)
        return embedding, self.classifier(self.dropout(embedding))
