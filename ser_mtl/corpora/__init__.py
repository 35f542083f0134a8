"""From a corpus on disk to batches."""
