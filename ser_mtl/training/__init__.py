"""From splits to a trained model: arguments, adapters, the Trainer, and the steps that both stages share."""
