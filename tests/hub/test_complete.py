"""Only whole runs are published: a file that is missing, cut off or empty is named before anything is sent."""

import json
import shutil

import pytest

from ser_mtl.errors import UserError
from ser_mtl.hub.complete import NEEDED, OF_EMOTION, read_complete, size_of

FILES = [*NEEDED, *OF_EMOTION]


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


@pytest.mark.parametrize("name", [*FILES, "model.safetensors", "results.json"])
def test_a_file_that_is_missing_is_named(run, name):
    (run / name).unlink()
    with pytest.raises(UserError, match=name.replace(".", r"\.")):
        read_complete(run)


@pytest.mark.parametrize("name", [*FILES, "model.safetensors", "results.json"])
@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_file_that_is_cut_off_is_damaged(run, name, share):
    content = (run / name).read_bytes()
    if name.endswith((".json", ".jsonl")):
        content = content.rstrip()
    (run / name).write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match=rf"{name.replace('.', '[.]')}: is damaged"):
        read_complete(run)


def test_predictions_that_end_early_are_damaged(run):
    lines = (run / "predictions.jsonl").read_text().splitlines(keepends=True)
    (run / "predictions.jsonl").write_text("".join(lines[:-1]))
    with pytest.raises(UserError, match="is damaged: it has 7 of 8 utterances"):
        read_complete(run)


def test_adapters_need_their_own_files(finished2, tmp_path):
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        run = shutil.copytree(finished2, tmp_path / name)
        assert read_complete(run)["stage"] == 2
        (run / name).unlink()
        with pytest.raises(UserError, match=name):
            read_complete(run)


def test_the_size_is_that_of_the_weights(finished, finished2):
    from safetensors.numpy import load_file

    for run, name in ((finished, "model.safetensors"), (finished2, "adapter_model.safetensors")):
        results = json.loads((run / "results.json").read_text())
        expected = sum(tensor.size for tensor in load_file(run / name).values())
        megabytes = round((run / name).stat().st_size / 1e6, 1)
        assert size_of(run, results) == {"parameters": expected, "megabytes": megabytes}
        card = (run / "README.md").read_text()
        assert f"- size: {expected / 1e6:.1f} million parameters, {megabytes:.1f} MB" in card
