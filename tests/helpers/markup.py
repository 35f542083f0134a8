"""A name that tries everything, and what a page makes of it."""

from html.parser import HTMLParser

HOSTILE = (
    "x</td></pre><script>alert(1)</script><svg onload=alert(1)>|`*_![p](secret.txt)[l](javascript:x)<https://e.org>\n"
    "# h\n\n```\r<!-- \"'&lt;$x_{$ =1+1 \x1b[31m \u202e"
)


class _Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found: list[str] = []
        self.shown = ""

    def handle_starttag(self, tag, attrs):
        self.found.append(f"{tag} {' '.join(sorted(name for name, _ in attrs))}".strip())

    def handle_comment(self, data):
        self.found.append("comment")

    def handle_data(self, data):
        self.shown += data


def elements(page: str) -> tuple[list[str], str]:
    """The elements of a page in their order, each with the names of its attributes, and the text that it shows."""
    reader = _Reader()
    reader.feed(page)
    return reader.found, reader.shown
