"""The documentation: a site that builds strictly, and links that lead somewhere."""

import inspect
import os
import re
import subprocess
import sys

import keras
import pytest
from markdown.extensions.toc import slugify
from newcomer import ROOT

import tf_spline_prune as tsp
from tf_spline_prune._public_names import homes_of

PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(ROOT.glob("docs/*.md"))]


def without_code(text):
    """Leave out blocks and spans of code, in which nothing is a heading or a link."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
    return re.sub(r"`[^`\n]*`", lambda found: found[0].replace("](", "] ("), text)


def anchors(path):
    headings = re.findall(r"^#+ +(.+)$", without_code(path.read_text()), re.M)
    return {slugify(heading.replace("`", ""), "-") for heading in headings}


def dead_links(path):
    """Name the links of a page whose file or heading there is not."""
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(path.read_text())):
        file, _, anchor = link.partition("#")
        if re.match(r"\w+:", link):
            continue
        target = path.parent / file if file else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    return dead


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    assert not dead_links(page)


def snippets(page):
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.S)


# Two pages are run by their rooms, which look at what they make.
ELSEWHERE = {
    "README.md",
    "at_initialization.md",
    "generators.md",
    "language_models.md",
}
SHOWN = [
    pytest.param(
        page, id=page.stem, marks=pytest.mark.slow if page.stem == "guide" else ()
    )
    for page in PAGES
    if snippets(page) and page.name not in ELSEWHERE
]


@pytest.mark.parametrize("page", SHOWN)
@pytest.mark.filterwarnings("ignore")
def test_snippets_run(page, tmp_path, monkeypatch):
    """In this process: README and examples are run in processes of their own."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.chdir(tmp_path)
    keras.utils.set_random_seed(0)
    exec(compile("\n".join(snippets(page)), page, "exec"), {"__name__": "__main__"})


def test_dead_links_are_seen(tmp_path):
    (tmp_path / "other.md").write_text("# One heading\n```\n# no heading\n```\n")
    page = tmp_path / "page.md"
    page.write_text(
        "# `Here` it is\n[a](other.md#one-heading) [b](#here-it-is) ![c](none.png)\n"
        "[d](other.md#no-heading) `[e](no.md)` [f](https://example.org/no) [g](#no)\n"
    )
    assert dead_links(page) == ["none.png", "other.md#no-heading", "#no"]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    done = subprocess.run(
        [*command, "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert not done.returncode, done.stdout + done.stderr
    return folder


def test_the_site_loads_nothing_from_a_network(site):
    loads = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*?(?:src|href)=\S+")
    for page in site.rglob("*.html"):
        found = loads.findall(page.read_text())
        assert len(found) > 3 and not [load for load in found if "//" in load]
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import)\W*(?:https?:)?//", sheet.read_text())
    assert not [*site.rglob("*.py"), *site.rglob("*.md")]


def names_of(room):
    """Give the public names of a room, also of one that does not list them."""
    here = [name for name, thing in vars(room).items() if is_of(thing, room)]
    return getattr(room, "__all__", here)


def is_of(thing, room):
    name = getattr(thing, "__name__", "_")
    return name[0] != "_" and getattr(thing, "__module__", "") == room.__name__


def test_the_reference_has_every_public_name(site):
    pages = [page.read_text() for page in (site / "api").glob("*.html")]
    found = {name for page in pages for name in re.findall(r' id="(tf_\S+?)"', page)}
    homes, public = homes_of(tsp.__file__), set()
    for name in tsp.__all__:
        if not inspect.ismodule(module := getattr(tsp, name)):
            public.add(f"{homes[name][0]}.{name}")
            continue
        public |= {f"{module.__name__}.{name}" for name in names_of(module)}
    assert {"probes.plane", "errors.BudgetError"} <= {
        ".".join(name.split(".")[-2:]) for name in public
    }
    assert not public - found
