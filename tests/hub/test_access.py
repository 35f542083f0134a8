"""What a push will need, asked before training: a name, a right to write, and a repository that may be written to."""

import pytest
from huggingface_hub import HfApi

from ser_mtl.errors import UserError
from ser_mtl.hub.access import check_access

TOKEN = "hf_made_up_of_ada"
SCOPE = {"entity": {"type": "org", "name": "lab"}, "permissions": ["repo.content.read", "repo.write"]}
READING = SCOPE | {"permissions": ["repo.content.read"]}


def check(repo_id: str, public: bool = False) -> None:
    check_access(HfApi(), repo_id, public)


@pytest.mark.parametrize(
    "name",
    ["", "a/b/c", "ada/", "/ser", "ada/a--b", "ada/ser.git", "https://hub/ada/ser", "ada/s e", "ada/" + 97 * "x"],
)
def test_what_cannot_be_a_name_is_refused(hub, name):
    with pytest.raises(UserError, match="cannot be the name of a repository"):
        check(name)
    assert not hub.requests


@pytest.mark.parametrize("name", ["ser", "ada/ser", "lab/ser"])
def test_a_new_repository_of_ones_own_or_of_an_organisation_will_do(hub, name):
    hub.organisations["ada"] = {"lab": "write"}
    check(name)
    assert not hub.repositories  # nothing is made


@pytest.mark.parametrize("name", ["ser", "ada/ser", "lab/ser"])
def test_a_token_that_only_reads_is_refused(hub, name):
    hub.organisations["ada"] = {"lab": "admin"}
    hub.roles[TOKEN] = "read"
    with pytest.raises(UserError, match="the token lacks the right to write there"):
        check(name)


def test_a_fine_grained_token_needs_the_right_for_that_namespace(hub):
    hub.organisations["ada"] = {"lab": "write"}
    hub.roles[TOKEN], hub.scopes[TOKEN] = "fineGrained", [SCOPE]
    check("lab/ser")
    with pytest.raises(UserError, match="the token lacks the right"):
        check("ada/ser")
    hub.scopes[TOKEN] = [READING]
    with pytest.raises(UserError, match="the token lacks the right"):
        check("lab/ser")


def test_an_organisation_of_others_or_one_that_is_only_read_is_named(hub):
    hub.organisations["ada"] = {"lab": "read"}
    with pytest.raises(UserError, match=r"bob is neither you \(ada\) nor an organisation of yours \(lab\)"):
        check("bob/ser")
    with pytest.raises(UserError, match="your role in the organisation lab is to read"):
        check("lab/ser")


def test_an_existing_repository_is_asked_about_its_own_rights(hub):
    HfApi().create_repo("ada/ser", private=False)
    with pytest.raises(UserError, match=r"ada/ser: is public.*--no_hub_private_repo"):
        check("ada/ser")
    check("ada/ser", public=True)
    hub.fail("GET", "/auth-check/write", 404)  # a server without this check
    check("ada/ser", public=True)
    hub.fail("GET", "/auth-check/write", 403)
    with pytest.raises(UserError, match="the token lacks the right to write there"):
        check("ada/ser", public=True)


def test_no_token_is_not_a_wrong_one(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_nobody")
    with pytest.raises(UserError, match="does not accept the token"):
        check("ada/ser")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UserError, match="no token for the Hub"):
        check("ada/ser")
