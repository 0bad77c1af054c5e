"""How many examples a property is tried on."""

from hypothesis import settings


def examples(all_of_them: int) -> int:
    """Return a number of examples: all of them, or a quarter where a quick look was asked for."""
    is_quick = settings.get_current_profile_name() == "quick"
    return max(1, all_of_them // 4) if is_quick else all_of_them
