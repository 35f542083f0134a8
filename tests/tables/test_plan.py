"""The rows and the plan: the paper's numbers, shared trainings, refused flags, and the expected hours."""

import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest
from helpers.tiny import ROOT

from ser_mtl.errors import UserError
from ser_mtl.files import read_json, write_json
from ser_mtl.recipe import StageParser
from ser_mtl.research.pretraining import Pretraining
from ser_mtl.tables.arguments import keep_settings, parse_arguments
from ser_mtl.tables.finished import finished_rows
from ser_mtl.tables.plan import choose_rows, minutes_of, plan, plan_table, runs_of
from ser_mtl.tables.rows import CLAIMS, ROWS
from ser_mtl.tables.sections import quoted_table
from ser_mtl.training.stage import Stage1, Stage2

ALL = choose_rows([1, 2, 3], [], [])


def documented_rows() -> dict[str, tuple[str, list[float]]]:
    """The last command and the paper's numbers of each row in the three pages with tables of rows."""
    text = "".join((ROOT / "docs" / name).read_text() for name in ("tables.md", "earlier_systems.md", "rivals.md"))
    lines = re.findall(r"^\| (t\d-\S+) \| .*?`([^`]+?)` \|(.*)\|$", text, re.MULTILINE)
    return {
        name: (command, [float(cell) for cell in cells.split("|") if cell.strip(" -")])
        for name, command, cells in lines
    }


def test_the_rows_are_those_of_the_documentation():
    documented = documented_rows()
    assert set(documented) == {row.id for row in ROWS}
    for row in ROWS:
        paper = row.paper
        ours = [x for x in (paper.ua, paper.wa, paper.wer, paper.gender_ua, paper.style_ua) if x is not None]
        assert ours == documented[row.id][1], row.id


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_the_flags_of_a_row_mean_what_its_documented_command_means(row):
    command = documented_rows()[row.id][0].replace("<run>", "somewhere")
    stage = Stage1 if "run_stage1" in command else Stage2
    parser = StageParser(stage)
    given, documented = (
        parser.parse_args(["--fold", "1", *words]) for words in (row.last.flags(), shlex.split(command)[1:])
    )
    # `Stage` turns fusion off if there is nothing to fuse.
    method = {field.name for field in fields(stage)} - {"stage1", "encoder"}
    assert stage(**{name: getattr(given, name) for name in method}) == stage(
        **{name: getattr(documented, name) for name in method}
    )
    for name in ("num_train_epochs", "per_device_train_batch_size", "learning_rate", "emotion_head"):
        assert getattr(given, name) == getattr(documented, name)


def test_the_earlier_system_has_its_own_first_stage():
    first, second = plan(choose_rows([], ["t4-gao-2023"], []), [1], [0], Path("x"))
    assert (first.name, first.settings.tasks) == ("t4-gao-2023-stage1", "asr gender")
    assert second.starts == (("--stage1", first),)


def test_a_row_has_the_runs_that_it_starts_from_first():
    runs = plan(choose_rows([], ["t4-chen-ptapt"], []), [1], [0], Path("x"))
    frames, units, last = runs
    assert [run.name for run in runs] == ["t4-chen-ptapt-frames", "t4-chen-ptapt-units", "t4-chen-ptapt"]
    assert (last.starts, units.starts) == ((("--encoder", units),), (("--frames", frames),))
    args = parse_arguments(["--tables", "4", "--measure_oracle", "--encoder", "e"])
    words = {run.name: args.flags_of(run) for run in runs}
    assert (
        "--measure_oracle" in words[frames.name] and "--measure_oracle" not in words[units.name]
    )  # nothing to measure
    assert words[last.name][words[last.name].index(str(units.folder)) - 1] == "--encoder"
    assert StageParser(Stage1).parse_args(words[last.name]).encoder == str(units.folder)
    parsed = StageParser(Pretraining).parse_args(words[units.name])
    assert (parsed.encoder, parsed.frames, parsed.objective) == ("e", str(frames.folder), "units")


def test_table_4_has_all_systems_but_one_and_says_how_their_figures_came_about():
    rows = choose_rows([4], [], [])
    assert len(plan(rows, [1], [0], Path("x"))) == 13
    assert all(row.quoted for row in rows)
    text = " ".join(cell for line in quoted_table().rows for cell in line)
    assert "Fang et al. 2023 (not rebuilt: its text was not at hand)" in text
    assert all(f"`{row.id}`" in text for row in rows) and "the test" in text


