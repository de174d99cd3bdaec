"""The Lounge: log in through the public name over a WebSocket, talk on the site's own server, find it again."""

from __future__ import annotations

import json
import secrets
import time
from typing import Any

import pytest
from modkit import PASSWORD, ModuleSite, ModuleSites, round_trip
from visiting import WebSocket

from instancekit import until

OPTIONS = ("--build-network", "--plan", "medium")


class Chat:
    """What The Lounge's page does: Engine.IO 4 and Socket.IO 5 over one WebSocket."""

    def __init__(self, it: ModuleSite) -> None:
        self.socket = WebSocket(it, "/socket.io/?EIO=4&transport=websocket")
        assert self.socket.message().startswith("0")
        self.socket.send("40")
        self.seen: list[tuple[str, Any]] = []

    def emit(self, name: str, *values: Any) -> None:
        self.socket.send("42" + json.dumps([name, *values]))

    def until(self, name: str, holds: Any = lambda value: True, seconds: float = 30.0) -> Any:
        """The value of the next event ``name`` for which ``holds``."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            text = self.socket.message()
            if text == "2":
                self.socket.send("3")
            elif text.startswith("42"):
                event, *values = json.loads(text[2:])
                value = values[0] if values else None
                self.seen.append((event, value))
                if event == name and holds(value):
                    return value
        raise AssertionError(f"no {name}: {self.seen}")

    def login(self, user: str, password: str) -> Any:
        self.until("auth:start")
        self.emit("auth:perform", {"user": user, "password": password})
        return self.until("init")

    def close(self) -> None:
        self.socket.link.close()


def channel_of(started: Any, name: str) -> Any:
    return next(each for network in started["networks"] for each in network["channels"] if each["name"] == name)


def joined(chat: Chat, started: Any, name: str) -> Any:
    """The channel once the server has let us in."""
    found = channel_of(started, name)
    if found.get("state") != 1:
        chat.until("channel:state", lambda value: value["chan"] == found["id"] and value["state"] == 1)
    return found


def texts(messages: list[Any]) -> list[str]:
    return [each.get("text", "") for each in messages if each.get("type") == "message"]


@pytest.mark.turn
def test_say_something_and_find_it_again(site: ModuleSites) -> None:
    it = site("thelounge", stem="chat", options=OPTIONS, user="anna", thelounge__password=PASSWORD, channels="kitchen")
    assert it.get("/").title == "The Lounge"
    word = f"la soupe est prête {secrets.token_hex(4)}"
    chat = Chat(it)
    started = chat.login("anna", PASSWORD)
    kitchen = joined(chat, started, "#kitchen")
    chat.emit("input", {"target": kitchen["id"], "text": word})
    chat.until("msg", lambda value: value["chan"] == kitchen["id"] and value["msg"]["text"] == word)
    chat.close()

    def read() -> list[str]:
        again = Chat(it)
        found = channel_of(again.login("anna", PASSWORD), "#kitchen")
        said = texts(found["messages"])
        again.emit("more", {"target": found["id"], "lastId": -1, "condensed": False})
        said += texts(again.until("more", lambda value: value["chan"] == found["id"])["messages"])
        again.close()
        return said

    def there() -> None:
        # After a start the history comes back once the server has let the account in again.
        until(lambda: word in read(), 40, it.logs)

    round_trip(it, there)
    wrong = Chat(it)
    wrong.until("auth:start")
    wrong.emit("auth:perform", {"user": "anna", "password": "wrong"})
    wrong.until("auth:failed")
    wrong.close()


@pytest.mark.turn
def test_guests(site: ModuleSites) -> None:
    it = site("thelounge", stem="open", options=OPTIONS, people="everybody", channels="kitchen")
    guests = [Chat(it), Chat(it)]
    rooms = []
    for at, guest in enumerate(guests):
        guest.until("init")
        guest.emit("network:new", {"nick": f"guest{at}", "username": "guest", "realname": "", "join": "#kitchen"})
        network = guest.until("network")["network"]
        room = joined(guest, {"networks": [network]}, "#kitchen")
        rooms.append(room["id"])
        assert network["name"] == it.name
    guests[0].emit("input", {"target": rooms[0], "text": "bonjour"})
    heard = guests[1].until("msg", lambda value: value["msg"].get("text") == "bonjour")
    assert heard["msg"]["from"]["nick"] == "guest0" and heard["chan"] == rooms[1]
    for guest in guests:
        guest.close()
