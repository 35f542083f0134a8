"""A trained model on another corpus."""
