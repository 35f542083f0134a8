"""The Trainer: exact weighted losses for any batch, each task's loss logged, predictions as rows."""

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast_object_list
from datasets import Dataset, DatasetDict, concatenate_datasets
from torch import Tensor
from torch.utils.data import Sampler
from transformers import EvalPrediction, ProgressCallback, set_seed
from transformers.trainer_callback import PrinterCallback

from answers_ser_mtl import greedy_ctc, transcripts_of
from ser_mtl.corpora.batching import Collator, LengthGroupedSampler
from ser_mtl.corpora.leaks import audio_digests, check_no_shared_audio
from ser_mtl.corpora.split_record import split_record, with_content
from ser_mtl.corpora.utterances import check_utterances, joined
from ser_mtl.errors import UserError
from ser_mtl.evaluation.calibration import emotion_probabilities, fit_temperature
from ser_mtl.evaluation.predictions import prediction_rows, references_and_predictions
from ser_mtl.evaluation.scores import SerMtlMetric
from ser_mtl.files import write_json
from ser_mtl.lock import me, release
from ser_mtl.metrics import MEAN_CCC, METRICS
from ser_mtl.model.spec_augment import SpecAugment
from ser_mtl.training.adapters import unwrap
from ser_mtl.training.arguments import SerMtlArguments
from ser_mtl.training.beginning import Beginning, blaming_flags, no_empty_folder
from ser_mtl.training.callbacks import (
    EarlyStopping,
    EpochProgress,
    MeasureTestFold,
    SamplerEpoch,
    SparingCheckpoints,
    StopOnSignal,
    Stopwatch,
)
from ser_mtl.training.data import batch_rows, model_inputs, seed_of_order, training_rows, without_text
from ser_mtl.training.divergence import Divergence, check_finite, check_finite_rows
from ser_mtl.training.exact_loss import ExactLossTrainer
from ser_mtl.training.heard import check_never_heard
from ser_mtl.training.line import FILE_OF_LINE, line_of
from ser_mtl.training.method import Start
from ser_mtl.training.outcome import finish_run
from ser_mtl.training.probe import start_from_probe
from ser_mtl.training.publication import publish
from ser_mtl.training.run_folder import check_same_corpus, check_shared, corpus_record, run_record, take_run_folder
from ser_mtl.training.saving import save_model
from ser_mtl.training.stage import Stage
from ser_mtl.training.start import check_given, start_of


