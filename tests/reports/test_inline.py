"""A figure inside the page: themed, without style attributes, with ids that clash with nobody's."""

import re

import pytest

from reports import charts
from reports.inline import Inliner
from reports.style import LIGHT


@pytest.fixture(scope="module")
def inlined(data):
    inliner = Inliner(LIGHT)
    drawn = [
        inliner.inline(charts.render(name, data, LIGHT, charts.COLUMN, ("svg",))["svg"], name, f"{name} <&> chart")
        for name in ("progress", "attribution")
    ]
    return inliner, "".join(map(str, drawn)), str(inliner.sprite())


def test_no_style_attribute_and_no_style_element(inlined):
    _, markup, sprite = inlined
    assert not re.search(r"\sstyle=|<style", markup + sprite)


def test_ids_are_unique_and_every_reference_leads_somewhere(inlined):
    inliner, markup, sprite = inlined
    ids = re.findall(r'\bid="([^"]+)"', markup + sprite)
    assert len(ids) == len(set(ids))
    referred = re.findall(r'href="#([^"]+)"', markup) + re.findall(r"url\(#([^)]+)\)", markup + inliner.stylesheet())
    missing = {name for name in referred if not name.startswith("record-")} - set(ids)
    assert not missing


def test_colours_follow_the_readers_scheme(inlined):
    inliner, _, _ = inlined
    css = inliner.stylesheet()
    for colour in (LIGHT.ink, LIGHT.accent, LIGHT.bands[0], LIGHT.target):
        assert colour not in css
    assert "var(--ink)" in css and "var(--accent)" in css and "var(--band1)" in css


def test_each_dot_knows_its_record_and_the_label_is_escaped(inlined, data):
    _, markup, _ = inlined
    assert set(re.findall(r'data-record="([^"]+)"', markup)) == set(data["history"].number)
    assert 'aria-label="progress &lt;&amp;&gt; chart"' in markup


def test_letters_keep_their_size(data):
    svg = charts.render("progress", data, LIGHT, charts.COLUMN, ("svg",))["svg"].decode()
    inliner = Inliner(LIGHT)
    markup = str(inliner.inline(svg.encode(), "x", "x")) + str(inliner.sprite())
    assert set(re.findall(r"scale\(([^)]+)\)", svg)) == set(re.findall(r"scale\(([^)]+)\)", markup))
