#!/usr/bin/env bash
# jsonargparse 4.53.0 with PyYAML 6.0.3: the keys of a `dict[str, int]` need not be strings.
#
# Expected: `{no: 0, yes: 1}`, the answers of a classification and their classes, has the keys "no"
#   and "yes", or is refused as not of the type, as `[no, yes]` for a `list[str]` is.
# Seen: it is accepted as {False: 0, True: 1}, from the command line as from a file. YAML 1.1 takes no
#   and yes for booleans; values are checked against the type, keys are not unless it is `dict[int,
#   ...]`. Looked up by name, "yes" is not there; and with `{1: one, yes: two}` as `dict[str, str]` a
#   whole entry is gone, since 1 and True are one key to Python. Quoted keys are right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q jsonargparse==4.53.0 PyYAML==6.0.3
cd "$folder"
cat > keys.py <<'PY'
from jsonargparse import ArgumentParser


def read(kind, text, by_file):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--given", type=kind)
    parser.add_argument("--config", action="config")
    if by_file:
        with open("config.yaml", "w") as file:
            file.write(f"given: {text}\n")
    try:
        return parser.parse_args(["--config=config.yaml"] if by_file else [f"--given={text}"]).given
    except Exception as raised:
        return type(raised).__name__


for kind, text in (
    (list[str], "[no, yes]"),
    (dict[str, int], "{no: 0, yes: 1}"),
    (dict[str, str], "{1: one, yes: two}"),
    (dict[str, int], "{'no': 0, 'yes': 1}"),
):
    print(f"{kind}, {text}: argument {read(kind, text, False)}, file {read(kind, text, True)}")
PY
cat > expected <<'TXT'
list[str], [no, yes]: argument ArgumentError, file ArgumentError
dict[str, int], {no: 0, yes: 1}: argument {False: 0, True: 1}, file {False: 0, True: 1}
dict[str, str], {1: one, yes: two}: argument {1: 'two'}, file {1: 'two'}
dict[str, int], {'no': 0, 'yes': 1}: argument {'no': 0, 'yes': 1}, file {'no': 0, 'yes': 1}
TXT
"$folder/venv/bin/python" keys.py 2> errors | tee seen || { cat errors; exit 1; }
diff expected seen && echo "As described: jsonargparse 4.53.0 lets keys of other types through."
