"""Options of a publication."""

from dataclasses import dataclass

from ser_mtl.hub.completion import AS_IT_IS, Completion


@dataclass(frozen=True)
class Options:
    """What is published of a run, and to whom.

    Attributes:
        public: make the repository public, once it is complete.
        with_transcripts: publish the transcripts of the test utterances too.
        keep_names: publish the names of speakers and files; otherwise a public repository has hashes of them.
        completion: the user's additions to the card.
        overwrite_card: replace a card that was edited or completed on the Hub; otherwise it stays.
    """

    public: bool = False
    with_transcripts: bool = False
    keep_names: bool = False
    completion: Completion = AS_IT_IS
    overwrite_card: bool = False

    @property
    def hashing(self) -> bool:
        """Whether the names of speakers and files are hashed."""
        return self.public and not self.keep_names


PRIVATE = Options()