def test_runs_of_one_name_are_the_same():
    stages: dict[str, object] = {}
    for row in ROWS:
        for run in runs_of(row, 1, 0, Path("x")):
            assert stages.setdefault(run.name, run.settings) == run.settings


def test_the_three_tables_need_14_trainings_per_fold():
    assert sum(len(runs_of(row, 1, 0, Path("x"))) for row in ALL) == 21
    assert len(plan(ALL, [1], [0], Path("x"))) == 14
    runs = plan(ALL, [1, 2, 3, 4, 5], [0, 1, 2], Path("x"))
    assert len(runs) == 14 * 15
    assert len({run.folder for run in runs}) == len(runs)


def test_rows_share_the_stage_1_of_their_fold_and_seed():
    runs = plan(choose_rows([], ["t2-full-full", "t3-scl-cos"], []), [1, 2], [0], Path("x"))
    assert [(run.name, run.fold) for run in runs] == [
        ("t1-full-ser-asr", 1), ("t2-full-full", 1), ("t3-scl-cos", 1),
        ("t1-full-ser-asr", 2), ("t2-full-full", 2), ("t3-scl-cos", 2),
    ]  # fmt: skip
    for run in runs:
        assert all(one.fold == run.fold and runs.index(one) < runs.index(run) for _, one in run.starts)


def test_adapters_in_stage_2_start_from_adapters_in_stage_1():
    first, second = plan(choose_rows([], ["t2-adapters-adapters"], []), [3], [7], Path("x"))
    assert (first.name, first.settings.trainable) == ("t1-adapters-ser-asr", "adapters")
    assert second.starts == (("--stage1", first),)
    assert second.folder == Path("x/seed7/fold3/t2-adapters-adapters")


def test_a_task_that_the_corpus_lacks_is_left_out_of_every_row():
    rows = choose_rows([1, 2, 3], [], ["style"])
    assert [row.id for row in rows] == [row.id for row in ALL]
    assert len(plan(rows, [1], [0], Path("x"))) == 14
    assert not any("style" in word for run in plan(rows, [1], [0], Path("x")) for word in run.settings.flags())


def test_rows_that_would_be_the_same_without_a_task_are_refused():
    with pytest.raises(UserError, match="t1-adapters-ser-gender-style is then the same as t1-adapters-ser"):
        choose_rows([1], [], ["gender", "style"])
    rows = choose_rows([2], ["t1-full-ser", "t1-full-ser-asr"], ["gender", "style"])
    assert len(rows) == 5


def test_without_transcripts_stage_2_starts_from_emotion_alone():
    (row,) = choose_rows([], ["t2-full-adapters"], ["asr"])
    assert runs_of(row, 1, 0, Path("x"))[0].name == "t1-full-ser"


def test_an_unknown_row_names_those_that_there_are():
    with pytest.raises(UserError, match="--rows t9: no such row; there are t1-adapters-ser"):
        choose_rows([], ["t9"], [])


def test_claims_name_existing_rows_and_agree_with_the_paper():
    paper = {row.id: row.paper.ua for row in ROWS}
    papers = [claim for claim in CLAIMS if claim.of_paper]
    assert len(papers) == 12
    assert all(paper[claim.better] > paper[claim.worse] for claim in papers)
    assert not [row.id for row in ROWS if not row.paper.ua and row.table < 4]


def test_rows_of_the_same_settings_are_trained_once_and_both_reported(tmp_path):
    by_id = {row.id: row for row in ROWS}
    for row in ROWS:
        same = by_id[row.run]
        assert (same.stage1, same.stage2) == (row.stage1, row.stage2)
        twins = [one for one in ROWS if (one.stage1, one.stage2) == (row.stage1, row.stage2)]
        assert {one.run for one in twins} == {row.run}, row.id
    rows = choose_rows([3, 6], [], [])
    runs = plan(rows, [1], [0], tmp_path)
    assert [run.rows for run in runs if run.name == "t3-scl-cos"] == [("t3-scl-cos", "t6-two-stages")]
    table = plan_table(runs, 1)
    assert "t3-scl-cos" in table and "t6-two-stages" in table
    for run in runs:
        write_json(run.folder / "results.json", {})
    shown = [row.id for row in finished_rows(plan(choose_rows([6], [], []), [1], [0], tmp_path))]
    # Those asked for, under their own ids alone, and the stage 1 and the parent that are rows themselves.
    assert shown == ["t1-full-ser", "t1-full-ser-asr", *(row.id for row in ROWS if row.table == 6)]


