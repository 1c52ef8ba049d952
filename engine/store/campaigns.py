"""
Steps of campaigns: seckill, orders, red packets, the share board, and settling all of them when a room closes.

Decides how each step is called, line by line beside its header in `lua/`. What can race is decided there.
"""

from typing import Any, ClassVar, Final

import orjson

from engine.errors import Overloaded
from engine.store.batch import Done, Word
from engine.store.keys import RoomKey, RoomKeys
from engine.store.link import WAITING_CALLS_MAX
from engine.store.replies import Answered, answer, body, page, to_rejection
from engine.store.rooms import RoomSteps

#: A closing room is looked at again after this long, unless something is due sooner.
SETTLE_AGAIN_MS: Final = 3_000


class CampaignSteps(RoomSteps):
    """What moves money and stock."""

    ACKNOWLEDGED: ClassVar = frozenset(
        {
            "room_settle",
            "seckill_schedule",
            "seckill_adjust",
            "seckill_end",
            "seckill_claim",
            "order_cancel",
            "order_paid",
            "order_refunded",
            "packet_send",
            "packet_grab",
            "packet_cancel",
        }
    )

    async def settle(self, room: RoomKey) -> tuple[str, int]:
        """
        Settle what is open in a closing room, and leave `closing` once nothing is.

        Returns:
            What became of it ("closed", "open", "not_closing", "room_not_found"), and when to look again
            (milliseconds).
        """
        names = RoomKeys(room)
        sales, packets = await self.campaigns(room)
        again_ms = SETTLE_AGAIN_MS
        for packet in packets:
            await self.packet_tick(room, packet)
        for sale in sales:
            wait_ms = await self.seckill_tick(room, sale)
            if wait_ms is not None:
                again_ms = min(again_ms, wait_ms)
        settle_keys: tuple[Word, ...] = (
            names.meta,
            names.log,
            names.bus,
            names.sales,
            names.packets,
            *map(names.sale, sales),
            *map(names.packet, packets),
        )
        reply = await self._call(
            "room_settle", settle_keys, (self._vouch(names), len(sales), *sales, *packets)
        )
        happened = str(reply[0], "ascii")
        return ("open", 1) if happened == "stale" else (happened, again_ms)

    # --- seckill and orders -----------------------------------------------------------------------------

    def claim(
        self,
        names: RoomKeys,
        sale: str,
        viewer: str,
        qty: int,
        key: str,
        digest: str,
        level: int,
        tags: str,
        done: Done,
    ) -> None:
        """Hold units. The header is (now, last order change); the reply is coded, `ok` with `UnitsHeld`."""
        if self._link.waiting >= WAITING_CALLS_MAX:
            done(None, None, Overloaded())
            return
        self._link.merge(
            "seckill_claim",
            (
                names.meta,
                names.log,
                names.bus,
                names.sale(sale),
                names.sale_buyers(sale),
                names.sale_holds(sale),
                names.orders,
                names.outbox,
                names.items,
                names.viewer_orders,
                names.inviters,
                names.viewers,
                names.invited,
                names.bans,
            ),
            (self._vouch(names),),
            (names.idempotency(viewer, "seckill.claim", key),),
            (viewer, qty, digest, level, tags),
            done,
            group=sale,
        )

    async def seckill_tick(self, room: RoomKey, sale: str) -> int | None:
        """Give overdue holds back, announce the end. Returns milliseconds until the next look, None when done."""
        names = RoomKeys(room)
        reply = await self._call("seckill_tick", self._order_keys(names, sale), (self._vouch(names),))
        return int(reply[1]) if reply[0] == b"again" else None

    @staticmethod
    def _order_keys(names: RoomKeys, sale: str) -> tuple[Word, ...]:
        return (
            names.meta,
            names.log,
            names.bus,
            names.sale(sale),
            names.sale_buyers(sale),
            names.sale_holds(sale),
            names.orders,
            names.outbox,
            names.items,
        )

    async def read_order(self, room: RoomKey, order: str) -> tuple[bytes, str, str]:
        """
        Return an order as JSON, its sale and its viewer.

        Raises:
            CommandRejected: With `not_found` or `room_not_found`.
        """
        names = RoomKeys(room)
        reply = await self._call("order_read", (names.meta, names.orders), (order,))
        if reply[0] != b"ok":
            raise to_rejection(reply)
        return reply[1], reply[2].decode(), reply[3].decode()

    async def cancel_order(self, room: RoomKey, order: str, viewer: str, key: str, digest: str) -> bytes:
        """Give held units back. Returns the order as JSON. Raises CommandRejected."""
        names = RoomKeys(room)
        idempotency = names.idempotency(viewer, "order.cancel", key)
        read = await self._call("order_read", (names.meta, names.orders, idempotency), (order, digest))
        if len(read) < 4:  # Refused, or answered before under this key.
            return body(read)
        order_keys = (*self._order_keys(names, read[2].decode()), idempotency)
        return body(await self._call("order_cancel", order_keys, (self._vouch(names), order, viewer, digest)))

    async def pay_order(
        self, room: RoomKey, order: str, payment: str, amount_cents: int
    ) -> tuple[bytes, bool]:
        """
        Record a payment.

        Returns:
            The order as JSON, and whether this payment must be given back.

        Raises:
            CommandRejected: With `conflict`, `not_found` or `room_not_found`.
        """
        _, sale, _ = await self.read_order(room, order)
        names = RoomKeys(room)
        order_keys = (*self._order_keys(names, sale), names.payments)
        reply = await self._call("order_paid", order_keys, (self._vouch(names), order, payment, amount_cents))
        if reply[0] == b"refund":
            return reply[1], True
        return body(reply), False

    async def refund_order(self, room: RoomKey, order: str, payment: str, *, restock: bool) -> bytes:
        """Record that a payment was given back. Returns the order as JSON. Raises CommandRejected."""
        _, sale, _ = await self.read_order(room, order)
        names = RoomKeys(room)
        order_keys = (*self._order_keys(names, sale), names.payments)
        return body(
            await self._call("order_refunded", order_keys, (self._vouch(names), order, payment, int(restock)))
        )

    async def order_changes(
        self, room: RoomKey, after: int, limit: int
    ) -> tuple[int, list[tuple[int, bytes]]] | None:
        """Return (last change of the room, changes after `after`), or None when there is no such room."""
        names = RoomKeys(room)
        return page(await self._call("orders_page", (names.meta, names.outbox), (after, limit)))

    # --- red packets ------------------------------------------------------------------------------------

    def grab(
        self,
        names: RoomKeys,
        packet: str,
        viewer: str,
        key: str,
        digest: str,
        level: int,
        tags: str,
        name: bytes,
        sender: bytes,
        answered: Answered,
    ) -> None:
        """Take a share. Answers with `ShareGrabbed`."""
        if self._link.waiting >= WAITING_CALLS_MAX:
            answered(Overloaded())
            return
        self._link.merge(
            "packet_grab",
            (
                names.meta,
                names.log,
                names.bus,
                names.packet(packet),
                names.packet_parts(packet),
                names.packet_grabs(packet),
                names.grants,
                names.viewers,
                names.viewer_orders,
                names.invited,
                names.bans,
                names.viewer_grabs,
            ),
            (self._vouch(names),),
            (names.idempotency(viewer, "redpacket.grab", key),),
            (viewer, digest, level, tags, name, sender),
            answer(answered),
            group=packet,
        )

    async def packet_tick(self, room: RoomKey, packet: str) -> int | None:
        """Settle a packet that is due. Returns milliseconds until it is, or None when done."""
        names = RoomKeys(room)
        packet_keys = (
            names.meta,
            names.log,
            names.bus,
            names.packet(packet),
            names.packet_parts(packet),
            names.grants,
        )
        reply = await self._call("packet_tick", packet_keys, (self._vouch(names),))
        return int(reply[1]) if reply[0] == b"again" else None

    # --- the share board --------------------------------------------------------------------------------

    async def share_rank(self, room: RoomKey, viewer: str) -> dict[str, Any]:
        """Return the head of the board and the viewer's own line, in the shape of `ShareRank`."""
        names = RoomKeys(room)
        top, rank, count = await self._call(
            "share_rank", (names.board, names.names, names.invited), (viewer,)
        )
        return {"top": orjson.loads(top), "me": {"rank": rank or None, "count": count}}

    async def mature_shares(self, names: RoomKeys) -> None:
        """Count the arrivals that have stayed long enough."""
        mature_keys = (names.meta, names.log, names.bus, names.present, *names.board_keys, names.bans)
        await self._call("shares_mature", mature_keys, (self._vouch(names),))

    async def share_records(
        self, room: RoomKey, after: int, limit: int
    ) -> tuple[int, list[tuple[int, bytes]]] | None:
        """Return (last record of the room, records after `after`), or None when there is no such room."""
        names = RoomKeys(room)
        return page(await self._call("shares_page", (names.meta, names.shares), (after, limit)))
