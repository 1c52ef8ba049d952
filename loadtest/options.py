"""
Numbers of a scenario as options of the command line.

Decides which numbers have an option of their own and what it is called, once for every command that makes a plan. All
the others are reached by `--set`.
"""

from typing import Annotated, Any, Final

import typer

Viewers = Annotated[int | None, typer.Option("--viewers", help="viewers.count")]
Seconds = Annotated[float | None, typer.Option("--seconds", help="Length of the steady phase.")]
Ramp = Annotated[float | None, typer.Option("--ramp", help="viewers.ramp_s")]
CommentsPerS = Annotated[float | None, typer.Option("--comments-per-s", help="comments.per_s")]
LikesPerS = Annotated[float | None, typer.Option("--likes-per-s", help="likes.per_s, in taps")]
FactsPerS = Annotated[float | None, typer.Option("--facts-per-s", help="facts.per_s")]
Stock = Annotated[int | None, typer.Option("--stock", help="seckill.stock")]
Claims = Annotated[int | None, typer.Option("--claims", help="seckill.claims, of all viewers")]
HoldS = Annotated[int | None, typer.Option("--hold-s", help="seckill.hold_s")]
PayRatio = Annotated[float | None, typer.Option("--pay-ratio", help="seckill.pay_ratio")]
Packets = Annotated[int | None, typer.Option("--packets", help="redpacket.packets")]
Shares = Annotated[int | None, typer.Option("--shares", help="redpacket.shares, of each packet")]
Grabbers = Annotated[int | None, typer.Option("--grabbers", help="redpacket.grabbers, of each packet")]
ExpireOne = Annotated[bool | None, typer.Option("--expire-one/--no-expire-one", help="redpacket.expire_one")]

#: Parameter of a command → the scenario's number.
NUMBERS: Final = {
    "viewers": "viewers.count",
    "seconds": "seconds",
    "ramp": "viewers.ramp_s",
    "comments_per_s": "comments.per_s",
    "likes_per_s": "likes.per_s",
    "facts_per_s": "facts.per_s",
    "stock": "seckill.stock",
    "claims": "seckill.claims",
    "hold_s": "seckill.hold_s",
    "pay_ratio": "seckill.pay_ratio",
    "packets": "redpacket.packets",
    "shares": "redpacket.shares",
    "grabbers": "redpacket.grabbers",
    "expire_one": "redpacket.expire_one",
}


def given(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return dotted names and values of those options among a command's parameters that were given."""
    return {
        name: parameters[parameter]
        for parameter, name in NUMBERS.items()
        if parameters[parameter] is not None
    }
