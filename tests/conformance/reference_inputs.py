"""What the reference server is asked to be given before it answers, as of 2026-07-28; and the parts that answers are made of."""

import base64
import hashlib
import hmac
import secrets

import mcp_types as types
from mcp.shared.exceptions import MCPError

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
SOUND = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQAAAAA="
KEY = secrets.token_bytes(32)  # of request states; a server that starts anew takes none of before


def text(words):
    return types.TextContent(type="text", text=words)


def image():
    return types.ImageContent(type="image", data=PIXEL, mime_type="image/png")


def embedded(uri, mime_type, words):
    return types.EmbeddedResource(
        type="resource", resource=types.TextResourceContents(uri=uri, mime_type=mime_type, text=words)
    )


def answer(*content, is_error=False):
    return types.CallToolResult(content=list(content), is_error=is_error)


# --- tools that need input, as of 2026-07-28 -------------------------------------------------


def form(message, **properties):
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return types.ElicitRequest(params=types.ElicitRequestFormParams(message=message, requested_schema=schema))


def question(words, most=100):
    message = types.SamplingMessage(role="user", content=text(words))
    return types.CreateMessageRequest(params=types.CreateMessageRequestParams(messages=[message], max_tokens=most))


ROOTS = types.ListRootsRequest(params=types.RequestParams())
NAME = form("What is your name?", name={"type": "string"})


def sealed(step):
    mark = base64.urlsafe_b64encode(hmac.digest(KEY, step.encode(), hashlib.sha256)).decode()
    return f"{step}.{mark}"


def opened(state):
    """The step of a state of ours."""
    step = (state or "").partition(".")[0]
    if not hmac.compare_digest(state or "", sealed(step)):
        raise MCPError(types.INVALID_PARAMS, "the request state is not one of this server")
    return step


def wanted(requests, step=None):
    return types.InputRequiredResult(input_requests=requests, request_state=None if step is None else sealed(step))


def given(params, key, kind):
    """An answer of the kind that was asked for; None where there is none, or it is another's."""
    found = (params.input_responses or {}).get(key)
    return found if isinstance(found, kind) else None


async def needs_elicitation(context, params):
    said = given(params, "user_name", types.ElicitResult)
    if said is None or said.action != "accept" or not isinstance((said.content or {}).get("name"), str):
        return wanted({"user_name": NAME})
    return answer(text(f"Hello, {said.content['name']}!"))


async def needs_sampling(context, params):
    said = given(params, "capital_question", types.CreateMessageResult)
    if said is None:
        return wanted({"capital_question": question("What is the capital of France?")})
    return answer(text(said.content.text))


async def needs_roots(context, params):
    said = given(params, "client_roots", types.ListRootsResult)
    if said is None:
        return wanted({"client_roots": ROOTS})
    return answer(text(f"Roots: {', '.join(str(root.uri) for root in said.roots)}"))


async def needs_state(context, params):
    if given(params, "confirm", types.ElicitResult) is None:
        return wanted({"confirm": form("Please confirm", ok={"type": "boolean"})}, "confirm")
    opened(params.request_state)
    return answer(text("state-ok"))


async def needs_several(context, params):
    kinds = {
        "user_name": (NAME, types.ElicitResult),
        "greeting": (question("Generate a greeting", 50), types.CreateMessageResult),
        "client_roots": (ROOTS, types.ListRootsResult),
    }
    missing = {key: request for key, (request, kind) in kinds.items() if given(params, key, kind) is None}
    if missing:
        return wanted(missing, "several")
    opened(params.request_state)
    return answer(text("All inputs received"))


async def needs_rounds(context, params):
    step = opened(params.request_state) if params.request_state else None
    if step is None or (step == "one" and given(params, "step1", types.ElicitResult) is None):
        return wanted({"step1": form("Step 1: What is your name?", name={"type": "string"})}, "one")
    if step == "one" or given(params, "step2", types.ElicitResult) is None:
        return wanted({"step2": form("Step 2: What is your favorite color?", color={"type": "string"})}, "two")
    return answer(text("All rounds done"))


async def guards_state(context, params):
    if params.request_state is not None:
        opened(params.request_state)
    if given(params, "confirm", types.ElicitResult) is None:
        return wanted({"confirm": form("Please confirm", ok={"type": "boolean"})}, "guarded")
    return answer(text("state-ok"))


def can(context, name):
    capabilities = context.session.client_capabilities
    return capabilities is not None and getattr(capabilities, name) is not None


async def needs_what_is_there(context, params):
    requests = {}
    if can(context, "elicitation") and given(params, "user_name", types.ElicitResult) is None:
        requests["user_name"] = NAME
    if can(context, "sampling") and given(params, "greeting", types.CreateMessageResult) is None:
        requests["greeting"] = question("Generate a greeting", 50)
    return wanted(requests) if requests else answer(text("All inputs received"))


async def streaming_elicitation(context, params):
    await context.session.report_progress(1, 2, "asking")
    return await needs_elicitation(context, params)


async def missing_capability(context, params):
    if not can(context, "sampling"):
        needed = types.ClientCapabilities(sampling=types.SamplingCapability())
        data = {"requiredCapabilities": needed.model_dump(by_alias=True, exclude_none=True)}
        raise MCPError(types.MISSING_REQUIRED_CLIENT_CAPABILITY, "this tool needs sampling", data)
    return answer(text("The client can do what is needed"))


async def logging_tool(context, params):
    await context.session.send_log_message("info", "a message at info", related_request_id=context.request_id)
    return answer(text("Logged"))
