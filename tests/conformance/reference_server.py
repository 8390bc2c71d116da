"""A server with all that the conformance suite of MCP wants to see, over its standard streams or by HTTP.

    python reference_server.py              its standard streams
    python reference_server.py --http PORT  streamable HTTP at /mcp on localhost, without a token

What it has to offer is what the suite's scenarios describe. It stands behind the gateway when the gateway is tested, and
alone when the suite itself is.
"""

import argparse
import base64
import json
import sys
import warnings
from functools import partial

import anyio
import mcp_types as types
import uvicorn
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.exceptions import MCPDeprecationWarning, MCPError
from reference_inputs import (
    PIXEL,
    SOUND,
    answer,
    embedded,
    form,
    given,
    guards_state,
    image,
    logging_tool,
    missing_capability,
    needs_elicitation,
    needs_roots,
    needs_rounds,
    needs_sampling,
    needs_several,
    needs_state,
    needs_what_is_there,
    question,
    streaming_elicitation,
    text,
    wanted,
)

STEP_S = 0.05
MODERN = "2026-07-28"

NO_ARGUMENTS = {"type": "object", "properties": {}}
ADDRESS = {
    "$anchor": "addressDef",
    "type": "object",
    "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
}
SCHEMA_2020_12 = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {"address": ADDRESS},
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}
USER = {
    "type": "object",
    "properties": {
        "username": {"type": "string", "description": "User's response"},
        "email": {"type": "string", "description": "User's email address"},
    },
    "required": ["username", "email"],
}
DEFAULTS = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "default": "John Doe"},
        "age": {"type": "integer", "default": 30},
        "score": {"type": "number", "default": 95.5},
        "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
        "verified": {"type": "boolean", "default": True},
    },
}
TITLED = [
    {"const": "value1", "title": "First"},
    {"const": "value2", "title": "Second"},
    {"const": "value3", "title": "Third"},
]
ENUMS = {
    "type": "object",
    "properties": {
        "untitledSingle": {"type": "string", "enum": ["option1", "option2", "option3"]},
        "titledSingle": {"type": "string", "oneOf": TITLED},
        "legacyEnum": {"type": "string", "enum": ["opt1", "opt2", "opt3"], "enumNames": ["One", "Two", "Three"]},
        "untitledMulti": {"type": "array", "items": {"type": "string", "enum": ["option1", "option2", "option3"]}},
        "titledMulti": {"type": "array", "items": {"anyOf": TITLED}},
    },
}


# --- tools that answer at once ---------------------------------------------------------------


async def simple_text(context, params):
    return answer(text("This is a simple text response for testing."))


async def image_content(context, params):
    return answer(image())


async def audio_content(context, params):
    return answer(types.AudioContent(type="audio", data=SOUND, mime_type="audio/wav"))


async def embedded_resource(context, params):
    return answer(embedded("test://embedded-resource", "text/plain", "This is an embedded resource content."))


async def multiple_content_types(context, params):
    mixed = embedded("test://mixed-content-resource", "application/json", '{"test":"data","value":123}')
    return answer(text("Multiple content types test:"), image(), mixed)


async def error_handling(context, params):
    return answer(text("This tool intentionally returns an error for testing"), is_error=True)


async def schema_tool(context, params):
    return answer(text(json.dumps(params.arguments, sort_keys=True)))


# --- tools that tell how far they are --------------------------------------------------------


async def with_logging(context, params):
    for number, words in enumerate(("Tool execution started", "Tool processing data", "Tool execution completed")):
        if number:
            await anyio.sleep(STEP_S)
        await context.session.send_log_message("info", words, related_request_id=context.request_id)
    return answer(text("Tool with logging executed successfully"))


async def with_progress(context, params):
    for step in (0, 50, 100):
        if step:
            await anyio.sleep(STEP_S)
        await context.session.report_progress(step, 100, f"Completed step {step} of 100")
    return answer(text("Tool with progress executed successfully"))


async def reconnection(context, params):
    if context.close_sse_stream is not None:
        await context.close_sse_stream()
    await anyio.sleep(2 * STEP_S)
    return answer(text("Reconnection test completed"))


# --- tools that ask back ---------------------------------------------------------------------


async def ask(context, params, request, kind):
    """What the client answers; since 2026-07-28 a server asks by its own answer, and None says that it still has to."""
    if context.protocol_version == MODERN:
        return given(params, "asked", kind)
    if isinstance(request, types.CreateMessageRequest):
        of = request.params
        return await context.session.create_message(
            of.messages, max_tokens=of.max_tokens, related_request_id=context.request_id
        )
    of = request.params
    return await context.session.elicit_form(of.message, of.requested_schema, related_request_id=context.request_id)


