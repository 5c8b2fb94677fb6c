"""Compare the methods on a real model: ``python scripts/real_results.py --model smollm2 --data-dir DIR --out OUT``.

DIR has the datasets that real_rows.py reads, and OUT keeps the comparisons. The studies are in real_study.py, and the
methods in real_methods.yaml. The record of each cell is copied to docs/results/real as soon as the cell ends. The same
command continues from these records, also on another machine.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from real_models import MODELS, model_folder
from real_study import SCRIPTS, STUDIES, export_records, import_records

from actshift.compare.compare import Progress, compare


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=MODELS, required=True)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=2, help="cells at a time (default: 2)")
    parser.add_argument("--precision", default="bf16", help="precision of the training (default: bf16)")
    parser.add_argument("--study", action="append", help="only this study (repeatable)")
    arguments = parser.parse_args()
    out, model = arguments.out / arguments.model, arguments.model
    rows = arguments.out / "rows"
    command = [sys.executable, str(SCRIPTS / "real_rows.py"), "--data-dir", str(arguments.data_dir), str(rows)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    for study in STUDIES[model]:
        if arguments.study and study.name not in arguments.study:
            continue
        settings = study.settings(model_folder(model), rows, out, arguments.jobs, arguments.precision)
        import_records(model, study, out)

        def report(progress: Progress, study=study) -> None:
            export_records(model, study, out)
            if progress.news:
                print(f"{study.name} {progress.done}/{progress.cells}  {progress.news}", flush=True)

        compare(settings, report)
        export_records(model, study, out)


if __name__ == "__main__":
    main()
