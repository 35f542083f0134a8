"""Every input gives an answer or one clear line: those that once did not, and some hundred random ones.

`fuzz.py` tries many more; docs/reliability.md has its figures. SER_MTL_FUZZ_SEED repeats a run.
"""

import os
from collections import defaultdict

import pytest

from fuzz.findings import FINDINGS
from fuzz.fuzz import faults_of, share_of
from fuzz.sandbox import Sandbox
from fuzz.targets import Target, targets
from fuzz.world import completed

NAMES = (
    "predict stage1", "export stage1", "publish stage1", "predict stage2", "export stage2", "publish stage2", "stage 2",
    "encoder", "same run", "args.json", "report", "checkpoint", "metadata.csv", "IEMOCAP", "audio", "recognizer",
    "flags", "verbs", "SerMtlConfig",
)  # fmt: skip
INPUTS = 500
SEED = int(os.environ["SER_MTL_FUZZ_SEED"])


@pytest.fixture(scope="module")
def entry_points(good_corpus, encoder, finished, finished2, tmp_path_factory) -> dict[str, Target]:
    return targets(completed(tmp_path_factory.mktemp("fuzz"), good_corpus, encoder, finished, finished2))


def test_all_entry_points_are_tried(entry_points):
    assert set(NAMES) == set(entry_points)


@pytest.mark.parametrize("name", NAMES)
def test_random_inputs_give_an_answer_or_one_line(entry_points, name):
    print(f"SER_MTL_FUZZ_SEED={SEED}")
    faults, tried, _ = faults_of(entry_points[name], share_of(entry_points[name], entry_points.values(), INPUTS), SEED)
    assert tried and not faults, {fault: items[0] for fault, items in faults.items()}


def test_what_once_broke_the_contract_keeps_it(entry_points):
    by_target = defaultdict(list)
    for name, item in FINDINGS:
        by_target[name].append(item)
    faults = {}
    for name, items in by_target.items():
        sandbox = Sandbox(entry_points[name].work)
        faults |= {f"{name}: {item!r:.200}": fault for item in items if (fault := sandbox.fault(item))}
        sandbox.close()
    assert not faults


def test_a_broken_contract_is_seen(tmp_path):
    def work(item, folder):
        if item == "slow":
            while True:
                pass
        if item == "large":
            return bytearray(2**33)
        if item == "dead":
            os._exit(3)
        raise KeyError(item)

    sandbox = Sandbox(work, seconds=2)
    faults = [sandbox.fault(item) for item in ("slow", "large", "dead", "key")]
    sandbox.close()
    assert [fault.split(" at ")[0] for fault in faults] == [
        "takes longer than 2 s",
        "MemoryError: ",
        "ends the process (3)",
        "KeyError: 'key'",
    ]