async def sampling(context, params):
    request = question(params.arguments["prompt"])
    said = await ask(context, params, request, types.CreateMessageResult)
    return wanted({"asked": request}) if said is None else answer(text(f"LLM response: {said.content.text}"))


async def elicited(context, params, words, message, schema):
    request = types.ElicitRequest(params=types.ElicitRequestFormParams(message=message, requested_schema=schema))
    said = await ask(context, params, request, types.ElicitResult)
    if said is None:
        return wanted({"asked": request})
    return answer(text(f"{words}: action={said.action}, content={json.dumps(said.content or {}, sort_keys=True)}"))


async def elicitation(context, params):
    return await elicited(context, params, "User response", params.arguments["message"], USER)


async def elicitation_defaults(context, params):
    return await elicited(
        context, params, "Elicitation completed", "Please review and update the form fields with defaults", DEFAULTS
    )


async def elicitation_enums(context, params):
    return await elicited(context, params, "Elicitation completed", "Please select options", ENUMS)


PROMPT = {"type": "object", "properties": {"prompt": {"type": "string"}}, "required": ["prompt"]}
MESSAGE = {"type": "object", "properties": {"message": {"type": "string"}}, "required": ["message"]}

TOOLS = {
    "test_simple_text": (simple_text, NO_ARGUMENTS),
    "test_image_content": (image_content, NO_ARGUMENTS),
    "test_audio_content": (audio_content, NO_ARGUMENTS),
    "test_embedded_resource": (embedded_resource, NO_ARGUMENTS),
    "test_multiple_content_types": (multiple_content_types, NO_ARGUMENTS),
    "test_error_handling": (error_handling, NO_ARGUMENTS),
    "json_schema_2020_12_tool": (schema_tool, SCHEMA_2020_12),
    "test_tool_with_logging": (with_logging, NO_ARGUMENTS),
    "test_tool_with_progress": (with_progress, NO_ARGUMENTS),
    "test_reconnection": (reconnection, NO_ARGUMENTS),
    "test_sampling": (sampling, PROMPT),
    "test_elicitation": (elicitation, MESSAGE),
    "test_elicitation_sep1034_defaults": (elicitation_defaults, NO_ARGUMENTS),
    "test_elicitation_sep1330_enums": (elicitation_enums, NO_ARGUMENTS),
    "test_input_required_result_elicitation": (needs_elicitation, NO_ARGUMENTS),
    "test_input_required_result_sampling": (needs_sampling, NO_ARGUMENTS),
    "test_input_required_result_list_roots": (needs_roots, NO_ARGUMENTS),
    "test_input_required_result_request_state": (needs_state, NO_ARGUMENTS),
    "test_input_required_result_multiple_inputs": (needs_several, NO_ARGUMENTS),
    "test_input_required_result_multi_round": (needs_rounds, NO_ARGUMENTS),
    "test_input_required_result_tampered_state": (guards_state, NO_ARGUMENTS),
    "test_input_required_result_capabilities": (needs_what_is_there, NO_ARGUMENTS),
    "test_streaming_elicitation": (streaming_elicitation, NO_ARGUMENTS),
    "test_missing_capability": (missing_capability, NO_ARGUMENTS),
    "test_logging_tool": (logging_tool, NO_ARGUMENTS),
}


async def list_tools(context, params):
    return types.ListToolsResult(
        tools=[
            types.Tool(name=name, description=f"What the scenario of {name} wants", input_schema=schema)
            for name, (_, schema) in TOOLS.items()
        ]
    )


async def call_tool(context, params):
    if params.name not in TOOLS:
        raise MCPError(types.INVALID_PARAMS, f"there is no tool {params.name}")
    return await TOOLS[params.name][0](context, params)


# --- resources -------------------------------------------------------------------------------

STATIC = {
    "test://static-text": ("text/plain", "This is the content of the static text resource."),
    "test://static-binary": ("image/png", base64.b64decode(PIXEL)),
    "test://watched-resource": ("text/plain", "What is watched"),
}
TEMPLATE = "test://template/{id}/data"


async def list_resources(context, params):
    return types.ListResourcesResult(
        resources=[
            types.Resource(uri=uri, name=uri.rpartition("/")[2], mime_type=kind) for uri, (kind, _) in STATIC.items()
        ]
    )


