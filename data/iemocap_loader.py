"""The door to IEMOCAP: `load_iemocap` for programs, and a check of a tree from the command line.

python data/iemocap_loader.py IEMOCAP_full_release
"""

from ser_mtl.corpora.iemocap import load_iemocap

__all__ = ["load_iemocap"]
