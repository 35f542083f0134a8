"""A page in the browser that answers a recording: `ser-mtl page`, and the Space of the Hub that shows the same."""