class SerMtlTrainer(ExactLossTrainer):
    """Train one stage on a split corpus.

    - The loss of an update is, for each task, the sum over its annotated utterances divided by their number in the
      whole update: over accumulation steps and processes. Batch 8 equals 2 x 4, and two processes equal one.
    - `log` adds `loss_<task>`, the same mean over the updates since the last log, unweighted.
    - Training batches are groups of similar length (`LengthGroupedSampler`).
    - Predictions are reduced on the device: probabilities of each task, and the characters that CTC finds.

    `train` resumes an interrupted run in the same `output_dir`. Afterwards the folder holds a model that
    `ser_mtl.load` and `from_pretrained` read; emotion's temperature is fitted on the development set. `finish` adds the
    results on the test fold.

    Args:
        stage: `Stage1` or `Stage2`: the method.
        args: of training.
        parts: the split corpus: "train" and, if there are any, "dev" and "test" (`ser_mtl.split`).
        record: the content of `args.json`; by default made from the arguments.
        start: the model to train; by default the one that the stage starts from.
        **kwargs: as for `Trainer`, such as `callbacks`.

    Raises:
        UserError: arguments that contradict each other, a model that cannot be loaded, or a corpus that lacks what a
            task needs.
    """

    history: list[dict] | None = None
    line: dict | None = None
    dev_predictions: list[dict] | None = None
    shows_line = True  # False for the first training of --refit, whose results nobody reads
    seconds_before = 0.0  # seconds of that first training
    research: str | None = None  # set by a subclass whose model `ser_mtl.load` cannot load: what is special about it

    def __init__(
        self,
        stage: Stage,
        args: SerMtlArguments,
        parts: DatasetDict,
        *,
        record: dict | None = None,
        start: Start | None = None,
        **kwargs,
    ):
        check_given(stage, args, parts)
        set_seed(args.seed)  # before the model is built
        self.stage, self.parts = stage, parts
        self.start = start or start_of(stage, parts)
        model = unwrap(self.start.model)
        model.spec_augment = SpecAugment(model.encoder)
        self.record = record or run_record(stage, args, corpus_record(parts))
        self.corpus = model_inputs(joined(parts), self.start, stage, args)
        self._check_audio(known=start is not None)
        self.rows_of_parts = batch_rows(self.corpus, parts)
        training_set = training_rows(self.rows_of_parts["train"], model, args)
        self.beginning = Beginning(self._write_record, args)
        with no_empty_folder(Path(args.output_dir)), blaming_flags(self.beginning):
            super().__init__(
                model=self.start.model,
                args=args,
                train_dataset=training_set,
                eval_dataset=self.rows_of_parts.get("test" if args.selection == "oracle" else "dev"),
                data_collator=Collator(self.start.processor.feature_extractor),
                processing_class=self.start.processor,
                compute_metrics=self._scores,
                **kwargs,
            )
        self.labels, self.tokenizer = self.start.labels, self.start.processor.tokenizer
        self.values = model.config.value_tasks
        self.metric = SerMtlMetric(self.labels)
        self.prepare_loss()
        self._add_callbacks()
        self.before_dev = set(parts["train"]["speaker"][:])  # training speakers of the model that predicts dev

    def _check_audio(self, known: bool) -> None:
        """Check that parts share no recording and, unless `known`, that the earlier model was not trained on any."""
        check_no_shared_audio(self.parts, self.corpus)
        if self.start.earlier is not None and not known:
            check_never_heard(self.start.earlier, self.parts, audio_digests(self.corpus))

    def create_accelerator_and_postprocess(self) -> None:
        """As in transformers, whatever the precision of an earlier Trainer in this process."""
        AcceleratorState._reset_state()
        super().create_accelerator_and_postprocess()

    def _add_callbacks(self) -> None:
        self.stopwatch, self.divergence, self.progress = Stopwatch(), Divergence(self), EpochProgress()
        lengths = np.asarray(self.rows_of_parts["train"]["length"][:])
        self._sampler = LengthGroupedSampler(lengths, self.args.utterances_per_update, seed_of_order(self.args))
        self.add_callback(SamplerEpoch(self._sampler, self.train_dataset))
        self.add_callback(self.stopwatch)
        self.add_callback(SparingCheckpoints(self.args.save_minutes))
        if self.args.early_stopping_patience is not None:
            self.add_callback(EarlyStopping(self.args.early_stopping_patience))
        self.stop_on_signal = StopOnSignal()
        self.add_callback(self.stop_on_signal)
        if self.args.measure_oracle:
            self.add_callback(MeasureTestFold(self, self.rows_of_parts["test"]))
        self.pop_callback(PrinterCallback)
        self.add_callback(self.divergence)  # after all callbacks that decide what is saved
        self.add_callback(self.beginning)
        if self.pop_callback(ProgressCallback):
            self.add_callback(self.progress)

    # ------------------------------------------------------------------------------------------ train, evaluate

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs):
        """Train, resuming from the last checkpoint in the output folder if there is one, and save the model.

        On SIGTERM or SIGUSR1 it writes a checkpoint and ends the program with exit code 143.

        Returns:
            As `Trainer.train`.

        Raises:
            UserError: the output folder holds another run, one is at work there, the corpus has changed since this run
                began, training cannot start with a flag, or it diverges.
        """
        folder = Path(self.args.output_dir)
        with no_empty_folder(folder):
            begin = self._take(folder, resume_from_checkpoint)
            try:
                self.line = line_of(self) if self.shows_line else None
                if begin is None and getattr(self.stage, "probe_start", False):
                    start_from_probe(self)
                with blaming_flags(self.beginning), closing(self.progress), self.stop_on_signal:
                    output = self.train_from(begin, **kwargs)
                self.history = list(self.state.log_history)  # `evaluate` adds to it, whatever it evaluates
                self._calibrate()
                if self.is_world_process_zero():
                    save_model(self.accelerator.unwrap_model(self.model), self.start.processor, folder)
            except BaseException:
                release(folder)
                raise
        if self.record.get("script") is None:  # a script writes its results first
            release(folder)
        return output

    def finish(self, leaks: dict | None = None) -> dict:
        """Evaluate the trained model on the test fold and complete the run's folder, as the scripts do.

        The folder then has `results.json`, the predictions, the history, the figures and the model card, and no
        checkpoints. Without a test fold, as of `split(corpus, fold="all")`, there are no predictions and no figures of
        emotion. With `push_to_hub` the run is published.

        Args:
            leaks: the result of `ser_mtl.corpora.leaks.find_leaks`, if it is known already.

        Returns:
            The content of `results.json`.

        Raises:
            UserError: `train` has not been called, or the Hub refuses.
        """
        results = finish_run(self, leaks)
        if self.record.get("script") is None:  # a script prints the results first
            publish(self.args)
        return results

    def _take(self, folder: Path, checkpoint: str | bool | None) -> str | None:
        """Lock the output folder for this run, and return the checkpoint to resume from, if any."""
        begin = refusal = None
        if self.is_world_process_zero():
            try:
                take_run_folder(folder, self.record)
                begin = self.where_to_resume(checkpoint)
                if begin is not None:
                    check_same_corpus(Path(begin).parent, self.data_record())
            except UserError as error:
                release(folder)
                refusal = str(error)
        begin, refusal, owner = broadcast_object_list([begin, refusal, me()])
        if refusal:
            raise UserError(refusal)
        try:
            check_shared(folder, owner)
        except UserError:
            release(folder)
            raise
        return begin

    def _write_record(self) -> None:
        folder = Path(self.args.output_dir)
        write_json(folder / "args.json", self.record)
        write_json(folder / "split.json", self.data_record())
        if self.line is not None:
            write_json(folder / FILE_OF_LINE, self.line)

    def data_record(self) -> dict:
        """The content of `split.json`."""
        corpus = self.record["corpus"]
        return with_content(
            split_record(self.parts, corpus["fold"], corpus["dev"]), self.corpus, self.labels, self.values
        )

    def _calibrate(self) -> None:
        """Fit the temperature of emotion on the development set, if there is one."""
        if "dev" in self.parts:
            self.dev_predictions = self.predicted_rows("dev")
        if self.dev_predictions and "emotion" in self.stage.tasks:
            temperature = fit_temperature(*emotion_probabilities(self.dev_predictions))
            unwrap(self.accelerator.unwrap_model(self.model)).config.temperature = temperature

    def evaluate(self, eval_dataset: Dataset | None = None, *args, **kwargs) -> dict[str, float]:
        """Metrics of utterances, "eval_emotion_ua" and so on, fractions.

        Args:
            eval_dataset: utterances, such as `parts["test"]`; the development set if missing.
            *args: as for `Trainer.evaluate`.
            **kwargs: likewise.
        """
        return super().evaluate(self._as_rows(eval_dataset), *args, **kwargs)

    def predict(self, test_dataset: Dataset, *args, **kwargs):
        """Predictions of utterances, such as `parts["test"]`; `rows` turns them into lines of `predictions.jsonl`."""
        output = super().predict(self._as_rows(test_dataset), *args, **kwargs)
        check_finite(output.metrics, self.state.global_step)
        return output

    def _as_rows(self, utterances: Dataset | None) -> Dataset | None:
        """Utterances as rows for batches. Those of another corpus are prepared first, and appended to `self.corpus`."""
        if utterances is None:
            if self.eval_dataset is None:
                raise UserError("evaluate: there is no development set; name the utterances, such as parts['test']")
            return None
        if isinstance(utterances, Dataset) and "row" in utterances.column_names:
            return utterances
        check_utterances("evaluate, predict", utterances)
        if not set(utterances["id"][:]) <= set(self.corpus["id"][:]):
            other = model_inputs(utterances, self.start, self.stage, self.args)
            rows = [row + len(self.corpus) for row in other["row"]]
            other = other.remove_columns("row").add_column("row", rows)
            self.corpus = concatenate_datasets([self.corpus, other])
            return without_text(other)
        return batch_rows(self.corpus, DatasetDict({"test": utterances}))["test"]

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler:
        return self._sampler

    # ------------------------------------------------------------------------------------- predictions

    def prediction_step(
        self, model: torch.nn.Module, inputs: dict[str, Tensor], prediction_loss_only: bool, ignore_keys=None
    ) -> tuple[Tensor | None, dict[str, Tensor], Tensor]:
        """Predict a batch: (loss, {task: probabilities, values or characters padded with -100}, rows of the corpus).

        The embeddings are among the predictions, as `<task>_embedding`.
        """
        inputs = self._prepare_inputs(inputs)
        with torch.inference_mode(), self.compute_loss_context_manager():
            outputs = self._forward(model, inputs)
        predictions = {task: logits.float().softmax(dim=-1) for task, logits in (outputs.task_logits or {}).items()}
        predictions |= outputs.task_values or {}
        if outputs.asr_logits is not None:
            predictions["asr"] = greedy_ctc(outputs.asr_logits, outputs.frame_lengths, self.tokenizer.pad_token_id)
        predictions |= {f"{task}_embedding": x.float() for task, x in (outputs.embeddings or {}).items()}
        return outputs.loss, predictions, inputs["row"]

    def rows(self, predictions: dict[str, np.ndarray], rows: np.ndarray, **more: Any) -> list[dict]:
        """Predictions and their rows in the corpus -> rows as `prediction_rows` makes them of `more`.

        Probabilities are the model's own, without the temperature.
        """
        utterances = self.corpus.select(rows)
        probabilities = {task: predictions[task] for task in self.labels if task in predictions}
        more["values"] = {task: predictions[task] for task in self.values if task in predictions}
        check_finite_rows(utterances["id"], probabilities | more["values"], self.state.global_step)
        if "asr" in self.stage.tasks:  # else training has changed the layers under the CTC head
            more["hypotheses"] = self.transcripts(predictions["asr"])
        return prediction_rows(utterances, self.labels, probabilities, **more)

    def predicted_rows(self, part: str) -> list[dict]:
        """The rows of `predictions.jsonl` of "dev" or "test"."""
        predicted = self.predict(self.parts[part])
        return self.rows(predicted.predictions, predicted.label_ids)

    def transcripts(self, characters: np.ndarray) -> list[str]:
        """Characters, (utterances, characters) padded with -100 -> transcripts."""
        return transcripts_of(characters.tolist(), self.tokenizer)

    def _scores(self, evaluated: EvalPrediction) -> dict[str, float]:
        rows = self.rows(evaluated.predictions, evaluated.label_ids)
        references, predictions = references_and_predictions(rows)
        scores = self.metric.compute(predictions=predictions, references=references)
        own = {metric.name: scores[metric.group][metric.key] for metric in METRICS if metric.group in scores}
        ccc = [scores[task]["ccc"] for task in self.values if task in scores]
        return own | ({MEAN_CCC: float(np.mean(ccc))} if ccc else {})
