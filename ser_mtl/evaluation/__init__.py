"""From predictions to numbers, tables and pictures."""