def test_the_two_models_to_be_merged_are_trained_first():
    runs = plan(choose_rows([], ["t6-merge", "t6-merge-half"], []), [1], [0], Path("x"))
    assert [run.name for run in runs] == ["t6-merge-asr", "t1-full-ser", "t6-merge", "t6-merge-half"]
    asr, emotion, merged, half = runs
    assert (asr.settings.tasks, emotion.settings.tasks) == ("asr", "emotion")
    assert merged.starts == half.starts == (("--merge_asr", asr), ("--merge_emotion", emotion))
    words = parse_arguments(["--tables", "6"]).flags_of(half)
    assert words[words.index("--merge_asr") + 1] == str(asr.folder) and words[words.index("--merge") + 1] == "half"
    with pytest.raises(UserError, match="--leave_out asr gender: t4-gao-2023 has then a stage without a task"):
        choose_rows([], ["t4-gao-2023"], ["asr", "gender"])
    with pytest.raises(UserError, match="--leave_out asr: t6-merge needs that task"):
        choose_rows([], ["t6-merge"], ["asr"])


def test_the_scale_of_ctc_goes_to_the_stage_that_has_it():
    first, second = plan(choose_rows([], ["t5-scl-cos-batch"], []), [1], [0], Path("x"))
    assert first.name == "t5-full-ser-asr-batch" and "batch" in first.settings.more and not second.settings.more
    args = parse_arguments(["--rows", "t3-scl-cos", "--ctc_scale", "utterance"])
    first, second = plan(choose_rows([], ["t3-scl-cos"], []), [1], [0], Path("x"))
    assert "--ctc_scale" in args.flags_of(first) and "--ctc_scale" not in args.flags_of(second)


def test_hours_are_those_of_the_epochs_of_finished_runs(tmp_path):
    runs = plan(choose_rows([1], [], []), [1, 2], [0], tmp_path)
    by_name = {(run.name, run.fold): run for run in runs}
    finished = [
        (by_name["t1-full-ser", 1], {"minutes": 10, "epochs": 8}),
        (by_name["t1-full-ser-asr", 1], {"minutes": 4, "epochs": 8}),
    ]
    assert minutes_of(by_name["t1-full-ser", 2], finished) == pytest.approx(10)
    assert minutes_of(by_name["t1-full-ser-asr", 2], finished) == pytest.approx(4)
    assert minutes_of(by_name["t1-full-ser-gender-style", 2], finished) == pytest.approx(7)  # the mean of its kind
    assert minutes_of(by_name["t1-adapters-ser", 2], finished) == pytest.approx(7)  # none of its kind: of its stage
    again = by_name["t1-full-ser-asr", 2], {"minutes": 6, "epochs": 8}
    assert minutes_of(by_name["t1-full-ser-asr", 2], [*finished, again]) == pytest.approx(5)
    finished.pop()
    assert minutes_of(by_name["t1-full-all", 2], finished) == pytest.approx(
        10
    )  # as every run that trains all parameters
    assert minutes_of(by_name["t1-full-all", 2], []) is None
    # A row of another kind says nothing about the others.
    (heads,) = plan(choose_rows([], ["t4-pepino"], []), [1], [0], tmp_path)
    finished.append((heads, {"minutes": 90, "epochs": 100}))
    assert minutes_of(by_name["t1-full-ser", 2], finished) == pytest.approx(10)


def test_a_row_with_its_own_epochs_has_its_own_hours(tmp_path):
    runs = plan(choose_rows([3], [], []), [1, 2, 3], [0], tmp_path)
    by_name = {(run.name, run.fold): run for run in runs}
    epochs_of = {"t3-mtl": 8, "t3-concat": 8, "t3-scl-norm": 120}
    finished = [(by_name[name, 1], {"minutes": 0.5 * epochs, "epochs": epochs}) for name, epochs in epochs_of.items()]
    estimated = {name: minutes_of(by_name[name, 2], finished) for name in ("t3-scl-norm", "t3-mtl", "t3-scl-cos")}
    assert estimated == pytest.approx({"t3-scl-norm": 60, "t3-mtl": 4, "t3-scl-cos": 4})


def test_a_long_string_of_flags_is_no_file_name():
    flags = "--learning_rate 1e-4 " * 50
    assert flags in parse_arguments(["--rows", "t1-full-ser", "--stage1_flags", flags]).command


