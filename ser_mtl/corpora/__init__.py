"""From a corpus on disk to batches: loaders, folds, audio, batching."""
