"""A card can be completed with flags, and what was edited on the Hub is not overwritten unasked."""

import shutil
from pathlib import Path

import pytest
from helpers.hub_server import File
from helpers.tiny import Ended, run_script
from huggingface_hub import ModelCard


@pytest.fixture
def run(finished, tmp_path) -> Path:
    return shutil.copytree(finished, tmp_path / "run")


def publish(run: Path, *more: object) -> Ended:
    return run_script("publish", [run, "--repo_id", "ada/ser", *more])


def card_of(hub) -> str:
    return hub.repositories["ada/ser"].files["README.md"].decode()


def edit(hub, name: str, content: str) -> None:
    repository = hub.repositories["ada/ser"]
    files = repository.commits[repository.branches["main"]]
    repository.commit("main", "mine", files | {name: File(content.encode(), False)})


def test_a_card_for_own_recordings_can_be_completed(hub, run, tmp_path):
    hub.datasets["ada/calls"] = False
    text = tmp_path / "my_text.md"
    text.write_text(
        "---\ntags:\n- calls\nlicense_link: https://example.org/terms\n---\n\n## The calls\n\nOurs, 2025.\n"
    )
    flags = ["--license", "cc-by-4.0", "--language", "de", "fr", "--dataset", "ada/calls", "--card", text]
    ended = publish(run, *flags)
    assert ended.code == 0, ended.stderr
    card = ModelCard(card_of(hub))
    assert (card.data.license, card.data.language, card.data.datasets) == ("cc-by-4.0", ["de", "fr"], ["ada/calls"])
    assert (card.data.tags, card.data.license_link) == (["calls"], "https://example.org/terms")
    assert card.data.eval_results[0].dataset_type == "ada/calls"
    assert "\n## The calls\n\nOurs, 2025.\n\n" in card.text and "published under cc-by-4.0" in card.text
    assert "whose licence this card does not know" not in card.text
    # The same command without the flags does not take it all away.
    before = card_of(hub)
    ended = publish(run)
    assert ended.code == 0 and "it was completed" in ended.stderr and card_of(hub) == before
    assert publish(run, "--license", "mit").code == 0
    assert ModelCard(card_of(hub)).data.license == "mit"


def test_only_data_sets_of_the_hub_are_named(hub, run, tmp_path):
    hub.datasets["ada/secret"] = True
    ended = publish(run, "--dataset", "ada/none")
    assert ended.code == 2 and "--dataset ada/none: not there" in ended.stderr
    ended = publish(run, "--dataset", "ada/secret", "--public")
    assert ended.code == 2 and "--dataset ada/secret: is private" in ended.stderr
    (tmp_path / "my_text.md").write_text("---\ndatasets: ada/none\nlicense: mit\n---\nOurs.\n")
    ended = publish(run, "--card", tmp_path / "my_text.md")  # in its header
    assert ended.code == 2 and "--dataset ada/none: not there" in ended.stderr
    assert not hub.repositories
    assert publish(run, "--dataset", "ada/secret").code == 0


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"---\n- a\n- list\n---\ntext\n", b"---\na: [\n---\n"], ids=str)
def test_a_text_that_cannot_be_read_is_named(hub, run, tmp_path, content):
    if content is not None:
        (tmp_path / "my_text.md").write_bytes(content)
    ended = publish(run, "--card", tmp_path / "my_text.md")
    assert ended.code == 2 and f"--card {tmp_path / 'my_text.md'}: cannot be read" in ended.stderr
    assert not hub.repositories


def test_an_edited_card_stays_until_it_is_to_be_replaced(hub, run):
    assert publish(run).code == 0
    written = card_of(hub)
    edited = written.replace("## Licence", "## Licence\n\nAsk Ada.")
    edit(hub, "README.md", edited)
    ended = publish(run)
    assert ended.code == 0 and "was edited on the Hub" in ended.stderr and "--overwrite_card" in ended.stderr
    assert card_of(hub) == edited
    ended = publish(run, "--license", "mit")
    assert ended.code == 2 and "was edited on the Hub" in ended.stderr and card_of(hub) == edited
    assert publish(run, "--overwrite_card").code == 0
    assert card_of(hub) == written


def test_a_card_as_it_was_written_is_replaced(hub, run):
    assert publish(run).code == 0
    results = (run / "results.json").read_text()
    (run / "results.json").write_text(results.replace('"seed": 42', '"seed": 43'))
    assert publish(run).code == 0
    assert "| seed | 43 |" in card_of(hub)


def test_files_of_others_stay_in_the_repository(hub, run):
    assert publish(run).code == 0
    edit(hub, "gradient_cosines.png", "of another day")
    edit(hub, "notes.md", "mine")
    assert publish(run).code == 0
    assert {"gradient_cosines.png", "notes.md"} <= set(hub.repositories["ada/ser"].files)
