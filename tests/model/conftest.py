"""Models that several files load."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Folders of models with random heads and adapters, by kind. Not to be changed."""
    from compatibility import KINDS, models_of

    path = tmp_path_factory.mktemp("citizen") / "model"
    models_of("wav2vec2, layer norm", path)
    return {kind: path.with_name(f"model-{kind.replace(' ', '')}") for kind in KINDS}
