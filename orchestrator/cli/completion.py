"""The verbs `completion` and `help`."""

import click
from click.shell_completion import get_completion_class

from orchestrator.cli.manual import manual_page
from orchestrator.errors import BadInputError

_PROGRAM, _VARIABLE = "ddpmctl", "_DDPMCTL_COMPLETE"


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion_command(context: click.Context, shell: str) -> None:
    r"""Print the completion of a shell: verbs, options and job ids.

    \b
    Examples:
      eval "$(ddpmctl completion bash)"                      (in ~/.bashrc)
      eval "$(ddpmctl completion zsh)"                       (in ~/.zshrc)
      ddpmctl completion fish > ~/.config/fish/completions/ddpmctl.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 - click knows these three
    root = context.find_root().command
    click.echo(kind(root, {}, _PROGRAM, _VARIABLE).source())


@click.command("help")
@click.argument("verbs", nargs=-1, metavar="[VERB]...")
@click.option("--man", "as_manual", is_flag=True, help="All verbs as a manual page, for `man`.")
@click.pass_context
def help_command(context: click.Context, verbs: tuple[str, ...], as_manual: bool) -> None:
    r"""Show what a verb does, with its options.

    \b
    Examples:
      ddpmctl help submit
      ddpmctl help samples export
      ddpmctl help --man > ~/.local/share/man/man1/ddpmctl.1
    """
    here = context.find_root()
    if as_manual:
        click.echo(manual_page(here))
        return
    for verb in verbs:
        group = here.command
        inner = group.get_command(here, verb) if isinstance(group, click.Group) else None
        if inner is None:
            raise BadInputError(f"there is no verb {' '.join(verbs)}; see `ddpmctl --help`")
        here = click.Context(inner, info_name=verb, parent=here)
    click.echo(here.get_help())
