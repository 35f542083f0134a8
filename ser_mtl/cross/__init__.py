"""Evaluation of a trained model on another corpus."""
