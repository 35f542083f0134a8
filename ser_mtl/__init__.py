"""Two-stage finetuning for speech emotion recognition with adapters."""
