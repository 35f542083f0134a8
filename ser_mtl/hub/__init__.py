"""From a finished run to what others can use: its card, a repository on the Hub, other forms of the model."""
