"""The fact tables of data/facts/ as tasks: name -> list of (query, answer)."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

MAIN = ["capital", "currency", "latin", "young", "color", "flavor"]
FILLER = ["continent", "demonym", "class", "kind", "letter", "type"]
DOMAIN_TASKS = {
    "country": ["capital", "currency", "continent", "demonym", "letter", "type"],
    "animal": ["latin", "young", "class", "letter", "type"],
    "food": ["color", "flavor", "kind", "letter", "type"],
}
TASK_DOMAIN = {"capital": "country", "currency": "country", "latin": "animal", "young": "animal", "color": "food", "flavor": "food"}
TASK_FILE = {t: f"{d}-{t}" for t, d in TASK_DOMAIN.items()}

# How an attribute list names a fact.
KEYS = {
    "capital": "Capital", "currency": "Currency", "continent": "Continent", "demonym": "Demonym", "latin": "Latin",
    "young": "Young", "class": "Class", "color": "Color", "flavor": "Flavor", "kind": "Kind", "letter": "Letter",
    "type": "Type",
}

# Instruction wordings used in training; the first of a main task is the one in data/tasks/index.json.
WORDINGS = {
    "capital": ["The capital city of the country", "The capital of the country", "Name the capital of this country", "What is the capital"],
    "currency": ["The last word of the official currency of the country", "The currency used in the country", "Name the currency of this country", "What is the currency"],
    "latin": ["The scientific name of the animal's species in latin", "The latin name of the animal", "Name this animal in latin", "What is the latin name"],
    "young": ["The term for the baby of the animal", "The young of the animal", "Name the young of this animal", "What is the young called"],
    "color": ["The color of the food", "The color that this food has", "Name the color of this food", "What is the color"],
    "flavor": ["The flavor descriptor of the food", "The flavor of the food", "Name the flavor of this food", "What is the flavor"],
    "continent": ["The continent of the country", "Name the continent of this country"],
    "demonym": ["The people of the country", "Name the people of this country"],
    "class": ["The class of the animal", "Name the class of this animal"],
    "kind": ["The kind of the food", "Name the kind of this food"],
    "letter": ["The first letter of the word", "Name the first letter"],
}
# One wording a task that training never sees.
HELD_OUT_WORDINGS = {
    "capital": "The city that is the capital of this country",
    "currency": "The official currency of this country",
    "latin": "The scientific name of this animal",
    "young": "The name for the young of this animal",
    "color": "What color this food has",
    "flavor": "The flavor that this food has",
}


def _table(name):
    header, *rows = (ROOT / "data/facts" / name).read_text().rstrip("\n").split("\n")
    columns = header.split("\t")
    return [dict(zip(columns, row.split("\t"), strict=True)) for row in rows]


_TABLES = {"country": _table("countries.tsv"), "animal": _table("animals.tsv"), "food": _table("foods.tsv")}
ENTITIES = {domain: [row["name"] for row in rows] for domain, rows in _TABLES.items()}
DOMAIN = {name: domain for domain, names in ENTITIES.items() for name in names}

FACT = {}
for _domain, _rows in _TABLES.items():
    for _task in DOMAIN_TASKS[_domain]:
        _column = FACT.setdefault(_task, {})
        for _row in _rows:
            _value = {"letter": _row["name"][0].upper(), "type": _domain}.get(_task) or _row.get(_task, "")
            if _value:
                _column[_row["name"]] = _value
TASKS = {task: list(column.items()) for task, column in FACT.items()}
