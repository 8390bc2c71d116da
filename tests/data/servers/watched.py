"""A tool server whose resources change, for tests of subscriptions; it says who is subscribed, and asks two things at once.

watched.py [STARTS [LISTS]]     it starts, and lists resources, once these files are there
"""

import os
import sys
import time
from pathlib import Path

import anyio
import mcp_types as types
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.stdio import stdio_server
from mcp.server.subscriptions import (
    InMemorySubscriptionBus,
    ListenHandler,
    PromptsListChanged,
    ResourcesListChanged,
    ResourceUpdated,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

URIS = [f"note://{number}" for number in range(40)]
TEXT = {"type": "object", "properties": {"uri": {"type": "string"}}}
FORM = {"type": "object", "properties": {"n": {"type": "integer"}}}
BUS = InMemorySubscriptionBus()
LISTENERS = ListenHandler(BUS)
SUBSCRIBED = set()
STREAMS = {}


def text(said):
    return types.CallToolResult(content=[types.TextContent(type="text", text=said)])


async def list_tools(ctx, params):
    names = ("touch", "subscribed", "die", "drop", "asks_both", "more")
    return types.ListToolsResult(tools=[types.Tool(name=one, description=one, input_schema=TEXT) for one in names])


async def list_resources(ctx, params):
    while len(sys.argv) > 2 and not await anyio.Path(sys.argv[2]).exists():  # noqa: ASYNC110 - another process makes it
        await anyio.sleep(0.01)
    return types.ListResourcesResult(resources=[types.Resource(uri=uri, name=uri) for uri in URIS])


async def list_prompts(ctx, params):
    return types.ListPromptsResult(prompts=[types.Prompt(name="notes")])


async def get_prompt(ctx, params):
    said = types.PromptMessage(role="user", content=types.TextContent(type="text", text="what do the notes say?"))
    return types.GetPromptResult(messages=[said])


async def read_resource(ctx, params):
    return types.ReadResourceResult(contents=[types.TextResourceContents(uri=params.uri, text=f"text of {params.uri}")])


async def subscribe(ctx, params):
    SUBSCRIBED.add(params.uri)
    return types.EmptyResult()


async def unsubscribe(ctx, params):
    SUBSCRIBED.discard(params.uri)
    return types.EmptyResult()


async def listen(ctx, params):
    STREAMS[ctx.request_id] = params.notifications.resource_subscriptions or []
    try:
        return await LISTENERS(ctx, params)
    finally:
        del STREAMS[ctx.request_id]


async def asks_both(ctx, params):
    question = types.CreateMessageRequestParams(
        messages=[types.SamplingMessage(role="user", content=types.TextContent(type="text", text="2 + 2?"))],
        max_tokens=10,
    )
    if ctx.protocol_version in MODERN_PROTOCOL_VERSIONS:
        answers = params.input_responses or {}
        if not answers:
            form = types.ElicitRequestFormParams(message="how many?", requested_schema=FORM)
            asked = {"person": types.ElicitRequest(params=form), "model": types.CreateMessageRequest(params=question)}
            return types.InputRequiredResult(input_requests=asked)
        return text(f"{answers['person'].content['n']} {answers['model'].content.text}")
    said = {}

    async def person():
        said["person"] = (await ctx.session.elicit_form("how many?", FORM)).content["n"]

    async def model():
        request = types.CreateMessageRequest(params=question)
        said["model"] = (await ctx.session.send_request(request, types.CreateMessageResult)).content.text

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(person)
        tasks.start_soon(model)
    return text(f"{said['person']} {said['model']}")


async def call_tool(ctx, params):
    uri = (params.arguments or {}).get("uri", "")
    match params.name:
        case "touch":
            if uri in SUBSCRIBED:
                await ctx.session.send_resource_updated(uri)
            await BUS.publish(ResourceUpdated(uri))
            return text("touched")
        case "subscribed":
            known = SUBSCRIBED.union(*STREAMS.values())
            return text(" ".join(sorted(known)))
        case "more":
            URIS.append(uri)
            for _ in range(50):
                if ctx.protocol_version in MODERN_PROTOCOL_VERSIONS:
                    await BUS.publish(ResourcesListChanged())
                    await BUS.publish(PromptsListChanged())
                else:
                    await ctx.session.send_resource_list_changed()
                    await ctx.session.send_prompt_list_changed()
            return text("there is more")
        case "drop":
            LISTENERS.close()
            return text("dropped")
        case "asks_both":
            return await asks_both(ctx, params)
    os._exit(1)


async def main():
    server = Server(
        "watched",
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_subscriptions_listen=listen,
        on_list_resources=list_resources,
        on_read_resource=read_resource,
        on_list_prompts=list_prompts,
        on_get_prompt=get_prompt,
    )
    server.add_request_handler("resources/subscribe", types.SubscribeRequestParams, subscribe)
    server.add_request_handler("resources/unsubscribe", types.UnsubscribeRequestParams, unsubscribe)
    async with stdio_server() as (read, write):
        changes = NotificationOptions(prompts_changed=True, resources_changed=True)
        await server.run(read, write, server.create_initialization_options(changes))


while len(sys.argv) > 1 and not Path(sys.argv[1]).exists():
    time.sleep(0.01)
anyio.run(main)
