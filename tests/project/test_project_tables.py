"""Tables of the documentation are those of the stored results."""

import importlib.util
import re

import pytest
from newcomer import ROOT

spec = importlib.util.spec_from_file_location("tables", ROOT / "benchmarks/tables.py")
tables = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tables)
PAGES = [ROOT / page for page in tables.PAGES if (ROOT / page).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_has_the_stored_numbers(page):
    text = page.read_text()
    assert "<!-- table: " in text
    assert tables.filled(text) == text


def test_another_number_is_seen():
    text = PAGES[0].read_text()
    changed = re.sub(r"\d\d\.\d ±", "99.9 ±", text, count=1)
    assert changed != text == tables.filled(changed)
