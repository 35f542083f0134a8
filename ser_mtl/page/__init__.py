"""A page in the browser that answers recordings: `ser-mtl page`, and the same as a Space of the Hub."""
