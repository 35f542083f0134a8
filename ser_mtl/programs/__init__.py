"""Programs that `run_tables.py` runs before a stage, as `python -m`."""
