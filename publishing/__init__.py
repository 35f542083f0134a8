"""From a finished run to what others can use: the model card."""
