"""Experiments on the method, opt-in: nothing below imports them."""
