"""The README keeps its word: its tree is the tree, its pipeline runs. `python tests/test_readme.py` renews the tree."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def phrase(path: Path) -> str:
    """Return what a module's docstring says first: after a colon, up to the end of the sentence, without citations."""
    text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    text = re.sub(r"\s*\([^)]*\)", "", text.split("\n\n")[0].replace("\n", " "))
    sentence = re.split(r"[.;](?:\s|$)", text)[0].strip()
    return sentence.partition(": ")[2] or sentence


def tree(folder: Path = ROOT / "soundssl", depth: int = 0) -> list[str]:
    """Return a line for every module: files first, then folders."""
    lines = []
    for path in sorted(folder.iterdir(), key=lambda path: (path.is_dir(), path.name)):
        if path.name.startswith("__") or not (path.is_dir() or path.suffix == ".py"):
            continue
        name = "  " * depth + path.name + "/" * path.is_dir()
        about = path / "__init__.py" if path.is_dir() else path
        words = phrase(about)
        lines.append(f"    {name:<24}{words[:1].lower() + words[1:] if words[1:2].islower() else words}")
        lines += tree(path, depth + 1) if path.is_dir() else []
    return lines


def between(text: str) -> tuple[str, str, str]:
    """Return what stands before, in and after the README's tree."""
    head, rest = text.split("## The tree\n\n")
    body, tail = rest.split("\n## ", 1)
    return head + "## The tree\n\n", body, "\n## " + tail


def test_the_tree_in_the_readme_is_the_tree():
    assert between((ROOT / "README.md").read_text("utf-8"))[1].splitlines() == tree(), "python tests/test_readme.py"


def test_every_local_link_leads_somewhere():
    links = re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / "README.md").read_text("utf-8"))
    assert links and all((ROOT / link).exists() for link in links)


if __name__ == "__main__":
    before, _, after = between((ROOT / "README.md").read_text("utf-8"))
    (ROOT / "README.md").write_text(before + "\n".join(tree()) + "\n" + after, "utf-8")
