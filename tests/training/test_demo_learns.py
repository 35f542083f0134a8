"""What `make demo` promises, over three seeds: on speakers not trained on, stage 2 has learned all three tasks."""

import json
import subprocess

import pytest
from helpers.tiny import ROOT


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_demo_learns(seed, tmp_path):
    subprocess.run(["make", "demo", f"SEED={seed}", f"OUT={tmp_path}"], cwd=ROOT, check=True)
    test = json.loads((tmp_path / "stage2/fold1/results.json").read_text())["test"]["all"]
    assert test["emotion"]["ua"] >= 0.80
    assert test["gender"]["ua"] >= 0.85
    assert test["style"]["ua"] >= 0.85
