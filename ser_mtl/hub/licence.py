"""The corpora by name, and their terms: the section of a model card on its licence."""

from ser_mtl.corpora.description import DESCRIBED, read_description
from ser_mtl.hub.completion import AS_IT_IS, Completion
from ser_mtl.safe_text import markdown

_CORPUS_NAMES = {"iemocap": "IEMOCAP", "demo": "the synthesised demo corpus"}
_IEMOCAP_TERMS = "https://sail.usc.edu/iemocap/iemocap_release.htm"
LICENCE_DATA = {"iemocap": {"license": "other", "license_name": "iemocap", "license_link": _IEMOCAP_TERMS}}

_LICENCE_TEXTS = {
    "iemocap": "IEMOCAP is released for research by the University of Southern California, under "
    f"[its own terms]({_IEMOCAP_TERMS}). Read them before you publish or use a model that was trained on it.",
    "demo": "The demo corpus is synthesised speech without terms of its own; those of the encoder apply.",
}

_UNKNOWN_LICENCE = (
    "The model was trained on a folder of recordings whose licence this card does not know. Their terms apply: state "
    "them here before you publish."
)


def licence(results: dict, completion: Completion = AS_IT_IS) -> str:
    """The section on the terms of the model and its corpus."""
    own = f"The model is published under {markdown(completion.license)}." if completion.license else None
    return "\n\n".join(
        ["## Licence", *filter(None, (own, _terms(results["corpus"], None if own else _UNKNOWN_LICENCE)))]
    )


def _terms(corpus: str, otherwise: str | None) -> str | None:
    if corpus in DESCRIBED and (description := read_description(corpus)).address:
        terms = f"{description.title} has terms of its own: {description.licence} ({description.address})."
        return f"{markdown(terms)} Read them before you publish or use a model that was trained on it."
    return _LICENCE_TEXTS.get(corpus, otherwise)


def corpus_name(results: dict) -> str:
    """The name of the corpus, for readers."""
    if (name := results["corpus"]) in DESCRIBED:
        return read_description(name).title
    return _CORPUS_NAMES.get(name, "a folder of labelled recordings")