def test_the_plan_counts_finished_and_interrupted_runs(tmp_path):
    runs = plan(choose_rows([2], [], []), [1, 2], [0], tmp_path)
    write_json(runs[0].folder / "args.json", {"training": {"num_train_epochs": 8}})
    write_json(runs[0].folder / "results.json", {"minutes": 30, "audio_seconds_per_second": 20})
    write_json(runs[1].folder / "args.json", {})
    assert [run.state for run in runs[:3]] == ["finished", "interrupted", "to do"]
    table = plan_table(runs, jobs=2)
    assert "10 runs, 1 finished, 9 to do" in table
    assert "1.5 hours of training, 0.8 with 2 at a time; not counting 6" in table  # 3 of stage 1, at half an hour each
    assert "\n1 run, 1 finished, 0 to do" in plan_table(runs[:1], jobs=1)


def test_unknown_flags_go_to_both_stages_and_stage_flags_to_one():
    args = parse_arguments(
        shlex.split(
            "--rows t3-scl-cos --encoder e --dev none --selection last --learning_rate 1e-3 "
            "--stage2_flags '--num_train_epochs 4' --measure_oracle"
        )
    )
    first, second = plan(choose_rows(args.tables, args.rows, []), [1], [0], args.output_dir)
    one, two = args.flags_of(first), args.flags_of(second)
    for words in (one, two):
        assert words[words.index("--learning_rate") + 1] == "1e-3"
        assert "--measure_oracle" in words
    assert "--num_train_epochs" in two and "--num_train_epochs" not in one
    assert one[one.index("--encoder") + 1] == "e" and "--encoder" not in two
    assert two[two.index("--stage1") + 1] == str(first.folder)
    assert args.corpus_arguments.dev == "none"


def test_adapters_all_parameters_and_heads_can_have_their_own_rate():
    args = parse_arguments(
        shlex.split(
            "--rows t2-full-full t3-scl-cos t4-pepino --learning_rate 1e-3 --stage2_flags '--learning_rate 2e-3' "
            "--adapters_flags '--learning_rate 5e-4' --full_flags '--learning_rate 1e-4' "
            "--heads_flags '--learning_rate 1e-2'"
        )
    )
    runs = plan(choose_rows(args.tables, args.rows, []), [1], [0], args.output_dir)
    rates = {}
    for run in runs:
        words = args.flags_of(run)
        rates[run.name] = [words[i + 1] for i, word in enumerate(words) if word == "--learning_rate"][-1]
    assert rates == {"t1-full-ser-asr": "1e-4", "t2-full-full": "1e-4", "t3-scl-cos": "5e-4", "t4-pepino": "1e-2"}


def test_the_flags_of_a_row_override_all_others():
    flags = ["t3-scl-norm --num_train_epochs 120", "t1-full-ser-asr --warmup_steps 9"]
    common = ["--tables", "3", "--num_train_epochs", "2", "--adapters_flags", "--num_train_epochs 8"]
    args = parse_arguments([*common, "--row_flags", *flags])
    parser = StageParser(Stage2)
    runs = plan(choose_rows([3], [], []), [1], [0], args.output_dir)
    epochs = {run.name: parser.parse_args(args.flags_of(run)).num_train_epochs for run in runs if run.stage == 2}
    assert epochs == {"t3-mtl": 8, "t3-concat": 8, "t3-scl-norm": 120, "t3-scl-cos": 8}
    assert [run.name for run in runs if "--warmup_steps" in args.flags_of(run)] == ["t1-full-ser-asr"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--full_flags", "--tasks asr"], "--tasks: each row sets it"),
        (["--num_train_epoch", "3"], "run_stage1.py: unrecognized arguments: --num_train_epoch"),
        (["--stage2_flags", "--encoder e"], "run_stage2.py: unrecognized arguments: --encoder"),
        (["--seed", "3"], "--seed: each row sets it"),
        (["--stage1_flags", "--tasks emotion"], "--tasks: each row sets it"),
        (["--tables", "7"], "--tables 7: must be among 1, 2, 3, 4, 5, 6"),
        (["--folds", "6"], "--folds 6: must be among"),
        (["--seeds", "-1"], "--seeds -1: must be from 0"),
        (["--seeds", "0", "9" * 20], "--seeds 99999"),
        (["--jobs", "0"], "--jobs 0: must be at least 1"),
        (["--leave_out", "emotion"], "--leave_out emotion: must be among"),
        (["--tables", "4", "--leave_out", "asr"], "--leave_out asr: t4-cai needs that task; name --rows without it"),
        (["--emotion_head", "linear"], "--emotion_head: each row sets it"),
        (["--launcher", "slurm", "--slurm_options", "gpus"], "--slurm_options gpus: must be name=value"),
        (["--stage1_flags", "--learning_rate '1"], "--stage1_flags: No closing quotation"),
        (["--full_flags", "'"], "--full_flags: No closing quotation"),
        (
            ["--rows", "t3-mtl", "--row_flags", "t3-mtl --encoder e"],
            "run_stage2.py: unrecognized arguments: --encoder",
        ),
        (["--rows", "t3-mtl", "--row_flags", "t3-mtl --scl cos"], "--scl: each row sets it"),
        (["--rows", "t3-mtl", "--row_flags", "t3-mtl 'a"], "--row_flags: No closing quotation"),
        (["--rows", "t3-mtl", "--row_flags", ""], "must begin with the id of a row, here one of t1-full-ser-asr, t3"),
        (["--rows", "t3-mtl", "--row_flags", "t3-concat --seed 1"], "--row_flags t3-concat --seed 1: must begin"),
        (["--output_dir", __file__], f"--output_dir {__file__}: is not a folder"),
    ],
)
def test_a_mistake_is_found_before_anything_is_trained(flags, said):
    with pytest.raises(UserError, match=re.escape(said)):
        parse_arguments(flags)