async def list_templates(context, params):
    template = types.ResourceTemplate(uri_template=TEMPLATE, name="template", mime_type="application/json")
    return types.ListResourceTemplatesResult(resource_templates=[template])


async def read_resource(context, params):
    uri = str(params.uri)
    if uri in STATIC:
        kind, content = STATIC[uri]
    elif uri.startswith("test://template/") and uri.endswith("/data"):
        name = uri.removeprefix("test://template/").removesuffix("/data")
        kind, content = (
            "application/json",
            json.dumps({"id": name, "templateTest": True, "data": f"Data for ID: {name}"}),
        )
    else:
        raise MCPError(types.INVALID_PARAMS, "there is no such resource", {"uri": uri})
    if isinstance(content, bytes):
        found = types.BlobResourceContents(uri=uri, mime_type=kind, blob=base64.b64encode(content).decode())
    else:
        found = types.TextResourceContents(uri=uri, mime_type=kind, text=content)
    return types.ReadResourceResult(contents=[found])


async def watch(context, params):
    return types.EmptyResult()


# --- prompts and completion ------------------------------------------------------------------


def said(*content):
    return types.GetPromptResult(messages=[types.PromptMessage(role="user", content=one) for one in content])


async def simple_prompt(context, params):
    return said(text("This is a simple prompt for testing."))


async def prompt_with_arguments(context, params):
    return said(text("Prompt with arguments: arg1='{arg1}', arg2='{arg2}'".format(**params.arguments)))


async def prompt_with_resource(context, params):
    uri = params.arguments["resourceUri"]
    return said(
        embedded(uri, "text/plain", "Embedded resource content for testing."),
        text("Please process the embedded resource above."),
    )


async def prompt_with_image(context, params):
    return said(image(), text("Please analyze the image above."))


async def prompt_that_needs(context, params):
    found = given(params, "user_context", types.ElicitResult)
    if found is None:
        return wanted({"user_context": form("What context should the prompt use?", context={"type": "string"})})
    return said(text(f"Use this context: {(found.content or {}).get('context')}"))


PROMPTS = {
    "test_simple_prompt": (simple_prompt, ()),
    "test_prompt_with_arguments": (prompt_with_arguments, ("arg1", "arg2")),
    "test_prompt_with_embedded_resource": (prompt_with_resource, ("resourceUri",)),
    "test_prompt_with_image": (prompt_with_image, ()),
    "test_input_required_result_prompt": (prompt_that_needs, ()),
}


async def list_prompts(context, params):
    return types.ListPromptsResult(
        prompts=[
            types.Prompt(
                name=name,
                description=f"What the scenario of {name} wants",
                arguments=[types.PromptArgument(name=one, required=True) for one in arguments],
            )
            for name, (_, arguments) in PROMPTS.items()
        ]
    )


async def get_prompt(context, params):
    if params.name not in PROMPTS:
        raise MCPError(types.INVALID_PARAMS, f"there is no prompt {params.name}")
    return await PROMPTS[params.name][0](context, params)


async def complete(context, params):
    values = [word for word in ("paris", "park", "party", "test") if word.startswith(params.argument.value)]
    return types.CompleteResult(completion=types.Completion(values=values, total=len(values), has_more=False))


async def set_level(context, params):
    return types.EmptyResult()


def make_server():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MCPDeprecationWarning)  # what the older revision has
        return Server(
            "reference",
            version="1.0.0",
            on_list_tools=list_tools,
            on_call_tool=call_tool,
            on_list_resources=list_resources,
            on_list_resource_templates=list_templates,
            on_read_resource=read_resource,
            on_subscribe_resource=watch,
            on_unsubscribe_resource=watch,
            on_subscriptions_listen=ListenHandler(InMemorySubscriptionBus()),
            on_list_prompts=list_prompts,
            on_get_prompt=get_prompt,
            on_completion=complete,
            on_set_logging_level=set_level,
        )


async def over_streams():
    server = make_server()
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--http", type=int, metavar="PORT")
    port = parser.parse_args().http
    warnings.simplefilter("ignore", MCPDeprecationWarning)
    if port is None:
        anyio.run(over_streams)
        return
    local = [f"{host}:{port}" for host in ("localhost", "127.0.0.1", "[::1]")]
    security = TransportSecuritySettings(allowed_hosts=local, allowed_origins=[f"http://{one}" for one in local])
    app = make_server().streamable_http_app(transport_security=security)
    print(f"listening on {port}", file=sys.stderr)
    anyio.run(partial(uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning")).serve))


if __name__ == "__main__":
    main()
