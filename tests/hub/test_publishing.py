"""`ser-mtl publish`: which files go up and which never do, private first, in one commit, safe to repeat."""

import hashlib
import json
import logging
import shutil
import tempfile
import time
from io import StringIO
from pathlib import Path

import pytest
from helpers.hub_server import SECRET
from helpers.tiny import TRAVELLING, Ended, check_one_line, contents, run_flags, run_script
from huggingface_hub import HfApi, ModelCard

from ser_mtl.errors import UserError, hub_errors
from ser_mtl.evaluation.predictions import read_predictions

TOKEN = "hf_made_up_of_ada"
STAGE1 = {
    ".gitattributes", "README.md", "args.json", "config.json", "confusion_matrix.png", "history.json",
    "model.safetensors", *TRAVELLING,
    "predictions.jsonl", "preprocessor_config.json", "processor_config.json", "results.json",
    "reliability.png", "split.json", "tokenizer_config.json", "training_curves.png", "vocab.json",
}  # fmt: skip
STAGE2 = STAGE1 - {"model.safetensors"} | {"adapter_config.json", "adapter_model.safetensors"}


@pytest.fixture
def stage1(finished, tmp_path) -> Path:
    """A copy of a finished run of stage 1."""
    return shutil.copytree(finished, tmp_path / "runs" / "stage1")


@pytest.fixture
def stage2(finished2, stage1) -> Path:
    """A copy of a finished run of stage 2 that starts from `stage1`."""
    run = shutil.copytree(finished2, stage1.parent / "stage2")
    for name, key in (("adapter_config.json", "base_model_name_or_path"), ("results.json", "stage1")):
        (run / name).write_text(json.dumps(json.loads((run / name).read_text()) | {key: str(stage1)}))
    return run


def publish(run: Path, repo_id: str, *more: object) -> Ended:
    ended = run_script("publish", [run, "--repo_id", repo_id, *more])
    assert "Traceback" not in ended.stderr
    assert TOKEN not in ended.stdout + ended.stderr
    return ended


def publish_well(run: Path, repo_id: str, *more: object) -> None:
    ended = publish(run, repo_id, *more)
    assert ended.code == 0, ended.stderr


def check_refused(ended: Ended, *named: str) -> None:
    """Exit code 2, and one line of ours, the last, that holds all of these."""
    ours = [line for line in ended.stderr.splitlines() if line.startswith("ser-mtl publish: ")]
    assert (ended.code, len(ours)) == (2, 1), ended.stderr
    assert ended.stderr.endswith(ours[0] + "\n")
    for words in named:
        assert words in ours[0]


# ------------------------------------------------------------------------------------------------------ what goes up


def test_a_run_arrives_whole_in_one_commit_and_private(hub, stage1):
    publish_well(stage1, "ada/ser")
    repository = hub.repositories["ada/ser"]
    assert set(repository.files) == STAGE1
    assert repository.titles == ["initial commit", "Publish the run"]
    assert repository.private
    assert repository.files["model.safetensors"] == (stage1 / "model.safetensors").read_bytes()


def test_adapters_arrive_naming_their_base_by_its_commit(hub, stage1, stage2):
    publish_well(stage1, "ada/stage1")
    publish_well(stage2, "ada/stage2")
    files = hub.repositories["ada/stage2"].files
    assert set(files) == STAGE2
    adapter = json.loads(files["adapter_config.json"])
    base = hub.repositories["ada/stage1"].branches["main"]
    assert (adapter["base_model_name_or_path"], adapter["revision"]) == ("ada/stage1", base)
    assert ModelCard(files["README.md"].decode()).data.base_model == "ada/stage1"


def test_a_repeated_push_changes_nothing_another_run_replaces_it(hub, stage1, stage2):
    publish_well(stage1, "ada/ser")
    before = hub.repositories["ada/ser"].branches["main"]
    publish_well(stage1, "ada/ser")
    assert hub.repositories["ada/ser"].branches["main"] == before
    publish_well(stage1, "ada/base")
    publish_well(stage2, "ada/ser")  # the earlier whole model must not stay beside the adapters
    assert set(hub.repositories["ada/ser"].files) == STAGE2
    assert len(hub.repositories["ada/ser"].titles) == 3


