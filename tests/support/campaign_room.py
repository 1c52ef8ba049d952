"""
A room with campaigns, its functions called by hand with the keys and arguments of their headers.

Decides how sales, packets and links are asked for in tests, and how time passes: nobody waits, every moment the room
knows is moved into the past instead. Knows nothing of what should come out (`campaigns.py` does).
"""

import secrets
from typing import Any, Final

import orjson

from tests.support.stores import VIEWER, LuaRoom, fresh_key

Map = dict[str, Any]
#: (code, what came with it): the object of `ok`, or the fields of a refusal.
Said = tuple[str, Map]
#: A claim: (viewer, quantity, key, fingerprint, level, tags).
Claim = tuple[str, int, str, str, int, str]

MINUTE_MS: Final = 60_000
#: Where packed orders keep the moments that `pass_time` moves.
_HELD_AT, _PAY_BY = 6, 7


def said(reply: list[Any]) -> Said:
    """Return a coded reply as code and map."""
    code, *rest = reply
    text = rest[0] if rest else ""
    if text and not text.startswith("{"):
        text = "{" + text + "}"
    return code, orjson.loads(text) if text else {}


def ok(reply: list[Any]) -> Map:
    """Return what came with `ok`."""
    code, body = said(reply)
    assert code == "ok", reply
    return body


