"""Settings of every test: no network, one thread, caches in a folder that goes when the tests end.

Set before any library reads them, and inherited by the processes that tests start.
"""

import os
import tempfile

_CACHE = tempfile.TemporaryDirectory(prefix="ser-mtl-tests-")

os.environ["HF_DATASETS_CACHE"] = _CACHE.name
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