def test_nothing_private_leaves_the_machine(hub, stage1, stage2):
    for name in ("training_args.bin", "optimizer.pt", "speech.wav", "notes.txt", ".env"):
        (stage1 / name).write_text(TOKEN)
    (stage1 / "checkpoint-3").mkdir()
    (stage1 / "checkpoint-3/model.safetensors").write_text("half")
    args = json.loads((stage1 / "args.json").read_text())
    args["corpus"]["data_dir"] = ["patients/ward"]  # reads like a Hub id
    (stage1 / "args.json").write_text(json.dumps(args))
    publish_well(stage1, "ada/stage1")
    publish_well(stage2, "ada/stage2")
    assert b"patients" not in hub.repositories["ada/stage1"].files["args.json"]
    folders = [str(Path(tempfile.gettempdir())).encode(), str(Path.cwd()).encode()]
    for name, expected in (("ada/stage1", STAGE1), ("ada/stage2", STAGE2)):
        files = hub.repositories[name].files
        assert set(files) == expected
        private = [TOKEN.encode(), *folders]
        assert not [(file, secret) for file, content in files.items() for secret in private if secret in content]


def test_transcripts_are_published_only_if_asked_for(hub, stage1):
    publish_well(stage1, "ada/ser")
    rows = [json.loads(line) for line in hub.repositories["ada/ser"].files["predictions.jsonl"].splitlines()]
    own = read_predictions(stage1 / "predictions.jsonl")
    assert all("asr" in row for row in own)
    assert rows == [{name: value for name, value in row.items() if name != "asr"} for row in own]
    publish_well(stage1, "ada/ser", "--with_transcripts")
    assert hub.repositories["ada/ser"].files["predictions.jsonl"] == (stage1 / "predictions.jsonl").read_bytes()


def test_a_public_repository_has_no_names_of_speakers_and_files(hub, stage1):
    ended = publish(stage1, "ada/ser", "--public")
    assert ended.code == 0 and "names of speakers and files were hashed" in ended.stdout
    files = hub.repositories["ada/ser"].files
    own = read_predictions(stage1 / "predictions.jsonl")
    assert not [name for name, content in files.items() if b".wav" in content and not name.endswith("_ser_mtl.py")
                and name != "README.md"]  # which loads speech.wav  # fmt: skip
    rows = [json.loads(line) for line in files["predictions.jsonl"].splitlines()]
    for column in ("id", "speaker"):
        expected = [hashlib.sha256(row[column].encode()).hexdigest()[:16] for row in own]
        assert [row[column] for row in rows] == expected
        if column == "speaker":
            assert json.loads(files["results.json"])["held_out_speakers"] == sorted(set(expected))
            card = files["README.md"].decode()
            assert all(speaker in card for speaker in expected) and f"({', '.join({own[0]['speaker']})}" not in card
    split, before = json.loads(files["split.json"]), json.loads((stage1 / "split.json").read_text())
    for part in ("train", "dev", "test"):
        assert split[part]["sha256"] == before[part]["sha256"] and len(split[part]["ids"]) == len(before[part]["ids"])
        assert not set(split[part]["ids"]) & set(before[part]["ids"])


def test_names_are_published_if_asked_for(hub, stage1):
    ended = publish(stage1, "ada/ser", "--public", "--keep_names")
    assert ended.code == 0 and "hashed" not in ended.stdout
    files = hub.repositories["ada/ser"].files
    assert files["split.json"] == (stage1 / "split.json").read_bytes()
    assert json.loads(files["predictions.jsonl"].splitlines()[0])["id"].endswith(".wav")
    assert "hashes" not in files["README.md"].decode()


