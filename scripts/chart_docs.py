"""The derived parts of the chart; scripts/chart-docs calls this with the program's JSON Schema."""

import json
import re
import sys
from pathlib import Path

import yaml

CHART = Path("helm/invite-relay")
BEGIN, END = "<!-- values: written by scripts/chart-docs -->\n", "<!-- end of values -->\n"


def described(text):
    """(path of a key, its comment) for each key with a comment that begins with "# --", in the file's order."""
    path, comment = [], None
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if stripped.startswith("# --"):
            comment = stripped.removeprefix("# --").strip()
        elif stripped.startswith("#") and comment is not None:
            comment += " " + stripped.removeprefix("#").strip()
        elif match := re.match(r"^( *)([A-Za-z_]+):", line):
            path = path[: len(match[1]) // 2] + [match[2]]
            if comment is not None:
                yield tuple(path), comment
            comment = None
        elif comment is not None:
            sys.exit(f"values.yaml:{number}: no key follows the comment")


def leaves(values, path=()):
    """The path of each key that has no keys below it."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key)


def table():
    """README's table. Every key has a comment, its own or of one above it."""
    text = (CHART / "values.yaml").read_text()
    values = yaml.safe_load(text)
    comments = dict(described(text))
    bare = [path for path in leaves(values) if not any(path[: n + 1] in comments for n in range(len(path)))]
    if bare:
        sys.exit("values.yaml: no comment above " + ", ".join(".".join(path) for path in bare))
    rows = ["| value | default | what it does |", "|---|---|---|"]
    for path, comment in comments.items():
        default = values
        for key in path:
            default = default[key]
        # What is said key by key below is not said twice.
        below = any(other != path and other[: len(path)] == path for other in comments)
        shown = "" if below else f"`{json.dumps(default, ensure_ascii=False)}`"
        rows.append(f"| `{'.'.join(path)}` | {shown} | {comment.replace('|', chr(92) + '|')} |")
    return "\n".join(rows) + "\n"


def readme(old):
    before, rest = old.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def schema(old, program):
    document = json.loads(old)
    program.pop("$schema", None)
    document["$defs"]["config"] = program
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def main():
    program = json.loads(Path(sys.argv[1]).read_text())
    check = "--check" in sys.argv[2:]
    stale = False
    for name, derive in [("README.md", readme), ("values.schema.json", lambda old: schema(old, program))]:
        path = CHART / name
        old = path.read_text()
        new = derive(old)
        if new != old:
            stale = True
            print(f"{path}: " + ("is not what its sources say; run scripts/chart-docs" if check else "written"))
            if not check:
                path.write_text(new)
    sys.exit(1 if check and stale else 0)


main()
