"""The real command line: both stages through accelerate, one epoch on the demo corpus."""

import json
import os
import subprocess
import sys

from helpers.tiny import ROOT

LAUNCH = ("-m", "accelerate.commands.launch", "--quiet", "--num_processes", "1", "--num_machines", "1")
LAUNCH = (*LAUNCH, "--mixed_precision", "no", "--dynamo_backend", "no")


def test_both_stages_of_the_demo_by_their_defaults(python, tmp_path):
    for stage, started in ((1, sys.executable), (2, python)):
        command = [started, *LAUNCH, str(ROOT / f"run_stage{stage}.py"), "--fold", "1", "--corpus", "demo"]
        ended = subprocess.run(
            [*command, "--num_train_epochs", "1"],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert ended.returncode == 0, ended.stderr[-3000:]
        run = tmp_path / "runs" / "demo" / f"stage{stage}" / "fold1"
        results = json.loads((run / "results.json").read_text())
        assert results["test"]["all"]["n"] == 96
        assert "emotion UA" in ended.stdout
        assert str(run.relative_to(tmp_path)) in ended.stdout
        assert "Traceback" not in ended.stderr
    assert {"gender", "style", "asr"} <= set(results["test"]["all"])
    before = json.loads((tmp_path / "runs/demo/stage1/fold1/results.json").read_text())
    assert results["test"]["all"]["asr"] == before["test"]["all"]["asr"]
