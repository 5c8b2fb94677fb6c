"""ARC-Challenge: the hard questions of the AI2 Reasoning Challenge, at school's level of science.

Clark et al., *Think you have Solved Question Answering? Try ARC*, 2018 (arXiv 1803.05457). The hub has three splits;
the local files lack the validation split, for which a tenth of the training rows is cut off.
"""

from __future__ import annotations

from actshift.tasks.benchmarks._science import arc

TASK = arc("arc_challenge", "Science, hard", "ARC-Challenge", rows={"train": 1119, "validation": 299, "test": 1172})
