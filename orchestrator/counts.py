"""Numbers with what is counted, as every message writes them: the one place for plurals."""

from collections.abc import Sequence

_OF_ONE = {"are": "is", "were": "was", "have": "has"}


def counted(number: float, noun: str, form: str = "") -> str:
    """Return a number with its noun: "1 CPU", "0.5 GPUs", "2 classes".

    Args:
        number: How many.
        noun: Of one: "CPU", "reverse step".
        form: How the number is written; left out, a float is written without needless zeros.
    """
    written = format(number, form or ("g" if isinstance(number, float) else "d"))
    return f"{written} {noun if number == 1 else plural(noun)}"


def few(names: Sequence[str], most: int = 3) -> str:
    """Return the first of some names and how many more there are: "a, b, c and 4 more"."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def does(number: float, verb: str) -> str:
    """Return a verb as it stands behind so many: "refers" of one, "refer" of several.

    Args:
        number: How many do it.
        verb: Of several: "refer", "were".
    """
    return _OF_ONE.get(verb, f"{verb}s") if number == 1 else verb


def plural(noun: str) -> str:
    """Return a noun in the plural: "CPUs", "classes", "tries"."""
    if noun.endswith(("s", "x", "ch", "sh")):
        return f"{noun}es"
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}s"