class CampaignRoom(LuaRoom):
    """A room in which things are sold, given away and shared."""

    # -- sales -------------------------------------------------------------------------------------------------

    def sale_keys(self, sale: str) -> list[str]:
        """The nine keys of the functions that move units."""
        n = self.names
        own = [n.sale(sale), n.sale_buyers(sale), n.sale_holds(sale)]
        return [*self.base, *own, n.orders, n.outbox, n.items]

    def schedule(
        self, sale: str = "s", *, item: str = "tea", price: int = 4_900, stock: int = 3, per_viewer: int = 1,
        starts_in: int = -MINUTE_MS, lasts: int = 60 * MINUTE_MS, hold_s: int = 300,
        eligible: str = "", gates: tuple[Any, ...] = ("", "", "", "", ""), **who: Any,
    ) -> Any:  # fmt: skip
        """Put units on sale, by default now and for an hour."""
        now = self.now()
        times = (now + starts_in, now + max(starts_in, 0) + lasts, hold_s * 1_000)
        args = (sale, item, price, stock, per_viewer, *times, eligible, *gates)
        own = (self.names.sale(sale), self.names.sales, self.names.items)
        return self.console("seckill_schedule", *args, keys=own, **who)

    def sell(self, sale: str = "s", **how: Any) -> None:
        """Put an item on the shelf and its units on sale."""
        self.put_item(how.get("item", "tea"))
        ok(self.schedule(sale, **how))

    def price_of(self, sale: str) -> int:
        """Cents of one unit."""
        return int(self.client.hget(self.names.sale(sale), "price_cents"))

    def adjust(self, sale: str, delta: int, **who: Any) -> Any:
        own = (self.names.sale(sale), self.names.items)
        return self.console("seckill_adjust", delta, keys=own, **who)

    def end(self, sale: str, **who: Any) -> Any:
        return self.console("seckill_end", keys=(self.names.sale(sale),), **who)

    def tick(self, sale: str) -> Any:
        return self.call("seckill_tick", self.sale_keys(sale), [self.vouched])

    def distrust(self, seen: dict[str, tuple[int, int]]) -> Any:
        keys = [*self.base, *map(self.names.sale, seen)]
        return self.call("seckill_distrust", keys, [number for pair in seen.values() for number in pair])

    def claims(self, sale: str, *claims: Claim) -> tuple[list[int], list[Said]]:
        """Claim for many viewers in one call; return the header and what each was told."""
        n = self.names
        keys = [*self.sale_keys(sale), n.viewer_orders, n.inviters, n.viewers, n.invited, n.bans]
        args: list[Any] = [self.vouched]
        for viewer, qty, key, fingerprint, level, tags in claims:
            keys.append(n.idempotency(viewer, "seckill.claim", key))
            args += [viewer, qty, fingerprint, level, tags]
        header, *replies = self.call("seckill_claim", keys, args)
        assert len(replies) == len(claims)
        return [int(number) for number in header], [said(reply) for reply in replies]

    def claim(
        self, viewer: str, sale: str = "s", qty: int = 1, *, key: str | None = None, fingerprint: str = "f1",
        level: int = 0, tags: str = ",,",
    ) -> Said:  # fmt: skip
        """Claim for one viewer."""
        return self.claims(sale, (viewer, qty, key or fresh_key(), fingerprint, level, tags))[1][0]

    def hold(self, viewer: str, sale: str = "s", qty: int = 1, **how: Any) -> str:
        """Claim for one viewer, who must get it; return the order."""
        code, body = self.claim(viewer, sale, qty, **how)
        assert code == "ok", (code, body)
        return str(body["order"])

    def cancel(
        self, viewer: str, order: str, sale: str = "s", *, key: str | None = None, fingerprint: str = "f1"
    ) -> Said:
        keys = [*self.sale_keys(sale), self.names.idempotency(viewer, "order.cancel", key or fresh_key())]
        return said(self.call("order_cancel", keys, [self.vouched, order, viewer, fingerprint]))

    def pay(self, order: str, payment: str, cents: int, sale: str = "s") -> Said:
        keys = [*self.sale_keys(sale), self.names.payments]
        return said(self.call("order_paid", keys, [self.vouched, order, payment, cents]))

    def refund(self, order: str, payment: str, sale: str = "s", *, restock: bool = True) -> Said:
        keys = [*self.sale_keys(sale), self.names.payments]
        return said(self.call("order_refunded", keys, [self.vouched, order, payment, int(restock)]))

    def order(self, order: str) -> Map:
        """Return one order as it stands."""
        return ok(self.call("order_read", [self.names.meta, self.names.orders], [order])[:2])

    def changes(self, after: int = 0, limit: int = 1_000) -> list[Map]:
        """Return the order changes after a cursor, as the shop pulls them."""
        page = self.call("orders_page", [self.names.meta, self.names.outbox], [after, limit])
        return [orjson.loads(json) for json in page[2::2]]

    def units(self, sale: str = "s") -> dict[str, int]:
        """Return the units of a sale, after checking that they add up."""
        names = ("stock", "left", "held", "sold")
        values = [int(value or 0) for value in self.client.hmget(self.names.sale(sale), names)]
        units = dict(zip(names, values, strict=True))
        assert units["stock"] == units["left"] + units["held"] + units["sold"], units
        assert min(values) >= 0, units
        return units

    def is_sold_out(self, item: str = "tea") -> bool:
        """Return the flag of the card."""
        json = self.client.hget(self.names.items, item)
        assert json is not None
        return bool(orjson.loads(json)["sold_out"])

    # -- red packets -------------------------------------------------------------------------------------------

    def send(
        self, packet: str = "p", parts: tuple[int, ...] = (30, 50, 20), *, total: int | None = None,
        shares: int | None = None, least: int = 1, opens_in: int | None = None, expires_s: int = 600,
        eligible: str = "", gates: tuple[Any, ...] = ("", "", "", "", ""), split: str = "lucky", **who: Any,
    ) -> Any:  # fmt: skip
        """Put money into the room."""
        n = self.names
        opens_at = "" if opens_in is None else self.now() + opens_in
        money = (
            sum(parts) if total is None else total,
            len(parts) if shares is None else shares,
            split,
            least,
        )
        args = (packet, *money, opens_at, expires_s * 1_000, eligible, *gates, ",".join(map(str, parts)))
        own = (n.packet(packet), n.packet_parts(packet), n.packets)
        return self.console("packet_send", *args, keys=own, **who)

    def cancel_packet(self, packet: str = "p", **who: Any) -> Any:
        n = self.names
        own = (n.packet(packet), n.packet_parts(packet), n.grants)
        return self.console("packet_cancel", keys=own, **who)

    def tick_packet(self, packet: str = "p") -> Any:
        n = self.names
        keys = [*self.base, n.packet(packet), n.packet_parts(packet), n.grants]
        return self.call("packet_tick", keys, [self.vouched])

    def grabs(self, packet: str, *grabs: Claim) -> list[Said]:
        """Grab for many viewers in one call; quantities mean nothing."""
        n = self.names
        own = [n.packet(packet), n.packet_parts(packet), n.packet_grabs(packet), n.grants, n.viewers]
        keys = [*self.base, *own, n.viewer_orders, n.invited, n.bans, n.viewer_grabs]
        args: list[Any] = [self.vouched]
        for viewer, _, key, fingerprint, level, tags in grabs:
            keys.append(n.idempotency(viewer, "redpacket.grab", key))
            sender = f'{{"id":"{viewer}","name":"{viewer}!","role":"viewer"}}'
            args += [viewer, fingerprint, level, tags, f'"{viewer}!"', sender]
        _, *replies = self.call("packet_grab", keys, args)
        assert len(replies) == len(grabs)
        return [said(reply) for reply in replies]

    def grab(
        self, viewer: str, packet: str = "p", *, key: str | None = None, fingerprint: str = "f1", level: int = 0,
        tags: str = ",,",
    ) -> Said:  # fmt: skip
        """Grab for one viewer."""
        return self.grabs(packet, (viewer, 1, key or fresh_key(), fingerprint, level, tags))[0]

    def money(self, packet: str = "p") -> dict[str, int]:
        """Return the sums of a packet, after checking that they add up."""
        names = ("total", "granted", "refunded", "shares", "grabbed")
        values = [int(value or 0) for value in self.client.hmget(self.names.packet(packet), names)]
        money = dict(zip(names, values, strict=True))
        parts = [int(part) for part in self.client.lrange(self.names.packet_parts(packet), 0, -1)]
        grabs = [int(cents) for cents in self.client.hvals(self.names.packet_grabs(packet))]
        money["left"] = sum(parts)
        assert money["total"] == money["granted"] + money["left"] + money["refunded"], money
        assert (money["granted"], money["grabbed"]) == (sum(grabs), len(grabs)), money
        return money

    def grants(self) -> list[dict[str, str]]:
        """Return the stream a payout reads, without the moments."""
        entries = [dict(fields) for _, fields in self.client.xrange(self.names.grants)]
        for entry in entries:
            del entry["at"]
        return entries

    # -- shares ------------------------------------------------------------------------------------------------

    def come(
        self, viewer: str, inviter: str | None = None, *, flaw: str = "", channel: str = "", worker: str = "w",
        connection: int = 1,
    ) -> Any:  # fmt: skip
        """Let a viewer in, through a link if there is an inviter or a flaw; return the reply."""
        n = self.names
        keys = [
            *self.base, n.present, n.leases, n.present_on(worker), n.viewers, n.entries, n.bans, n.mutes, n.staff,
            *self.board, n.viewer_orders, n.orders, n.viewer_grabs,
        ]  # fmt: skip
        link = flaw if inviter or flaw else "-"
        args = [
            self.vouched, worker, 5,
            viewer, connection, VIEWER, "app", f'"{viewer}!"', f'{{"id":"{viewer}"}}', inviter or "", channel, link,
        ]  # fmt: skip
        return self.call("room_join", keys, args)[1]

    def mature(self) -> int:
        """Count arrivals that have been here long enough; return how many."""
        keys = [*self.base, self.names.present, *self.board, self.names.bans]
        return int(self.call("shares_mature", keys, [self.vouched])[1])

    def rank(self, viewer: str = "nobody") -> tuple[list[Map], int, int]:
        """Return the head of the board, and a viewer's place and count."""
        n = self.names
        top, rank, count = self.call("share_rank", [n.board, n.names, n.invited], [viewer])
        return orjson.loads(top), rank, count

    def records(self) -> list[Map]:
        """Return the share records without their moments."""
        page = self.call("shares_page", [self.names.meta, self.names.shares], [0, 1_000])
        records = [orjson.loads(json) for json in page[2::2]]
        for record in records:
            del record["at"]
        return records

    def read_room(self) -> Any:
        """Read the room with all its campaigns, as the engine does for a snapshot."""
        n = self.names
        sales, packets = (sorted(self.client.smembers(key)) for key in (n.sales, n.packets))
        own = [n.items, n.shelf, n.comments, n.present, n.sales, n.packets, n.board, n.names]
        keys = [*self.base, *own, *map(n.sale, sales), *map(n.packet, packets)]
        return self.call("room_read", keys, [self.vouched, 50, 1_000, len(sales), *sales, *packets])

    def read_sale(self) -> Any:
        """Return the row of the room's only sale in a snapshot."""
        return self.read_room()[6]

    # -- the room ----------------------------------------------------------------------------------------------

    def settle_all(self, sales: list[str], packets: list[str]) -> Any:
        """Settle what is open, as the engine does in a closing room."""
        for packet in packets:
            self.tick_packet(packet)
        for sale in sales:
            self.tick(sale)
        n = self.names
        keys = [*self.base, n.sales, n.packets, *map(n.sale, sales), *map(n.packet, packets)]
        return self.call("room_settle", keys, [self.vouched, len(sales), *sales, *packets])

    def pass_time(self, ms: int) -> None:
        """Move every moment the room knows into the past by `ms`."""
        n, client = self.names, self.client
        for sale in client.smembers(n.sales):
            for field in ("starts_at", "ends_at"):
                client.hincrby(n.sale(sale), field, -ms)
            for order, _ in client.zrange(n.sale_holds(sale), 0, -1, withscores=True):
                client.zincrby(n.sale_holds(sale), -ms, order)
        for order, packed in client.hgetall(n.orders).items():
            parts = packed.split("|")
            parts[_HELD_AT], parts[_PAY_BY] = (str(int(parts[at]) - ms) for at in (_HELD_AT, _PAY_BY))
            client.hset(n.orders, order, "|".join(parts))
        for packet in client.smembers(n.packets):
            for field in ("opens_at", "expires_at"):
                client.hincrby(n.packet(packet), field, -ms)
        for entry, _ in client.zrange(n.dwelling, 0, -1, withscores=True):
            client.zincrby(n.dwelling, -ms, entry)
        for viewer, entry in client.hgetall(n.viewers).items():
            name, _, at = entry.rpartition("|")
            client.hset(n.viewers, viewer, f"{name}|{int(at) - ms}")

    def restart(self) -> None:
        """Let the store be on another line of history, which nobody vouches for."""
        lost = secrets.token_hex(20)
        self.client.hset(self.names.meta, "replid", lost)
        self.vouched = ""
