"""The paper's tables: which runs they need, how these are run, and the report that is made of them."""
