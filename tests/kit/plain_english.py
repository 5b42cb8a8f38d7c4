"""Find phrases that readers of technical English stumble over, in docstrings, comments, messages and documentation.

    python tests/kit/plain_english.py FOLDER_OR_FILE ...

Prints one line per phrase, with the words to write instead, and exits with 1 if there is any. Every listed phrase has
been used in this project before. The list is short on purpose; where a phrase is correct, reword the sentence around
it.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

PHRASES = {
    r"\b(?:[Ww]hat|[Ww]here|[Ww]ho) (?:is|are) told\b|\btold\b|\btells?\b|\btelling\b": "report, say, show or describe",
    r"(?<![Tt]here )\b(?:is|are|was|were) no (?!longer|more than|less than)": "is not a",
    r"\b(?:[Ww]hat|that|it|which) stands?\b(?! for)|\bstands? already\b": "exists, or name the state",
    r"\b(?:goes|go|went|going|reads?) on\b(?! (?:a|an|the|its|this|that|one|another|disk|Flink|Dataflow))": "continue",
    r"(?<!dead )(?<!dead-)(?<!Dead )\b[Ll]etters?\b(?! case)": "dead letter",
    r"\banew\b": "again",
    r"\b(?:be|is|are) had\b": "be obtained",
    r"\bowes?\b": "must provide",
    r"\bdear\b": "expensive",
    r"\bof one's own\b": "own",
    r"\b(?:of|for|by|to|from) (?:whom|those who)\b|\bwhoever\b|\bwho reads\b": "callers, users or workers",
    r"\b[Aa]ll that (?:it|is|there)\b": "everything, or name the things",
    r"\bwant of\b|\bfor want\b": "without",
    r"\btakes? (?:it )?away\b|\btaken away\b": "remove",
    r"\bmended?\b|\bmends\b": "fix, correct",
}
"""Regular expressions, and what to write instead."""

_FIRST_WORDS = re.compile(r"(?:What|Whether|Where|Which|Who|That which|Those|One that)\b")
_WORDS = re.compile(r"\w+ \w+")


def texts(source: str) -> Iterator[tuple[int, str, bool]]:
    """Yield (line, text, whether it is a docstring) of a module's comments, and of its strings of several words."""
    tree = ast.parse(source)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(node, documented) and body and isinstance(body[0], ast.Expr):
            docstrings.add(id(body[0].value))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and _WORDS.search(node.value):
            yield node.lineno, node.value, id(node) in docstrings
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string, False


def found(path: Path) -> Iterator[str]:
    """Yield the phrases in a file, one line each."""
    source = path.read_text()
    if path.suffix == ".py":
        parts = texts(source)
    else:
        parts = ((number, line, False) for number, line in enumerate(source.splitlines(), 1))
    for line, text, is_docstring in parts:
        if is_docstring and _FIRST_WORDS.match(text):
            yield f"{path}:{line}: {text.split(chr(10))[0][:60]!r}: begin with a verb or the noun"
        for phrase, instead in PHRASES.items():
            for match in re.finditer(phrase, text):
                at = line + (text.count("\n", 0, match.start()) if path.suffix == ".py" else 0)
                yield f"{path}:{at}: {match[0]!r}: write {instead}"


def main() -> int:
    files = []
    for name in sys.argv[1:]:
        path = Path(name)
        files += sorted(p for p in path.rglob("*") if p.suffix in (".py", ".md")) if path.is_dir() else [path]
    lines = [line for file in files for line in found(file)]
    if lines:
        print("\n".join(lines))
    return bool(lines)


if __name__ == "__main__":
    sys.exit(main())
