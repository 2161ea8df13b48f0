"""One line of an audit."""

from dataclasses import dataclass

from timing.log import printable

PASS, FAIL, NOTE = "pass", "fail", "note"


@dataclass(frozen=True)
class Finding:
    """What an audit found about a record (by number): `status` is "pass", "fail" or "note", `text` one line."""

    record: str
    rule: str
    status: str
    text: str

    def __post_init__(self):
        object.__setattr__(self, "text", printable(self.text, 400))
