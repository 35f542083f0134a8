"""Around the model: saved files and their checks, the fast front end and its cache, SpecAugment."""
