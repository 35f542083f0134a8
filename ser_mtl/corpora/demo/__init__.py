"""The demo corpus: synthesised speech in IEMOCAP's layout, for trying out the whole program."""