def test_names_in_the_history_of_a_private_repository_stay_private(hub, stage1):
    publish_well(stage1, "ada/ser")
    before = hub.repositories["ada/ser"].branches["main"]
    check_refused(publish(stage1, "ada/ser", "--public"), "--public", "ada/ser", "history", "--keep_names")
    assert hub.repositories["ada/ser"].private and hub.repositories["ada/ser"].branches["main"] == before
    publish_well(stage1, "ada/ser", "--public", "--keep_names")
    assert not hub.repositories["ada/ser"].private


def test_a_stage_1_without_names_is_still_known_to_have_heard_the_test(hub, stage1, good_corpus, tmp_path):
    publish_well(stage1, "ada/stage1", "--public")
    flags = run_flags(good_corpus, tmp_path / "out", stage1="ada/stage1", fold=2)
    check_one_line(
        run_script("run_stage2", flags), "run_stage2", "ada/stage1", "was trained on 8 utterances of the test set"
    )


@pytest.mark.parametrize("name", ["vocab.json", "model.safetensors", "split.json", "config.json", "results.json"])
@pytest.mark.parametrize("more", [[], ["--merge"]], ids=str)
def test_a_link_in_the_run_folder_is_refused(hub, stage1, stage2, tmp_path, name, more):
    run = stage2 if more else stage1
    if not (run / name).is_file():
        name = "adapter_model.safetensors"
    shutil.move(run / name, tmp_path / "elsewhere")
    (run / name).symlink_to(tmp_path / "elsewhere")
    check_refused(publish(run, "ada/ser", "--base_repo_id", "ada/base", *more), f"{run / name}: is a link")
    assert not hub.repositories and not (run / "merged").exists()


def test_the_run_folder_gains_only_the_record_of_publication(hub, stage1):
    before = contents(stage1)
    publish_well(stage1, "ser")  # a name alone is one in the user's own namespace
    after = contents(stage1)
    record = json.loads(after.pop("published.json"))
    assert after == before
    assert record == {"repo_id": "ada/ser", "revision": hub.repositories["ada/ser"].branches["main"]}


def test_merged_adapters_have_their_own_repository(hub, stage1, stage2):
    publish_well(stage1, "ada/stage1")
    for _ in range(2):
        publish_well(stage2, "ada/stage2", "--merge")
    merged = hub.repositories["ada/stage2-merged"]
    assert set(merged.files) == STAGE1
    assert len(merged.titles) == 2
    data = ModelCard(merged.files["README.md"].decode()).data
    assert (data.library_name, data.base_model, data.base_model_relation) == ("transformers", "ada/stage1", "finetune")


def named(hub, repo_id: str, name: str) -> list[str]:
    return [file for file, content in hub.repositories[repo_id].files.items() if name.encode() in content]


# ----------------------------------------------------------------------------------------------------------- private


def test_public_adapters_on_a_private_base_are_refused_and_merged_they_do_not_name_it(hub, stage1, stage2):
    publish_well(stage1, "ada/secret")
    check_refused(publish(stage2, "ada/open", "--public"), "--public", "ada/secret, is private", "--merge")
    assert set(hub.repositories) == {"ada/secret"}
    ended = publish(stage2, "ada/open", "--public", "--merge")
    assert ended.code == 0 and "adapters are not published" in ended.stdout, ended.stderr
    assert set(hub.repositories) == {"ada/secret", "ada/open-merged"}
    assert not hub.repositories["ada/open-merged"].private
    assert not named(hub, "ada/open-merged", "secret")
    assert named(hub, "ada/open-merged", "a private model")