def test_a_folder_keeps_the_settings_of_its_first_runs(tmp_path):
    def args(*more: str):
        return parse_arguments(["--output_dir", str(tmp_path), *more])

    keep_settings(args("--num_train_epochs", "2"))
    keep_settings(args("--num_train_epochs", "3"))  # no run has begun
    write_json(tmp_path / "seed0" / "fold1" / "t3-concat" / "args.json", {})
    keep_settings(args("--num_train_epochs", "3", "--seeds", "1", "--rows", "t3-concat", "--jobs", "4"))
    with pytest.raises(UserError, match=r"--flags .*'3'.*, not .*'4'"):
        keep_settings(args("--num_train_epochs", "4"))
    with pytest.raises(UserError, match=r"--row_flags \[\], not \['t3-mtl --warmup_steps 9'\]"):
        keep_settings(args("--num_train_epochs", "3", "--row_flags", "t3-mtl --warmup_steps 9"))
    (tmp_path / "settings.json").unlink()
    with pytest.raises(UserError, match=r"settings\.json: is missing"):
        keep_settings(args("--num_train_epochs", "3"))


def test_a_folder_of_a_version_without_the_flag_had_its_default(tmp_path):
    def args(*more: str):
        return parse_arguments(["--rows", "t3-mtl", "--output_dir", str(tmp_path), *more])

    keep_settings(args())
    write_json(tmp_path / "seed0/fold1/t3-mtl/args.json", {})
    settings = read_json(tmp_path / "settings.json")
    del settings["row_flags"]
    write_json(tmp_path / "settings.json", settings)
    keep_settings(args())
    with pytest.raises(UserError, match=r"row_flags \[\], not \['t3-mtl --warmup_steps 9'\]"):
        keep_settings(args("--row_flags", "t3-mtl --warmup_steps 9"))


def test_without_a_finished_run_there_is_no_estimate(tmp_path):
    runs = plan(choose_rows((1,), (), ()), (1,), (0,), tmp_path)
    table = plan_table(runs, 1)
    assert table.endswith(f"{len(runs)} runs, 0 finished, {len(runs)} to do; no estimate yet: no run has finished")


def test_a_flag_of_all_rows_goes_to_those_where_it_does_something():
    args = parse_arguments(shlex.split("--rows t3-scl-cos --lora_rank 8 --aux_weight=0.2 --scl_weight 0.5 --seeds 1"))
    first, second = plan(choose_rows(args.tables, args.rows, []), [1], [1], args.output_dir)
    shared = [
        name for name in args.flags_of(first) if name[2:].split("=")[0] in ("lora_rank", "aux_weight", "scl_weight")
    ]
    assert shared == ["--aux_weight=0.2"]
    assert {"--lora_rank", "8", "--aux_weight=0.2", "--scl_weight", "0.5"} < set(args.flags_of(second))
