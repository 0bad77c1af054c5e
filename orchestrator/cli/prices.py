"""The verb `prices`: what an hour of a GPU costs, so that `status` can say what a job cost."""

import click

from orchestrator.cli.groups import VerbGroup
from orchestrator.cli.output import Output, output_option
from orchestrator.client.surroundings import Start, surroundings
from orchestrator.jobs.prices import read_prices, set_price
from orchestrator.lifecycle.cost import Prices


@click.group("prices", cls=VerbGroup)
def prices_command() -> None:
    """What an hour of a GPU costs."""


@prices_command.command("set")
@click.argument("accelerator")
@click.argument("per_hour", type=float)
@click.option("--currency", help="Of all prices: USD unless said otherwise.")
@output_option
def set_command(accelerator: str, per_hour: float, currency: str | None, output: Output) -> None:
    r"""Set what one GPU of a type costs for an hour; `nodes` shows the types.

    \b
    Examples:
      ddpmctl prices set H100 2.49 --currency EUR
    """
    store = surroundings(output.say, Start.FRESH).store
    prices = set_price(store, accelerator, per_hour, currency)
    output.result(prices, _describe(prices))


@prices_command.command("remove")
@click.argument("accelerator")
@output_option
def remove_command(accelerator: str, output: Output) -> None:
    """Forget the price of a type: costs in which it has a part are unknown then."""
    prices = set_price(surroundings(output.say, Start.FRESH).store, accelerator, None)
    output.result(prices, _describe(prices))


@prices_command.command("show")
@output_option
def show_command(output: Output) -> None:
    """Show the prices."""
    prices = read_prices(surroundings(output.say).store)
    output.result(prices, _describe(prices))


def _describe(prices: Prices) -> str:
    lines = [
        f"{name}: {price:g} {prices.currency} an hour"
        for name, price in sorted(prices.per_hour.items())
    ]
    return "\n".join(lines) or "no GPU has a price"
