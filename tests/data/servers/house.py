"""A server on the SDK that does all that a server can, in both forms of the protocol: over pipes as a program, over HTTP
as the application that `application()` makes. Its tools are those of the contract suite and some that tell and ask."""

import anyio
import mcp_types as types
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler
from mcp.shared.exceptions import MCPError
from mcp.shared.subscriptions import ToolsListChanged

SCHEMA = {
    "type": "object",
    "properties": {"text": {"type": "string"}, "extra": {}},
    "required": ["text"],
    "additionalProperties": False,
}
SUITE = ("echo", "effect_id", "fail", "large", "slow", "structured")
MORE = ("ask_folders", "ask_model", "ask_person", "grow", "picture", "walk")
FORM = {"type": "object", "properties": {"name": {"type": "string"}}}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="

STATE = {"names": list(SUITE), "begun": 0, "cancelled": 0}
BUS = InMemorySubscriptionBus()


def said(text, **more):
    return types.CallToolResult(content=[types.TextContent(type="text", text=text)], **more)


async def list_tools(_ctx, params):
    at = int(params.cursor) if params is not None and params.cursor else 0
    names = STATE["names"]
    tool = types.Tool(name=names[at], description="Part of the suite.", input_schema=SCHEMA)
    return types.ListToolsResult(tools=[tool], next_cursor=str(at + 1) if at + 1 < len(names) else None)


async def call_tool(ctx, params):
    given = (params.arguments or {}).get("text", "")
    match params.name:
        case "echo":
            return said(given)
        case "effect_id":
            return said((params.meta or {})["symbi/effect-id"])
        case "fail":
            return said(f"no: {given}", is_error=True)
        case "large":
            return said("x" * 2_097_152)
        case "slow":
            STATE["begun"] += 1
            try:
                await anyio.sleep(3600)
            except anyio.get_cancelled_exc_class():
                STATE["cancelled"] += 1
                raise
        case "structured":
            return said("", structured_content={"text": given, "list": [given, None, 1]})
        case "picture":
            image = types.ImageContent(type="image", data=PIXEL, mime_type="image/png")
            link = types.ResourceLink(type="resource_link", name="note", uri="note://a")
            return types.CallToolResult(content=[types.TextContent(type="text", text=given), image, link])
        case "walk":
            for step in (1, 2, 3):
                await ctx.session.report_progress(step, 3, f"step {step} of {given}")
                await ctx.session.send_log_message("info", {"step": step, "of": given}, "walker", ctx.request_id)
            return said("there")
        case "grow":
            STATE["names"].append("picture")
            await ctx.session.send_tool_list_changed()
            await BUS.publish(ToolsListChanged())
            return said("grown")
        case _:
            return await ask(ctx, params)


async def ask(ctx, params):
    request = {
        "ask_person": types.ElicitRequest(
            params=types.ElicitRequestFormParams(message="Who are you?", requested_schema=FORM)
        ),
        "ask_model": types.CreateMessageRequest(
            params=types.CreateMessageRequestParams(
                messages=[types.SamplingMessage(role="user", content=types.TextContent(type="text", text="hi"))],
                max_tokens=50,
            )
        ),
        "ask_folders": types.ListRootsRequest(),
    }[params.name]
    if ctx.session.protocol_version >= "2026":
        if not params.input_responses:
            return types.InputRequiredResult(input_requests={"q": request}, request_state="s1")
        assert params.request_state == "s1"
        return said(params.input_responses["q"].model_dump_json(by_alias=True, exclude_none=True))
    try:
        match params.name:
            case "ask_person":
                answer = await ctx.session.elicit_form("Who are you?", FORM, related_request_id=ctx.request_id)
            case "ask_model":
                answer = await ctx.session.create_message(
                    request.params.messages, max_tokens=50, related_request_id=ctx.request_id
                )
            case _:
                answer = await ctx.session.list_roots()
    except MCPError as error:
        return said(f"refused: {error.code} {error.message}", is_error=True)
    return said(answer.model_dump_json(by_alias=True, exclude_none=True))


async def list_resources(_ctx, params):
    at = int(params.cursor) if params is not None and params.cursor else 0
    resource = types.Resource(name=f"n{at}", uri=f"note://n{at}")
    return types.ListResourcesResult(resources=[resource], next_cursor=str(at + 1) if at < 2 else None)


async def list_templates(_ctx, _params):
    return types.ListResourceTemplatesResult(
        resource_templates=[types.ResourceTemplate(name="note", uri_template="note://{name}")]
    )


async def read_resource(_ctx, params):
    if params.uri == "note://secret":
        text = types.TextResourceContents(uri=params.uri, text="correct-horse-battery-staple")
        return types.ReadResourceResult(contents=[text])
    if params.uri == "note://picture":
        return types.ReadResourceResult(contents=[types.BlobResourceContents(uri=params.uri, blob=PIXEL)])
    if not params.uri.startswith("note://"):
        raise MCPError(code=-32002, message="no such resource")
    return types.ReadResourceResult(contents=[types.TextResourceContents(uri=params.uri, text=f"of {params.uri}")])


async def list_prompts(_ctx, _params):
    return types.ListPromptsResult(
        prompts=[types.Prompt(name="review", arguments=[types.PromptArgument(name="code", required=True)])]
    )


async def get_prompt(_ctx, params):
    text = types.TextContent(type="text", text=f"review {(params.arguments or {}).get('code')}")
    return types.GetPromptResult(description="d", messages=[types.PromptMessage(role="user", content=text)])


async def complete(_ctx, params):
    found = [one for one in ("alpha", "beta", "alps") if one.startswith(params.argument.value)]
    return types.CompleteResult(completion=types.Completion(values=found, total=len(found), has_more=False))


def build(*, more=True):
    """The server; with `more`, also what is not of the contract suite."""
    STATE["names"] = sorted([*SUITE, *(MORE if more else ())])
    STATE["begun"] = STATE["cancelled"] = 0
    return Server(
        "house",
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_list_resources=list_resources,
        on_list_resource_templates=list_templates,
        on_read_resource=read_resource,
        on_list_prompts=list_prompts,
        on_get_prompt=get_prompt,
        on_completion=complete,
        on_subscriptions_listen=ListenHandler(BUS),
    )


def application(*, more=True):
    """The server as an application for HTTP."""
    return build(more=more).streamable_http_app()


async def main():
    server = build()
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


if __name__ == "__main__":
    anyio.run(main)
