"""A matplotlib SVG made fit to stand inside a page: themed by CSS variables, no style attributes, its own ids."""

import re
from xml.etree import ElementTree

from markupsafe import Markup, escape

from reports.style import Theme

_LINK = "{http://www.w3.org/1999/xlink}href"
_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_KEPT = ("defs", "g", "path", "use", "a", "pattern", "clipPath", "rect", "image")


def _is_glyph(name: str) -> bool:
    return name.startswith("DejaVuSans")


def _shorter(value: str) -> str:
    """Coordinates to a hundredth of a point; scales stay exact."""
    if "scale" in value:
        return value
    return " ".join(_NUMBER.sub(lambda found: f"{float(found.group()):.2f}".rstrip("0").rstrip("."), value).split())


class Inliner:
    """Turns SVG texts into markup and collects the CSS classes that stand for their style attributes.

    A strict Content-Security-Policy forbids style attributes, and a class can follow the reader's colour scheme: each
    colour of `theme` becomes the CSS variable of its name (`--ink`, `--band0`, ...).
    """

    def __init__(self, theme: Theme):
        self.classes: dict[str, str] = {}
        self.glyphs: dict[str, str] = {}
        self.variables = {theme.paper: "paper", theme.ink: "ink", theme.muted: "muted", theme.grid: "grid"}
        self.variables |= {theme.accent: "accent", theme.second: "second", theme.target: "target"}
        self.variables |= {band: f"band{index}" for index, band in enumerate(theme.bands)}

    def inline(self, svg: bytes, name: str, label: str, css_class: str = "") -> Markup:
        """One figure as markup. `name` prefixes its ids, `label` is what a screen reader says."""
        root = ElementTree.fromstring(svg)
        used = set(re.findall(r"url\(#([^)]+)\)", svg.decode())) | set(
            re.findall(r'xlink:href="#([^"]+)"', svg.decode())
        )
        body = "".join(self._element(child, name, used) for child in root)
        opening = Markup('<svg class="figure {}" viewBox="{}" role="img" aria-label="{}">')
        return opening.format(css_class, root.get("viewBox"), label) + Markup(body) + Markup("</svg>")

    def stylesheet(self) -> str:
        """CSS rules of all classes handed out so far."""
        rules = ["svg.figure *{stroke-linejoin:round;stroke-linecap:butt}"]
        return "\n".join(rules + [f".{name}{{{style}}}" for style, name in self.classes.items()])

    def sprite(self) -> Markup:
        """The letters of all figures, each once; the page shows this element nowhere and the figures refer to it."""
        return Markup(f'<svg class="hidden" aria-hidden="true"><defs>{"".join(self.glyphs.values())}</defs></svg>')

    def _element(self, element, name: str, used: set[str]) -> str:
        tag = element.tag.rpartition("}")[2]
        if tag not in _KEPT:
            return ""
        if _is_glyph(element.get("id", "")):
            outline = " ".join(element.get("d", "").split())
            scale = element.get("transform")
            self.glyphs[element.get("id")] = f'<path id="{element.get("id")}" d="{outline}" transform="{scale}"/>'
            return ""
        inside = "".join(self._element(child, name, used) for child in element)
        if tag in ("g", "defs") and not inside:
            return ""
        attributes = "".join(f' {key}="{escape(value)}"' for key, value in self._attributes(element, name, used))
        return f"<{tag}{attributes}>{inside}</{tag}>" if inside else f"<{tag}{attributes}/>"

    def _attributes(self, element, name: str, used: set[str]):
        for key, value in element.attrib.items():
            if key == "id":
                if value.startswith("record-"):
                    yield "data-record", value.removeprefix("record-")
                elif value in used:
                    yield "id", f"{name}-{value}"
            elif key == "style":
                yield "class", self._class(value, name)
            elif key == _LINK:
                shared = value.startswith("#record-") or _is_glyph(value[1:])
                yield "href", value if shared else value.replace("#", f"#{name}-", 1)
                if value.startswith("#record-"):
                    yield "tabindex", "-1"  # the table leads to the same places without eighty stops
            elif key in ("clip-path", "fill") and value.startswith("url(#"):
                yield key, value.replace("#", f"#{name}-", 1)
            elif not key.startswith("{") and key != "target":
                yield key, _shorter(value)

    def _class(self, style: str, name: str) -> str:
        """The class that stands for a style attribute; the same style is the same class in every figure."""
        style = re.sub(r"#[0-9a-f]{6}", lambda found: self._colour(found.group()), style)
        style = re.sub(r"url\(#", f"url(#{name}-", style.replace("; ", ";").replace(": ", ":"))
        return self.classes.setdefault(style, f"s{len(self.classes)}")

    def _colour(self, colour: str) -> str:
        return f"var(--{self.variables[colour]})" if colour in self.variables else colour
