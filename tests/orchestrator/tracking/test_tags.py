"""The names of MLflow's tags stand in one place, which both sides read."""

import re
from pathlib import Path

import orchestrator
from orchestrator.tracking import tags

_LITERAL = re.compile(r"""["']ddpmctl\.[a-z_0-9]+["']""")


def test_no_module_writes_the_name_of_a_tag_by_hand() -> None:
    """Written twice, one of the two is renamed one day, and what looks for it finds nothing."""
    sources = Path(orchestrator.__file__).parent.rglob("*.py")
    by_hand = {path.name for path in sources if _LITERAL.search(path.read_text("utf-8"))}
    assert by_hand == {Path(tags.__file__).name}
