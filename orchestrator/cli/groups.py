"""Groups of verbs that forgive: `-o json` before the verb, and a verb that is mistyped."""

import difflib

import click
from click.exceptions import UsageError

_OUTPUT = ("-o", "--output")


class VerbGroup(click.Group):
    """A group whose verbs take `-o` from before them, and which knows verbs that are near."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Move `-o json` from before the verb behind it, where each verb takes it."""
        return super().parse_args(ctx, behind_the_verb(args))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb; of one that is not there, name those that are near."""
        try:
            return super().resolve_command(ctx, args)
        except UsageError as error:
            near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=2, cutoff=0.55)
            if not near:
                raise
            ctx.fail(f"there is no verb {args[0]!r}; did you mean {' or '.join(near)}?")
            raise AssertionError from error


def behind_the_verb(args: list[str]) -> list[str]:
    """Return the arguments with an output option that stands before a verb behind all others."""
    head, rest = [], list(args)
    while rest and rest[0].startswith("-"):
        word = rest[0]
        if word in _OUTPUT and len(rest) > 1:
            head += rest[:2]
            rest = rest[2:]
        elif word.startswith(("-ojson", "-otext", "--output=")):
            head.append(rest.pop(0))
        else:
            return args
    if not rest:
        return args
    end = rest.index("--") if "--" in rest else len(rest)
    return [*rest[:end], *head, *rest[end:]]
