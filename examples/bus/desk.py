"""A news desk: one agent publishes, another listens, a third is sent and asked. Run it in this folder."""

import anyio

from symbi import load_settings, open_runtime
from symbi.bus.content import Message

heard, told = anyio.Event(), anyio.Event()


def print_news(message: Message[str]) -> None:
    print(f"{message.sender} on {message.to}: {message.body}")
    heard.set()


async def check(message: Message[str]) -> dict[str, bool]:
    """Answers what it is asked; what it returns for a message that is only sent goes nowhere."""
    print(f"{message.sender} says: {message.body}")
    if message.body == "more soon":
        told.set()
    return {"fit": "!" not in message.body}


async def main() -> None:
    async with open_runtime(load_settings()) as runtime:
        bus = runtime.bus
        await bus.subscribe("reader", "news.>", print_news, str)
        await bus.open_mailbox("editor", check, str)

        await bus.publish("reporter", "news.eu", "rain")
        await bus.send_message("reporter", "editor", "more soon")
        answer = await bus.request("reporter", "editor", "rain again", timeout_s=10, answer=dict[str, bool])
        print(f"{answer.sender} finds it fit: {answer.body['fit']}")

        await heard.wait()
        await told.wait()


anyio.run(main)
