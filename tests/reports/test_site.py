"""The page as text: self-contained, strict, small, and deaf to whatever a record or a log contains."""

import ast
import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

import reports
from reports import site
from reports.cards import safe_link

MOST_BYTES = 3_000_000


class Reader(HTMLParser):
    """Collects the elements of a page: (tag, attributes) in order."""

    def __init__(self, text):
        super().__init__()
        self.elements = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def text(make_page):
    return site.render(make_page())


def data_of(text):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S).group(1))


def test_every_row_of_the_history_has_its_section_and_its_row(text, table):
    elements = Reader(text).elements
    sections = [a["data-number"] for tag, a in elements if tag == "details" and "data-number" in a]
    rows = [a["data-number"] for tag, a in elements if tag == "tr" and "data-number" in a]
    assert sections == rows == list(table.number)
    assert len(rows) >= 91


def test_records_with_a_script_here_are_told_from_the_others(text, table):
    marked = {a["data-number"] for tag, a in Reader(text).elements if tag == "tr" and "data-archived" in a}
    assert marked == set(table[table.archived].number)
    assert text.count("No script of this record is in the archive yet") == (~table.archived).sum()


def test_ids_are_unique(text):
    ids = [a["id"] for _, a in Reader(text).elements if "id" in a]
    assert len(ids) == len(set(ids))


def test_the_policy_allows_just_this_style_and_this_script(text):
    policy = next(a["content"] for tag, a in Reader(text).elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy and "http" not in policy
    for tag in ("style", "script"):
        inside = re.search(rf"<{tag}>(.*?)</{tag}>", text, re.S).group(1)
        assert f"'sha256-{base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()}'" in policy


def test_nothing_is_fetched_and_no_style_or_handler_stands_in_an_attribute(text):
    for tag, attributes in Reader(text).elements:
        assert tag not in ("link", "iframe", "img", "object", "embed", "base")
        assert not {"style", "src", "srcset"} & attributes.keys()
        assert not any(name.startswith("on") for name in attributes)
    assert "@import" not in text and "url(http" not in text


def test_hostile_strings_stay_text(make_page, hostile, replay_row, script):
    rows = {"40": {"title": hostile, "credit": hostile, "source": "javascript:alert(1)", "techniques": hostile}}
    rows["40"]["disagrees"] = (hostile,)
    scripts = {"40": script(f"# {hostile}\n", claim=hostile, against=hostile, summary=hostile)}
    replays = [replay_row(run_id=hostile, machine=hostile, fidelity=hostile, outcome=hostile)]
    bad = site.render(make_page(rows, scripts, replays))
    harmless = site.render(make_page(scripts={"40": script("b = 1\n")}, replays=[replay_row()]))
    tags, expected = (sorted(tag for tag, _ in Reader(page).elements) for page in (bad, harmless))
    assert [t for t in tags if t in ("script", "img")] == [t for t in expected if t in ("script", "img")]
    assert "{{7*7}}" in bad and "49" not in re.findall(r"\$\\frac\{ (\S+)", bad)
    assert 'href="javascript' not in bad
    assert "\u2028" not in re.search(r'id="data">(.*?)</script>', bad, re.S).group(1)
    record = next(record for record in data_of(bad)["records"] if record["number"] == "40")
    assert record["title"] == hostile


@pytest.mark.parametrize("string", ["</script>", "<!--", "\u2028\u2029", "&amp;", "]]>", '"'])
def test_embedded_data_cannot_leave_its_element(string):
    text = site.embedded({"a": string})
    assert json.loads(text) == {"a": string}
    assert not set("<>&\u2028\u2029") & set(text)


def test_only_web_addresses_become_links():
    assert safe_link("https://github.com/a/b/pull/1")
    for target in ("javascript:alert(1)", "data:text/html,x", "//evil", "https://a b", "", 'https://"x'):
        assert safe_link(target) == ""


def test_the_same_input_gives_the_same_page(make_page, text):
    assert site.render(make_page()) == text


def test_curves_and_replays_are_in_the_data(text):
    data = data_of(text)
    assert data["curves"]["40"][-1][:2] == [2330, 3.2781]
    assert [run["fidelity"] for run in data["replays"]["40"]] == ["stand-in", "smoke"]
    assert data["replays"]["40"][1]["tokens"] is None, "a toy's steps are not the record's tokens"


def test_own_replays_carry_fidelity_and_machine(text):
    section = re.search(r'<details class="record" id="record-40".*?</details>', text, re.S).group(0)
    assert "stand-in" in section and "NVIDIA H100" in section and "2.340 (time × 1/8)" in section
    for kind in ("listed", "logged", "re-timed (stand-in)", "witnessed (stand-in)", "projected (stand-in)"):
        assert f'<th scope="row">{kind}</th>' in section
    assert "(smoke)" not in section


def test_forty_records_with_their_scripts_stay_small(make_page, table, script):
    lines = [f"value_{i} = compute(value_{i - 1}, factor=0.{i})  # why it is so\n" for i in range(800)]
    long = script("".join(lines), claim="claim " * 200)
    text = site.render(make_page(scripts=dict.fromkeys(table.number[:40], long)))
    assert text.count('class="diff"') == text.count("shows it all") == 40
    assert 0.9 * site.DIFFS_BYTES < len(text.encode()) < MOST_BYTES


def test_a_draft_without_any_figure_has_a_section_too(make_page):
    page = make_page(
        {"89": dict.fromkeys(("listed_minutes", "steps", "step_ms", "mean_loss", "p", "tokens"), float("nan"))}
    )
    assert 'id="record-89"' in site.render(page)


def test_an_archive_without_replays_has_its_page(make_page, replay_row):
    page, empty = make_page(), pd.DataFrame(columns=list(replay_row()))
    text = site.render(site.Page(page.table, page.curves, page.ledger, page.figures, empty, page.replay_curves))
    assert "Our own replays" not in text


def test_reports_imports_neither_harness_nor_timing():
    for path in Path(reports.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & {"harness", "timing", "torch"}, path.name
