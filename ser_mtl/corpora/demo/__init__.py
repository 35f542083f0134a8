"""The demo corpus: synthesised speech in IEMOCAP's layout, to try the whole program out."""
