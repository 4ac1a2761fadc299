"""The example of generators and the snippets of its page, run as a newcomer would."""

import json
import re

import pytest
from newcomer import ROOT, run


@pytest.mark.slow
def test_the_example(tmp_path):
    command = [ROOT / "examples" / "generator.py", "--quick", "--output", "out"]
    done = run(command, tmp_path)
    out = tmp_path / "out"
    made = sorted(path.name for path in out.iterdir())
    assert made == ["latent_planes.png", "samples.png", "table.json"]
    for picture in made[:2]:
        assert (out / picture).read_bytes().startswith(b"\x89PNG")
    found = json.loads((out / "table.json").read_text())
    assert set(found["two latents"]) == {"whole", "half of the units"}
    found = found["eight latents"]
    assert found["whole"]["rank"] == 8 and found["hidden1 at 6"]["rank"] == 6
    assert found["less 50% of units"]["entropy"] is not None
    assert found["hidden1 at 6"]["entropy"] is None
    assert "the surface finds 50 again" in done.stdout


def test_the_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "generators.md").read_text()
    snippets = re.findall(r"```python\n(.*?)```", text, re.S)
    names: dict = {}
    exec("\n".join(snippets), names)
    assert len(snippets) >= 6
    assert names["surface"].slice.num_regions > 100
    assert names["even"].shape == (100, 64)
