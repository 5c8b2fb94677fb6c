"""Convert GSM8K, BoolQ or SST-2 rows to prompt + completion rows for `actshift train` and `actshift eval`.

    python prepare_benchmark.py path/to/gsm8k/train.jsonl.gz gsm8k-train.jsonl --limit 1000

The input has one JSON object {"task", "prompt_fields": {...}, "answer"} per line, plain or gzipped. Completions
contain only the answers, so that exact match can score them.
"""

from __future__ import annotations

import argparse
import gzip
import json
from itertools import islice
from pathlib import Path


def gsm8k(fields: dict, answer: dict) -> tuple[str, str]:
    return f"Question: {fields['question']}\nAnswer:", f" {answer['final']}"


def boolq(fields: dict, answer: bool) -> tuple[str, str]:
    passage = f"{fields['passage']}\n" if "passage" in fields else ""
    return f"{passage}Question: {fields['question']}?\nAnswer:", " yes" if answer else " no"


def sst2(fields: dict, answer: int) -> tuple[str, str]:
    return f"Review: {fields['sentence'].strip()}\nSentiment:", " positive" if answer else " negative"


TASKS = {"gsm8k": gsm8k, "boolq": boolq, "sst2": sst2}


def convert(source: Path, target: Path, limit: int | None) -> int:
    opener = gzip.open if source.suffix == ".gz" else open
    count = 0
    with opener(source, "rt", encoding="utf-8") as lines, target.open("w", encoding="utf-8") as out:
        for line in islice(lines, limit):
            row = json.loads(line)
            prompt, completion = TASKS[row["task"]](row["prompt_fields"], row["answer"])
            out.write(json.dumps({"prompt": prompt, "completion": completion}, ensure_ascii=False) + "\n")
            count += 1
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, nargs="?")
    parser.add_argument("target", type=Path, nargs="?")
    parser.add_argument("--limit", type=int, help="number of rows to convert, from the start of the file")
    options = parser.parse_args()
    if options.source is None or options.target is None:
        parser.print_help()
        return
    print(f"{convert(options.source, options.target, options.limit):,} rows written to {options.target}.")


if __name__ == "__main__":
    main()