def test_a_public_model_names_public_models_and_no_private_encoder(hub, stage1):
    HfApi().create_repo("ada/encoder", private=False)
    for name in ("results.json", "args.json"):
        own = json.loads((stage1 / name).read_text())
        own |= (
            {"encoder": "ada/encoder"} if "encoder" in own else {"method": own["method"] | {"encoder": "ada/encoder"}}
        )
        (stage1 / name).write_text(json.dumps(own))
    publish_well(stage1, "ada/ser", "--public")
    assert {"README.md", "args.json", "results.json"} <= set(named(hub, "ada/ser", "ada/encoder"))
    hub.repositories["ada/encoder"].private = True
    publish_well(stage1, "ada/other", "--public")
    assert not named(hub, "ada/other", "ada/encoder")
    args = json.loads((stage1 / "args.json").read_text())
    args["training"]["hub_model_id"] = "ada/in-private"  # its own name is not hidden
    (stage1 / "args.json").write_text(json.dumps(args))
    publish_well(stage1, "ada/in-private")
    assert named(hub, "ada/in-private", "ada/encoder")
    check_refused(
        publish(stage1, "ada/in-private", "--public", "--keep_names"), "private model, ada/encoder", "history"
    )
    hub.repositories["ada/encoder"].private = False
    publish_well(stage1, "ada/in-private", "--public", "--keep_names")
    assert "args.json" in named(hub, "ada/in-private", "ada/in-private")


def test_nothing_is_pushed_to_a_public_repository_without_the_flag(hub, stage1):
    HfApi().create_repo("ada/open", private=False)
    check_refused(publish(stage1, "ada/open"), "ada/open", "is public", "--public")
    assert set(hub.repositories["ada/open"].files) == {".gitattributes"}
    publish_well(stage1, "ada/open", "--public")
    assert set(hub.repositories["ada/open"].files) == STAGE1


def test_a_server_that_does_not_make_it_private_gets_no_file(hub, stage1):
    def answer_in_public() -> None:
        HfApi().create_repo("ada/ser", private=False)

    hub.fail("POST", "/api/repos/create", 0, before=answer_in_public)
    check_refused(publish(stage1, "ada/ser"), "is public")
    assert not [request for request in hub.requests if "preupload" in request or "commit" in request]


def test_it_becomes_public_only_once_all_of_it_is_there(hub, stage1):
    private_then = []
    hub.fail("POST", "/commit/", 0, before=lambda: private_then.append(hub.repositories["ada/ser"].private))
    publish_well(stage1, "ada/ser", "--public")
    assert private_then == [True]
    assert not hub.repositories["ada/ser"].private


# -------------------------------------------------------------------------------------------------------------- base


def test_adapters_wait_for_their_base(hub, stage1, stage2):
    before = contents(stage2)
    check_refused(publish(stage2, "ada/stage2"), str(stage1), "publish it first", "--base_repo_id")
    assert not hub.repositories
    assert contents(stage2) == before


def test_a_stage_1_published_anew_names_the_adapters_on_it(hub, stage1, stage2):
    publish_well(stage1, "ada/stage1")
    before = hub.repositories["ada/stage1"].branches["main"]
    publish_well(stage2, "ada/stage2")
    assert "based on it" not in publish(stage1, "ada/stage1").stderr  # nothing has changed
    results = (stage1 / "results.json").read_text()
    (stage1 / "results.json").write_text(results.replace('"seed": 42', '"seed": 43'))
    said = publish(stage1, "ada/stage1").stderr
    assert "ada/stage1 has changed; ada/stage2 are based on it" in said and f"code_revision={before[:7]}" in said
    (stage1 / "results.json").write_text(results)
    hub.fail("GET", "/api/models$", 404)  # a server that cannot list them
    publish_well(stage1, "ada/stage1")


