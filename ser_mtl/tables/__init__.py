"""The paper's tables: the runs they need, how these are started, and the report on them."""
