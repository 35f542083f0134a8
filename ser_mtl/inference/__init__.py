"""From recordings to answers."""
