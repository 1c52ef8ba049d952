"""
The numbers a scenario has: their names, units, bounds and defaults.

Decides nothing about how a scenario is read (`scenario.py`) or what is planned from it (`planners.py`). Every number
carries its own description; the JSON Schema under docs/schemas and the commented scenario that `liveroom-loadtest new`
writes are made from them, so there is one place to read and one to change.

Durations are seconds, moments are seconds from the start of the run, money is cents.
"""

from typing import Annotated, Final

from msgspec import Meta, Struct

from loadtest.arrivals import ArrivalProcess

#: Rooms of one run; each has a console of its own.
ROOMS_MAX: Final = 50


class Section(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Base of every section: a field it does not have is an error."""


class Viewers(Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How many come, how fast, and how long they stay."""

    count: Annotated[
        int, Meta(ge=1, le=1_000_000, description="Viewers present at the same time, over all rooms.")
    ] = 2000
    ramp_s: Annotated[
        float,
        Meta(description="Seconds over which they join. Below zero: a sixth of `seconds`, at most 10."),
    ] = -1
    dwell_s: Annotated[
        float,
        Meta(
            ge=0,
            le=86_400,
            description="Median stay. Stays are log-normal, and whoever leaves is replaced. 0: all stay.",
        ),
    ] = 0
    dwell_sigma: Annotated[
        float,
        Meta(ge=0, le=4, description="Spread of the stays: the standard deviation of their logarithm."),
    ] = 1.0


class Rooms(Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The rooms viewers spread over. Sales, packets and other moments happen in the largest, the main room."""

    count: Annotated[int, Meta(ge=1, le=ROOMS_MAX, description="Rooms, each with a console.")] = 1
    zipf: Annotated[
        float,
        Meta(ge=0, le=4, description="Room n draws viewers in proportion to 1 / n to this power (Zipf)."),
    ] = 1.0


class Comments(Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Comments over all viewers."""

    per_s: Annotated[
        float,
        Meta(ge=0, le=1_000_000, description="Per second, over all rooms; in the ramp, by those present."),
    ] = 40
    arrivals: Annotated[
        ArrivalProcess, Meta(description="poisson: independent people; uniform: equal distances.")
    ] = "poisson"
    size_exponent: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="A room of n talks in proportion to n to this power: below 1, each viewer of a larger "
            "room says less.",
        ),
    ] = 0.6
    at_viewers: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="Size of the room for which `per_s` is meant; others talk by their size. 0: `per_s` is "
            "what all rooms say together.",
        ),
    ] = 0


