"""The main job and the README, run as a newcomer runs them."""

import json
import re

import pytest
from newcomer import ROOT, run


@pytest.mark.slow
@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
def test_the_main_job(flavour, tmp_path):
    command = [ROOT / "examples" / "quickstart.py", "--flavour", flavour]
    command += ["--epochs", "16", "--train-split", "train[:40%]", "--output", "out"]
    done = run(command, tmp_path)
    out = tmp_path / "out"
    made = sorted(path.name for path in out.iterdir())
    assert [name for name in made if name != "early_bird.keras"] == [
        "distance_curve.png",
        "distance_map.png",
        "plan.json",
        "predictions.npz",
        "report.html",
        "served",
        "table.json",
        "ticket.tflite",
    ]
    assert (out / "served" / "1" / "saved_model.pb").exists()
    for picture in ("distance_curve.png", "distance_map.png"):
        assert (out / picture).read_bytes().startswith(b"\x89PNG")
    rows = json.loads((out / "table.json").read_text())
    dense, ticket, chance = rows
    page = (out / "report.html").read_text()
    for row in (dense, ticket):
        assert f'<data value="{row["macs"]}">' in page
    assert 0.45 * dense["macs"] < ticket["macs"] <= 0.5 * dense["macs"]
    assert ticket["macs"] == chance["macs"] and ticket["params"] == chance["params"]
    assert ticket["tflite_bytes"] < 0.7 * dense["tflite_bytes"]
    assert all(row["accuracy"] > 0.8 for row in rows)
    assert done.stdout.count("100% of 256 predictions the same") == 2
    if "early_bird.keras" in made:
        assert "The partition has settled" in done.stdout
        assert ticket["flops"] < dense["flops"]
    else:
        assert "did not fire" in done.stdout

    if flavour == "tf_keras":
        return
    # A second run into the same folder is refused before anything happens.
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    again = run(command, tmp_path, check=False)
    assert again.returncode and "two runs do not mix" in again.stderr
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*")}


# What takes time and changes nothing but numbers.
LESS = {
    '"train", batch_size=32': '"train[:20%]", batch_size=32',
    "epochs=10,": "epochs=2,",
    "epochs=8,": "epochs=2,",
    ", 0, 300, frequency=20)": ", 0, 15, frequency=3)",
    "rounds=10": "rounds=3",
    "minibatch(test, 256)": "minibatch(test, 32)",
    "extent=(0.49, 0.51)": "extent=(0.499, 0.501)",
}


def test_the_readme(tmp_path):
    text = (ROOT / "README.md").read_text()
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, re.S))
    for shown, less in LESS.items():
        assert shown in code
        code = code.replace(shown, less)
    (tmp_path / "readme.py").write_text(code)
    done = run(["readme.py"], tmp_path)
    # The numbers vary with the machine; what the README prints is what is printed.
    shown = "".join(re.findall(r"<!-- example -->\n```\n(.*?)```", text, re.S))
    digits = "zero|one|two|three|four|five|six|seven|eight|nine"
    vary = re.compile(rf"\b(?:{digits})\b|[\d.,e%-]+")
    blank = lambda line: vary.sub("#", line.split("/")[-1])  # noqa: E731
    for line in shown.splitlines():
        assert any(
            blank(line).split() == blank(o).split() for o in done.stdout.splitlines()
        ), line
    assert (tmp_path / "served/digits/1/saved_model.pb").exists()
    assert (tmp_path / "digits.tflite").exists()
