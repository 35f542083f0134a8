"""From a finished run to a repository on the Hub: its card, its files, other forms of the model."""
