"""Two-stage finetuning for speech emotion recognition with adapters.

    corpus = ser_mtl.load_corpus("folder", "my_recordings")
    parts = ser_mtl.split(corpus, fold=1)
    trainer = ser_mtl.SerMtlTrainer(ser_mtl.Stage1(), ser_mtl.SerMtlArguments(output_dir="out"), parts)
    trainer.train()
    trainer.finish()

    recognizer = ser_mtl.load("out")
    recognizer("call.mp3")

Names are imported when they are first used: `import ser_mtl` itself imports no library.
"""

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ser_mtl.corpora.folds import split
    from ser_mtl.corpora.loading import load_corpus
    from ser_mtl.cross.evaluate import evaluate
    from ser_mtl.errors import UserError
    from ser_mtl.inference.recognizer import Recognizer, load
    from ser_mtl.training.arguments import SerMtlArguments
    from ser_mtl.training.stage import Stage1, Stage2
    from ser_mtl.training.trainer import SerMtlTrainer

if "inline" in os.environ.get("MPLBACKEND", "") and "IPython" not in sys.modules:
    del os.environ["MPLBACKEND"]  # of the notebook that started this program: matplotlib refuses it where it is missing

__version__ = "0.2.0"
__all__ = [
    "Recognizer",
    "SerMtlArguments",
    "SerMtlTrainer",
    "Stage1",
    "Stage2",
    "UserError",
    "evaluate",
    "load",
    "load_corpus",
    "split",
]
_MODULES = {
    "Recognizer": "inference.recognizer",
    "SerMtlArguments": "training.arguments",
    "SerMtlTrainer": "training.trainer",
    "Stage1": "training.stage",
    "Stage2": "training.stage",
    "UserError": "errors",
    "evaluate": "cross.evaluate",
    "load": "inference.recognizer",
    "load_corpus": "corpora.loading",
    "split": "corpora.folds",
}


def __getattr__(name: str):
    if name not in _MODULES:
        raise AttributeError(f"module 'ser_mtl' has no attribute {name!r}")
    return getattr(import_module(f"ser_mtl.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
