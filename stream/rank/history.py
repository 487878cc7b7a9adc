"""How one feedback changes the history of a visitor."""

from __future__ import annotations

import numba

from models.batch import Array
from stream.rank.decode import CART, CLICK, DISMISS, PURCHASE, REFUND
from stream.rank.visitors import BOUGHT, DISMISSED, IN_CART, Record


@numba.njit(cache=True)
def touch(event: Record, in_list: bool, entry: int, own: Array, spare: Array, items: Array) -> None:
    """Enter one feedback into the history: clicks, carts and purchases move their item to the front."""
    item, kind = event["item"], event["kind"]
    at = -1
    for k in range(len(own)):
        if own[k]["item"] == item:
            at = k
            break
    if at < 0 and kind > PURCHASE and kind != DISMISS:
        return  # nothing there to take back
    if at < 0:
        at = len(own) - 1
        _begin(own[at], event, entry, items)
        _to_front(own, at, spare)
        at = 0
    if kind <= PURCHASE:
        _to_front(own, at, spare)
        own[0]["ts"] = max(event["ts"], own[0]["ts"])
        if own[0]["events"] < 65_535:
            own[0]["events"] += 1
        at = 0
    if event["price"] >= 0:
        own[at]["price"] = event["price"]
    _mark(own[at], kind, in_list)


@numba.njit(cache=True)
def _begin(one: Record, event: Record, entry: int, items: Array) -> None:
    """A fresh `ENTRY` for the item of an event, which has the row `entry` in the catalogue or -1."""
    one["item"], one["ts"], one["price"] = event["item"], event["ts"], -1.0
    one["events"], one["clicks"], one["carts"], one["purchases"], one["flags"] = 0, 0, 0, 0, 0
    one["list_clicks"] = 0
    one["category"], one["brand"] = 0, 0
    if entry >= 0:
        told = items[entry]
        one["category"], one["brand"], one["price"] = told["category"], told["brand"], told["price"]


@numba.njit(cache=True)
def _mark(one: Record, kind: int, in_list: bool) -> None:
    if kind == CLICK:
        if one["clicks"] < 255:
            one["clicks"] += 1
            one["list_clicks"] += in_list
    elif kind == CART:
        one["flags"] |= IN_CART
        if one["carts"] < 255:
            one["carts"] += 1
    elif kind == PURCHASE:
        one["flags"] = (one["flags"] | BOUGHT) & (255 - IN_CART)
        if one["purchases"] < 255:
            one["purchases"] += 1
    elif kind == DISMISS:
        one["flags"] |= DISMISSED
    elif kind == REFUND:
        one["flags"] &= 255 - BOUGHT
    else:
        one["flags"] &= 255 - IN_CART


@numba.njit(cache=True)
def _to_front(own: Array, at: int, spare: Array) -> None:
    if at == 0:
        return
    spare[0] = own[at]
    for k in range(at, 0, -1):
        own[k] = own[k - 1]
    own[0] = spare[0]