class Likes(Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Taps over all viewers, sent in batches."""

    per_s: Annotated[
        float, Meta(ge=0, le=1_000_000, description="Taps per second, over all viewers of all rooms.")
    ] = 200
    batch_mean: Annotated[float, Meta(ge=1, le=50, description="Mean taps sent at once; 50 at most.")] = 10
    arrivals: Annotated[ArrivalProcess, Meta(description="Of batches: poisson or uniform.")] = "poisson"


class Facts(Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Commands of each room's console that change notice, shelf and what is explained."""

    per_s: Annotated[float, Meta(ge=0, le=1_000_000, description="Changes per second.")] = 1
    items: Annotated[int, Meta(ge=1, le=400, description="Items on the shelf at most.")] = 12


class Shares(Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Viewers who come through somebody's link."""

    via_ratio: Annotated[
        float, Meta(ge=0, le=1, description="Of all viewers: those who come through the link of one present.")
    ] = 0
    forged_ratio: Annotated[
        float, Meta(ge=0, le=1, description="Of all viewers: those with a link that nobody signed.")
    ] = 0
    branching: Annotated[
        float,
        Meta(ge=1, le=100, description="Viewers brought, on average, by each of those who bring anybody."),
    ] = 1.3


class Habits(Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What some viewers do with their connection. Only `plays = "crowd"` knows all of them."""

    slow_share: Annotated[
        float, Meta(ge=0, le=1, description="Of the viewers: those who read slowly until the show is over.")
    ] = 0
    slow_bytes_s: Annotated[
        int, Meta(ge=100, le=10_000_000, description="Bytes per second a slow reader takes.")
    ] = 4000
    background_share: Annotated[
        float,
        Meta(ge=0, le=1, description="Of the viewers: those who put the app away now and then, and resume."),
    ] = 0
    background_every_s: Annotated[
        float, Meta(ge=2, le=86_400, description="Mean time in the foreground.")
    ] = 40
    background_s: Annotated[float, Meta(ge=0.5, le=3600, description="Median time in the background.")] = 8
    flapper_share: Annotated[
        float, Meta(ge=0, le=1, description="Of the viewers: those whose connection breaks again and again.")
    ] = 0
    flapper_every_s: Annotated[
        float, Meta(ge=2, le=3600, description="Mean time between two breaks of a flapper.")
    ] = 6
    flapper_away_s: Annotated[
        float, Meta(ge=0.2, le=60, description="Time a flapper needs to come back.")
    ] = 0.5


class _Stampede(Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What a sale and the rush for it are made of."""

    stock: Annotated[int, Meta(ge=1, le=1_000_000, description="Units on sale.")] = 100
    claims: Annotated[
        int, Meta(ge=1, le=2_000_000, description="Claims over all viewers, repeated ones included.")
    ] = 20_000
    per_viewer: Annotated[int, Meta(ge=1, le=1000, description="Units one viewer may hold.")] = 1
    price_cents: Annotated[int, Meta(ge=0, le=100_000_000, description="Price of a unit.")] = 4900
    hold_s: Annotated[int, Meta(ge=1, le=86_400, description="Time a unit is held unpaid.")] = 300
    notice_s: Annotated[
        float, Meta(ge=0.5, le=600, description="Time between announcing the sale and its start.")
    ] = 3
    burst_s: Annotated[
        float,
        Meta(gt=0, le=600, description="Time after the start in which `burst_share` of the claims come."),
    ] = 2
    burst_share: Annotated[float, Meta(ge=0, le=1, description="Of all claims: those in the burst.")] = 0.9
    early_share: Annotated[float, Meta(ge=0, le=1, description="Of all claims: those before the start.")] = (
        0.02
    )
    same_key_share: Annotated[
        float,
        Meta(ge=0, le=1, description="Of repeated claims: those with the same key, the rest have new ones."),
    ] = 0.3
    cut_share: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="Of the claims likely to win: those whose connection is cut before the answer.",
        ),
    ] = 0.2
    pay_ratio: Annotated[float, Meta(ge=0, le=1, description="Of the winners: those who pay.")] = 0
    pay_late_ratio: Annotated[
        float, Meta(ge=0, le=1, description="Of those who pay: those who do so after their hold has ended.")
    ] = 0.1


class Seckill(_Stampede, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The sale of `plays = "seckill"`, and the stampede for it."""

    over_s: Annotated[
        float,
        Meta(ge=0.5, le=600, description="Time between the end of the sale and of the run: claims too late."),
    ] = 1.5


class _Rain(Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What red packets and the rush for them are made of."""

    packets: Annotated[int, Meta(ge=1, le=100, description="Packets, one after the other.")] = 3
    shares: Annotated[int, Meta(ge=1, le=100_000, description="Shares of each packet.")] = 200
    total_cents: Annotated[
        int,
        Meta(ge=1, le=1_000_000_000, description="Money in each; up to a tenth more, so no two are alike."),
    ] = 20_000
    grabbers: Annotated[int, Meta(ge=1, le=1_000_000, description="Viewers who grab each of them.")] = 2000
    notice_s: Annotated[
        float, Meta(ge=0.5, le=600, description="Time between announcing a packet and its opening.")
    ] = 1.5
    every_s: Annotated[float, Meta(ge=0.5, le=600, description="Time between two openings.")] = 2.5
    burst_s: Annotated[
        float, Meta(gt=0, le=600, description="Time after the opening in which everybody grabs.")
    ] = 1
    early_share: Annotated[
        float, Meta(ge=0, le=1, description="Of the grabbers: those who also try too early.")
    ] = 0.02
    again_share: Annotated[
        float, Meta(ge=0, le=1, description="Of the grabbers: those who grab twice, half with the same key.")
    ] = 0.2
    cut_share: Annotated[
        float, Meta(ge=0, le=1, description="Of the grabbers: those whose connection is cut right after.")
    ] = 0.1


class RedPacket(_Rain, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The packets of `plays = "redpacket"`."""

    expire_one: Annotated[
        bool,
        Meta(description="One packet more, of which a quarter of the shares is grabbed before it expires."),
    ] = True
    expires_s: Annotated[
        int, Meta(ge=1, le=600, description="Time until that one expires; the others have a minute.")
    ] = 3


class Drain(Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How long the end may take."""

    deadline_s: Annotated[
        float,
        Meta(gt=0, le=86_400, description="Time for every reply, then again for all to hold the last fact."),
    ] = 20


class Honesty(Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """When the generator itself was too slow for its result to count: exit code 4, never a pass."""

    late_ms: Annotated[
        int, Meta(ge=1, description="A step taken this many milliseconds late counts as late.")
    ] = 250
    late_share_max: Annotated[float, Meta(ge=0, le=1, description="Late steps that are tolerated.")] = 0.01
    cpu_share_max: Annotated[float, Meta(gt=0, description="Share of a core a generator may use …")] = 0.95
    cpu_sustained_s: Annotated[int, Meta(ge=1, description="… for this long without a break.")] = 5
    stall_ms_max: Annotated[
        int, Meta(ge=100, description="Longest time, in milliseconds, a generator may stand still.")
    ] = 2000
    silent_s: Annotated[
        float, Meta(ge=1, le=600, description="A generator silent for so long ends the run.")
    ] = 15


# --- the moments of a show ------------------------------------------------------------------------------------


class Moment(Section, kw_only=True, frozen=True, forbid_unknown_fields=True, tag_field="does"):
    """One named thing that happens in the main room of `plays = "crowd"`."""

    at_s: Annotated[
        float, Meta(ge=0, le=86_400, description="When it begins, from the start of the run, ramp included.")
    ]


class Notice(Moment, kw_only=True, frozen=True, forbid_unknown_fields=True, tag="notice"):
    """The console sets the notice."""

    text: Annotated[str, Meta(min_length=1, max_length=60, description="What it says.")] = "欢迎来到直播间"


class Explain(Moment, kw_only=True, frozen=True, forbid_unknown_fields=True, tag="explain"):
    """The console puts items on the shelf and explains one after the other."""

    items: Annotated[int, Meta(ge=1, le=100, description="Items.")] = 3
    every_s: Annotated[float, Meta(ge=0.5, le=600, description="Time for each.")] = 4


class Rush(Moment, kw_only=True, frozen=True, forbid_unknown_fields=True, tag="rush"):
    """More talk and taps than usual, on top of what goes on anyway."""

    lasts_s: Annotated[float, Meta(gt=0, le=3600, description="How long.")] = 5
    comments_per_s: Annotated[float, Meta(ge=0, le=100_000, description="More comments per second.")] = 0
    likes_per_s: Annotated[float, Meta(ge=0, le=1_000_000, description="More taps per second.")] = 0


class Quiz(Moment, kw_only=True, frozen=True, forbid_unknown_fields=True, tag="quiz"):
    """The host asks by a notice, viewers answer by a comment, most of them at once."""

    question: Annotated[str, Meta(min_length=1, max_length=60, description="What the notice says.")] = (
        "抢答:铁观音产自哪里?A 安溪 B 普洱 C 信阳"
    )
    lasts_s: Annotated[float, Meta(gt=0, le=600, description="Time for the answers.")] = 6
    share: Annotated[float, Meta(ge=0, le=1, description="Of the viewers present: those who answer.")] = 0.3


class Sale(_Stampede, kw_only=True, frozen=True, forbid_unknown_fields=True, tag_field="does", tag="sale"):
    """A seckill, announced at `at_s`, with the stampede for it."""

    at_s: Annotated[
        float,
        Meta(ge=0, le=86_400, description="When it is announced, from the start of the run, ramp included."),
    ]
    lasts_s: Annotated[float, Meta(ge=1, le=3600, description="Time from its start to its end.")] = 10


class Packets(_Rain, kw_only=True, frozen=True, forbid_unknown_fields=True, tag_field="does", tag="packets"):
    """Red packets one after the other, the first announced at `at_s`."""

    at_s: Annotated[
        float,
        Meta(
            ge=0,
            le=86_400,
            description="When the first is announced, from the start of the run, ramp included.",
        ),
    ]
    expires_s: Annotated[int, Meta(ge=1, le=600, description="Time until each expires.")] = 15


class Arrive(Moment, kw_only=True, frozen=True, forbid_unknown_fields=True, tag="arrive"):
    """Many more viewers come at once, as after a push message."""

    viewers: Annotated[int, Meta(ge=1, le=1_000_000, description="How many.")] = 1000
    over_s: Annotated[float, Meta(ge=0, le=600, description="Within this time.")] = 1


class Storm(Moment, kw_only=True, frozen=True, forbid_unknown_fields=True, tag="storm"):
    """Connections break all at once, as when a proxy restarts, and come back within `spread_s`."""

    share: Annotated[float, Meta(ge=0, le=1, description="Of the viewers present: those who are cut.")] = 1
    away_s: Annotated[float, Meta(ge=0.2, le=600, description="Time until the first are back.")] = 0.5
    spread_s: Annotated[float, Meta(ge=0, le=600, description="Time over which they return.")] = 2


class Goodbye(Moment, kw_only=True, frozen=True, forbid_unknown_fields=True, tag="goodbye"):
    """The host says goodbye and viewers leave; nobody comes any more."""

    share: Annotated[float, Meta(ge=0, le=1, description="Of the viewers present: those who leave.")] = 0.6
    over_s: Annotated[float, Meta(ge=0, le=600, description="Time over which they leave.")] = 8


AnyMoment = Notice | Explain | Rush | Quiz | Sale | Packets | Arrive | Storm | Goodbye
