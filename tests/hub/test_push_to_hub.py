"""`--push_to_hub` of both stages: checked before training, done at the end, safe to repeat."""

import json
import shutil
from pathlib import Path

from helpers.tiny import check_one_line, contents, run_flags, run_script

from ser_mtl.hub.push import publish_run

TOKEN = "hf_made_up_of_ada"


def push(stage: int, corpus: Path, output: Path, repo_id: str, **more: object):
    flags = [*run_flags(corpus, output, hub_model_id=repo_id, **more), "--push_to_hub"]
    return run_script(f"run_stage{stage}", flags)


def test_both_stages_are_published_when_they_are_done(hub, good_corpus, encoder, tmp_path):
    ended = push(1, good_corpus, tmp_path / "stage1", "ada/stage1", encoder=encoder)
    assert ended.code == 0, ended.stderr
    assert "published as ada/stage1" in ended.stdout
    assert hub.repositories["ada/stage1"].titles == ["initial commit", "Publish the run"]
    ended = push(2, good_corpus, tmp_path / "stage2", "ada/stage2", stage1=tmp_path / "stage1")
    assert ended.code == 0, ended.stderr
    adapter = json.loads(hub.repositories["ada/stage2"].files["adapter_config.json"])
    assert adapter["revision"] == hub.repositories["ada/stage1"].branches["main"]
    assert all(repository.private for repository in hub.repositories.values())


def test_the_same_command_repeats_a_failed_push(hub, good_corpus, encoder, tmp_path):
    hub.fail("POST", "/commit/", 500)
    ended = push(1, good_corpus, tmp_path / "run", "ada/ser", encoder=encoder)
    assert ended.code == 2
    assert ended.stderr.splitlines()[-1].startswith("run_stage1.py: repository ada/ser: the Hub failed (500)")
    before = (tmp_path / "run/results.json").read_bytes()
    ended = push(1, good_corpus, tmp_path / "run", "ada/ser", encoder=encoder)
    assert ended.code == 0, ended.stderr
    assert (tmp_path / "run/results.json").read_bytes() == before
    assert "model.safetensors" in hub.repositories["ada/ser"].files


def test_a_token_on_the_command_line_is_used_and_written_nowhere(hub, good_corpus, encoder, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_nobody")
    ended = push(1, good_corpus, tmp_path / "run", "ada/ser", encoder=encoder, hub_token=TOKEN)
    assert ended.code == 0, ended.stderr
    assert TOKEN not in ended.stdout + ended.stderr
    everything = contents(tmp_path / "run") | hub.repositories["ada/ser"].files
    assert not [name for name, content in everything.items() if TOKEN.encode() in content]


def test_obstacles_to_publication_are_named_before_training(hub, good_corpus, encoder, finished, tmp_path, monkeypatch):
    out = tmp_path / "run"
    ended = run_script("run_stage1", [*run_flags(good_corpus, out, encoder=encoder), "--push_to_hub"])
    check_one_line(ended, "run_stage1", "--hub_model_id")
    ended = push(2, good_corpus, out, "ada/stage2", stage1=finished)
    check_one_line(ended, "run_stage2", finished, "publish it first")
    monkeypatch.setenv("HF_TOKEN", "hf_nobody")
    check_one_line(push(1, good_corpus, out, "ada/ser", encoder=encoder), "run_stage1", "ada/ser", "hf auth login")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    check_one_line(
        push(1, good_corpus, out, "lab/ser", encoder=encoder), "run_stage1", "lab/ser", "nor an organisation"
    )
    hub.roles[TOKEN] = "read"
    check_one_line(push(1, good_corpus, out, "ada/ser", encoder=encoder), "run_stage1", "ada/ser", "right to write")
    assert not out.exists() and not hub.repositories


def test_public_adapters_on_a_private_base_are_refused_before_training(hub, good_corpus, finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "stage1")
    publish_run(run, "ada/stage1")
    flags = run_flags(good_corpus, tmp_path / "run", stage1=run, hub_model_id="ada/stage2")
    ended = run_script("run_stage2", [*flags, "--push_to_hub", "--no_hub_private_repo"])
    check_one_line(ended, "run_stage2", "--no_hub_private_repo", "ada/stage1, is private")
    assert not (tmp_path / "run").exists()
