"""Pretraining that goes on, on the training set of a fold and without its labels: a first step of TAPT and P-TAPT.

python -m ser_mtl.research.pretrain --fold 1 --objective contrastive --output_dir runs/tapt
python -m ser_mtl.research.pretrain --fold 1 --objective units --frames runs/frames --output_dir runs/ptapt
python run_stage1.py --fold 1 --tasks emotion --encoder runs/tapt
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from datasets import Dataset, DatasetDict, Value
from transformers import Wav2Vec2ForPreTraining, set_seed
from transformers.trainer_utils import IntervalStrategy

from recordings_ser_mtl import SAMPLING_RATE
from ser_mtl.cli import command_line
from ser_mtl.corpora.audio import with_samples
from ser_mtl.corpora.batching import Collator
from ser_mtl.corpora.folds import split, split_record, with_content
from ser_mtl.corpora.loading import name_in_results
from ser_mtl.errors import UserError, hub_errors, notice
from ser_mtl.files import write_json, write_text
from ser_mtl.model.fast_attention import choose_attention
from ser_mtl.recipe import Settings, parse_settings, read_corpus, record_of
from ser_mtl.research.heads import CARD
from ser_mtl.research.pretraining import (
    FEWEST_SPANS,
    Contrastive,
    ContrastiveCollator,
    MaskedUnits,
    Pretrainer,
    UnitsCollator,
    frames_of,
)
from ser_mtl.research.units import units_of
from ser_mtl.training.checks import flag
from ser_mtl.training.data import model_inputs, without_text
from ser_mtl.training.heard import check_never_heard
from ser_mtl.training.method import Earlier, with_overrides
from ser_mtl.training.own_encoder import encoder_behind
from ser_mtl.training.outcome import clear_up
from ser_mtl.training.run_folder import check_run_folder
from ser_mtl.training.saving import save_model, saving
from ser_mtl.training.stage import Stage1
from ser_mtl.training.stage1_start import feature_extractor_of, pretrained_encoder_config, stage1_start
from ser_mtl.training.start import XLS_R
