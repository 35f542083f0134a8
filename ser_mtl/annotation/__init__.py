"""Answers to any number of recordings as Parquet shards, written by any number of processes."""