def test_a_base_with_other_weights_is_refused(hub, stage1, stage2):
    publish_well(stage1, "ada/stage1")
    weights = bytearray((stage1 / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (stage1 / "model.safetensors").write_bytes(weights)
    check_refused(publish(stage2, "ada/stage2"), "ada/stage1", "the weights of the base")
    assert set(hub.repositories) == {"ada/stage1"}


def test_a_base_that_is_gone_is_named(hub, stage1, stage2):
    publish_well(stage1, "ada/stage1")
    del hub.repositories["ada/stage1"]
    check_refused(publish(stage2, "ada/stage2"), "the base ada/stage1", "404")


def test_a_base_that_may_not_be_read_is_no_matter_of_writing(hub, stage1, stage2):
    publish_well(stage1, "ada/stage1")
    hub.fail("GET", "/api/models/ada/stage1", 403)
    check_refused(publish(stage2, "ada/stage2"), "the base ada/stage1", "right to read there (403)")


def test_adapters_trained_on_a_model_of_the_hub_keep_its_commit(hub, stage1, good_corpus, tmp_path):
    publish_well(stage1, "ada/stage1")
    trained_on = hub.repositories["ada/stage1"].branches["main"]
    run = tmp_path / "stage2"
    assert run_script("run_stage2", run_flags(good_corpus, run, stage1="ada/stage1")).code == 0
    HfApi().upload_file(path_or_fileobj=b"later", path_in_repo="notes.md", repo_id="ada/stage1")
    assert hub.repositories["ada/stage1"].branches["main"] != trained_on
    publish_well(run, "ada/stage2")
    adapter = json.loads(hub.repositories["ada/stage2"].files["adapter_config.json"])
    assert (adapter["base_model_name_or_path"], adapter["revision"]) == ("ada/stage1", trained_on)


def test_the_commit_is_that_of_the_base_named_by_the_flag(hub, stage1, finished2, tmp_path):
    for name in ("ada/stage1", "ada/copy"):
        publish_well(stage1, name)
    run = shutil.copytree(finished2, tmp_path / "run")
    trained_on = {"base_model_name_or_path": "ada/stage1", "revision": hub.repositories["ada/stage1"].branches["main"]}
    adapter = json.loads((run / "adapter_config.json").read_text())
    (run / "adapter_config.json").write_text(json.dumps(adapter | trained_on))
    publish_well(run, "ada/stage2", "--base_repo_id", "ada/copy")
    adapter = json.loads(hub.repositories["ada/stage2"].files["adapter_config.json"])
    assert adapter["revision"] == hub.repositories["ada/copy"].branches["main"] != trained_on["revision"]


def test_a_failed_merge_publishes_nothing(hub, stage1, stage2):
    check_refused(publish(stage1, "ada/stage1", "--merge"), "--merge", "whole model")
    shutil.move(stage1, stage1.parent / "elsewhere")
    ended = run_script("publish", [stage2, "--repo_id", "ada/stage2", "--base_repo_id", "ada/stage1", "--merge"])
    check_refused(ended, "ada/stage1", "base")
    check_one_line(run_script("export", [stage2, "--to", "merged"]), "export", "merge", stage2, "base")
    assert not hub.repositories and not (stage2 / "merged").exists()


# ------------------------------------------------------------------------------------------------------------ faults


@pytest.mark.parametrize(
    ("method", "path", "status", "named"),
    [
        ("POST", "/api/repos/create", 401, "hf auth login"),
        ("POST", "/api/repos/create", 403, "right to write"),
        ("POST", "/api/repos/create", 500, "the Hub failed (500)"),
        ("POST", "/api/validate-yaml", 400, "Invalid metadata in README.md"),
        ("POST", "/preupload/", 404, "not there"),
        ("PUT", "/[0-9a-f]{64}", 403, "(403)"),
        ("POST", "/commit/", 409, "run this again"),
        ("POST", "/commit/", 412, "changed meanwhile"),
        ("POST", "/commit/", 429, "in 7 s"),
        ("POST", "/commit/", 500, "the Hub failed (500)"),
        ("POST", "/commit/", None, "run this again"),
    ],
    ids=lambda value: str(value).strip("/"),
)
def test_a_push_that_fails_says_so_in_one_line_and_can_be_repeated(hub, stage1, method, path, status, named):
    before = contents(stage1)
    hub.fail(method, path, status, Retry_After="7")
    check_refused(publish(stage1, "ada/ser"), "ada/ser", named)
    assert contents(stage1) == before
    if "ada/ser" in hub.repositories:
        assert set(hub.repositories["ada/ser"].files) == {".gitattributes"}
    publish_well(stage1, "ada/ser")
    assert set(hub.repositories["ada/ser"].files) == STAGE1


def test_an_upload_that_is_cut_off_goes_on(hub, stage1):
    hub.fail("PUT", "/[0-9a-f]{64}", None)
    publish_well(stage1, "ada/ser")
    assert set(hub.repositories["ada/ser"].files) == STAGE1


def test_a_concurrent_commit_is_not_overwritten(hub, stage1):
    def commit_in_between() -> None:
        repository = hub.repositories["ada/ser"]
        repository.commit("main", "mine", repository.commits[repository.branches["main"]])

    hub.fail("POST", "/commit/", 0, before=commit_in_between)
    check_refused(publish(stage1, "ada/ser"), "changed meanwhile", "412")
    assert hub.repositories["ada/ser"].titles == ["initial commit", "mine"]
    publish_well(stage1, "ada/ser")
    assert set(hub.repositories["ada/ser"].files) == STAGE1


def test_a_repository_deleted_meanwhile_is_made_again_by_a_repeat(hub, stage1):
    hub.fail("POST", "/commit/", 0, before=lambda: hub.repositories.pop("ada/ser"))
    check_refused(publish(stage1, "ada/ser"), "404")
    publish_well(stage1, "ada/ser")
    assert set(hub.repositories["ada/ser"].files) == STAGE1


def test_a_refusal_of_the_storage_is_no_network_error(hub, stage1, monkeypatch):
    """Over Xet, whose client calls it one."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", False)
    said = {403: "right to write", 401: "does not accept the token", 404: "HF_HUB_DISABLE_XET=1", 400: "refused it"}
    for status, words in said.items():
        hub.fail("GET", "/xet-write-token/", status, times=9)
        check_refused(publish(stage1, "ada/ser"), "ada/ser", words, f"({status})")
        hub.faults.clear()


@pytest.mark.slow
def test_a_500_that_repeats_over_xet_ends_within_a_minute(hub, stage1, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", False)
    hub.fail("GET", "/xet-write-token/", 500, times=99)
    began = time.monotonic()
    check_refused(publish(stage1, "ada/ser"), "the Hub failed (500)")
    assert time.monotonic() - began < 60


def test_no_line_has_a_signed_address(hub, stage1):
    """Not even where the client says that it tries again."""
    hub.fail("PUT", "/[0-9a-f]{64}", 500)
    handler = logging.StreamHandler(lines := StringIO())
    library = logging.getLogger("huggingface_hub")
    library.addHandler(handler)
    ended = publish(stage1, "ada/ser")
    library.removeHandler(handler)
    assert ended.code == 0
    assert f"HTTP Error 500 thrown while requesting PUT {hub.storage_url}/" in lines.getvalue()
    assert SECRET not in lines.getvalue() + ended.stdout + ended.stderr


@pytest.mark.parametrize(
    "text",
    [
        "could not reach https://storage/abc?X-Signature=secret&more=1 today",
        "Max retries exceeded with url: /abc?X-Signature=secret (Caused by 'https://storage/abc?sig=secret')",
    ],
)
def test_the_signatures_in_addresses_are_not_shown(text):
    with pytest.raises(UserError, match="what") as raised, hub_errors("what"):
        raise ConnectionError(text)
    assert "secret" not in str(raised.value)
    assert "/abc" in str(raised.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [("results.json", "{"), ("results.json", None), ("config.json", None), ("predictions.jsonl", None)],
)
def test_a_run_that_is_not_whole_is_refused(hub, stage1, name, content):
    (stage1 / name).unlink()
    if content is not None:
        (stage1 / name).write_text(content)
    check_refused(publish(stage1, "ada/ser"), str(stage1))
    assert "ada/ser" not in hub.repositories or set(hub.repositories["ada/ser"].files) == {".gitattributes"}


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ([], "--repo_id"),
        (["--repo_id", "ada/ser", "--export", "onnx"], "--export"),
        (["--all_folds"], "--repo_id"),
        (["--repo_id", "a/b/c"], "a/b/c"),
    ],
    ids=str,
)
def test_flags_that_make_no_sense_are_named(hub, stage1, flags, named):
    check_refused(run_script("publish", [stage1, *flags]), named)
