"""From a split corpus to a trained model: arguments, starting point, adapters, Trainer, run folder."""
