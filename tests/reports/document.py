"""A page read by Python's own parser, strict about what it opens and closes."""

import html.parser

_VOID = {"img", "input", "br", "meta", "link", "wbr"}


class Element:
    """An element with its attributes, its text, and its children."""

    def __init__(self, name, attributes, parent):
        self.name = name
        self.attributes = attributes
        self.parent = parent
        self.children = []
        self.pieces = []

    @property
    def text(self):
        """All text in it, in the order of the page."""
        return "".join(piece if isinstance(piece, str) else piece.text for piece in self.pieces)

    def all(self, name):
        """All elements of this name below it."""
        results = []
        for child in self.children:
            results += [child] * (child.name == name) + child.all(name)
        return results


class Document(html.parser.HTMLParser):
    """`root` holds the page's elements; anything closed out of order is an `AssertionError`."""

    def __init__(self, text):
        super().__init__()
        self._open = Element("", {}, None)
        self.root = self._open
        self.every = []
        self.feed(text)
        self.close()
        assert self._open is self.root, f"<{self._open.name}> is never closed"

    def handle_starttag(self, name, attributes):
        assert len(dict(attributes)) == len(attributes), f"<{name}> has an attribute twice"
        element = Element(name, dict(attributes), self._open)
        self._open.children.append(element)
        self._open.pieces.append(element)
        self.every.append(element)
        if name not in _VOID:
            self._open = element

    def handle_endtag(self, name):
        assert self._open.name == name, f"</{name}> closes <{self._open.name}>"
        self._open = self._open.parent

    def handle_data(self, data):
        self._open.pieces.append(data)

    def all(self, name):
        """All elements of this name."""
        return self.root.all(name)

    def section(self, identifier):
        """The section with this id."""
        (result,) = [element for element in self.all("section") if element.attributes["id"] == identifier]
        return result
