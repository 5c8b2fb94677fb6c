"""Two made-up rows for each task, with all columns and types of its dataset on the hub.

The layouts are from the dataset cards and from public code that reads the datasets, November 2026.
"""

from __future__ import annotations

from typing import Any

ARC = [
    {
        "id": "a1",
        "question": "Which animal lays eggs?",
        "choices": {"text": ["hen", "cow", "cat", "dog"], "label": ["A", "B", "C", "D"]},
        "answerKey": "A",
    },
    {
        "id": "a2",  # some rows of ARC number their choices
        "question": "Which one is a planet?",
        "choices": {"text": ["the sun", "the moon", "Mars", "Vega"], "label": ["1", "2", "3", "4"]},
        "answerKey": "3",
    },
]

HUB: dict[str, list[dict[str, Any]]] = {
    "alpaca": [
        {"instruction": "Name a colour.", "input": "", "output": "Red.", "text": "Below is an instruction … Red."},
        {"instruction": "Add them.", "input": "1 and 2", "output": "3", "text": "Below is an instruction … 3"},
    ],
    "aqua_rat": [
        {"question": "What is 2 + 3?", "options": ["A)4", "B)5", "C)6", "D)7", "E)8"],
         "rationale": "2 + 3 = 5.\nAnswer is B", "correct": "B"},
        {"question": "Half of 18?", "options": ["A)9", "B)8", "C)7", "D)6", "E)5"], "rationale": "9", "correct": "A"},
    ],
    "arc_challenge": ARC,
    "arc_easy": ARC,
    "asdiv": [
        {"id": "n1", "question": "2 cats have 4 legs each. How many legs?", "chain": "<gadget>2*4</gadget>",
         "result": "8", "result_float": 8.0, "result_unit": "legs", "grade": 2, "source_question": "…"},
        {"id": "n2", "question": "3 halves make how much?", "chain": "<gadget>3/2</gadget>",
         "result": "3/2", "result_float": 1.5, "result_unit": "", "grade": 4, "source_question": "…"},
    ],
    "boolq": [
        {"question": "is ice cold", "answer": True, "passage": "Ice is frozen water. It is cold."},
        {"question": "is fire cold", "answer": False, "passage": "Fire is hot."},
    ],
    "gsm8k": [
        {"question": "Two dozen eggs?", "answer": "There are 2*12 = <<2*12=24>>24 eggs.\n#### 24"},
        {"question": "How many grams are 1.2 kg?", "answer": "1.2*1000 = <<1.2*1000=1200>>1200\n#### 1,200"},
    ],
    "mawps": [
        {"Question": "Tom has N_00 hats and buys N_01 . How many hats now ?", "Numbers": "3.0 2.0",
         "Equation": "+ N_00 N_01", "Answer": 5.0, "group_nums": "[1, 2]", "Body": "Tom has N_00 hats",
         "Ques_Statement": "How many hats now ?"},
        {"Question": "N_00 litres are shared by N_01 . How much has each ?", "Numbers": "2.5 3.0",
         "Equation": "/ N_00 N_01", "Answer": 0.8333333333333334, "group_nums": "[0]", "Body": "",
         "Ques_Statement": "How much has each ?"},
    ],
    "mnli": [
        {"premise": "It rains.", "hypothesis": "It is wet outside.", "label": 0, "idx": 0},
        {"premise": "It rains.", "hypothesis": "It is Monday.", "label": 1, "idx": 1},
    ],
    "openbookqa": [
        {"id": "o1", "question_stem": "Ice floats on", "answerKey": "D",
         "choices": {"text": ["air", "sand", "rock", "water"], "label": ["A", "B", "C", "D"]}},
        {"id": "o2", "question_stem": "Plants need", "answerKey": "B",
         "choices": {"text": ["shoes", "light", "music", "salt"], "label": ["A", "B", "C", "D"]}},
    ],
    "social_iqa": [
        {"context": "Kim lost the key.", "question": "How does Kim feel?", "answerA": "glad", "answerB": "annoyed",
         "answerC": "sleepy", "label": "2"},
        {"context": "Lee won.", "question": "What will Lee do?", "answerA": "cheer", "answerB": "weep",
         "answerC": "sleep", "label": "1"},
    ],
    "sst2": [
        {"sentence": "a joy to watch ", "label": 1, "idx": 0},
        {"sentence": "a waste of time ", "label": 0, "idx": 1},
    ],
    "svamp": [
        {"ID": "chal-1", "Body": "There are 9 birds. 4 fly away.", "Question": "How many birds are left?",
         "Equation": "( 9.0 - 4.0 )", "Answer": "5", "Type": "Subtraction",
         "question_concat": "There are 9 birds. 4 fly away. How many birds are left?"},
        {"ID": "chal-2", "Body": "A pen costs 1.5 dollars.", "Question": "What do 3 cost?",
         "Equation": "( 1.5 * 3.0 )", "Answer": "4.5", "Type": "Multiplication",
         "question_concat": "A pen costs 1.5 dollars. What do 3 cost?"},
    ],
    "winogrande": [
        {"sentence": "The bag broke the chair as the _ was heavy.", "option1": "bag", "option2": "chair",
         "answer": "1"},
        {"sentence": "Ann asked Eve, and _ answered.", "option1": "Ann", "option2": "Eve", "answer": "2"},
    ],
}  # fmt: skip

ANSWERS = {
    "alpaca": ["Red.", "3"],
    "aqua_rat": ["B", "A"],
    "arc_challenge": ["A", "C"],
    "arc_easy": ["A", "C"],
    "asdiv": ["8", "1.5"],
    "boolq": ["yes", "no"],
    "gsm8k": ["24", "1200"],
    "mawps": ["5", "0.833333"],
    "mnli": ["entailment", "neutral"],
    "openbookqa": ["D", "B"],
    "social_iqa": ["B", "A"],
    "sst2": ["positive", "negative"],
    "svamp": ["5", "4.5"],
    "winogrande": ["A", "B"],
}
COMMITS = {
    "alpaca": ("tatsu-lab/alpaca", None, "dce01c9b"),
    "aqua_rat": ("deepmind/aqua_rat", "raw", "33301c6a"),
    "arc_challenge": ("allenai/ai2_arc", "ARC-Challenge", "210d026f"),
    "arc_easy": ("allenai/ai2_arc", "ARC-Easy", "210d026f"),
    "asdiv": ("MU-NLPC/Calc-asdiv_a", "default", "520a6910"),
    "boolq": ("google/boolq", None, "35b264d0"),
    "gsm8k": ("openai/gsm8k", "main", "740312ad"),
    "mawps": ("mwpt5/MAWPS", None, "5769dc9a"),
    "mnli": ("nyu-mll/glue", "mnli", "bcdcba79"),
    "openbookqa": ("allenai/openbookqa", "main", "388097ea"),
    "social_iqa": ("allenai/social_i_qa", "default", "537a2ec8"),
    "sst2": ("nyu-mll/glue", "sst2", "bcdcba79"),
    "svamp": ("ChilleD/SVAMP", None, "5e0bf1e5"),
    "winogrande": ("allenai/winogrande", "winogrande_debiased", "01e74176"),
}
