#!/usr/bin/env bash
# transformers 5.23.0: GPT2Tokenizer given its files by the names of version 4 knows no token.
#
# Expected: `vocab_file=` and `merges_file=`, the names under which this class took its files for
#   years and which stand in its `vocab_files_names` still, are read, or refused as unknown.
# Seen: both are taken and dropped without a word. The tokenizer has one token, <|endoftext|>, and
#   every text becomes an empty list of ids: whatever reads it sees empty texts, and goes on.
#   The names are `vocab=` and `merges=` now; `from_pretrained` on a folder is not concerned.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q transformers==5.23.0
cd "$folder"
cat > tokenizer.py <<'PY'
import json

from transformers import GPT2Tokenizer

with open("vocab.json", "w") as file:
    json.dump({token: i for i, token in enumerate(["a", "b", "c", "ab", "abc", "<|endoftext|>"])}, file)
with open("merges.txt", "w") as file:
    file.write("#version: 0.2\na b\nab c\n")
for names in (("vocab_file", "merges_file"), ("vocab", "merges")):
    tokenizer = GPT2Tokenizer(**dict(zip(names, ("vocab.json", "merges.txt"))))
    ids = tokenizer("abcab").input_ids
    print(f"{' and '.join(names)}: {len(tokenizer)} tokens, 'abcab' is {ids}")
PY
cat > expected <<'TXT'
vocab_file and merges_file: 1 tokens, 'abcab' is []
vocab and merges: 6 tokens, 'abcab' is [4, 3]
TXT
"$folder/venv/bin/python" tokenizer.py 2> errors | tee seen || { cat errors; exit 1; }
diff expected seen && echo "As described: transformers 5.23.0 drops the old names in silence."
