"""The requests of calls, in the protocol's form; each carries its effect's id."""

from collections.abc import Mapping
from typing import Any, Final, cast

from mcp_types import (
    CallToolRequest,
    CallToolRequestParams,
    CompleteRequest,
    CompleteRequestParams,
    CompletionArgument,
    CompletionContext,
    GetPromptRequest,
    GetPromptRequestParams,
    ListPromptsRequest,
    ListResourcesRequest,
    ListResourceTemplatesRequest,
    ListToolsRequest,
    PaginatedRequestParams,
    PromptReference,
    ReadResourceRequest,
    ReadResourceRequestParams,
    Request,
    RequestParamsMeta,
    ResourceTemplateReference,
)

from symbi.adapters.mcp.session import Make
from symbi.guard.action import Complete, GetPrompt, ReadResource
from symbi.tools.port import PROMPTS, RESOURCES, TEMPLATES
from symbi.types import EffectId, JsonValue

EFFECT_ID_KEY: Final = "symbi/effect-id"
"""Key in the `_meta` of a request: the effect's id, which a server may take as an idempotency key. The prefix is one
label, `symbi`; the protocol reserves prefixes whose second label is `mcp` or `modelcontextprotocol`."""

Answers = Mapping[str, Any] | None


def tool_call(name: str, arguments: JsonValue, effect_id: EffectId) -> Make:
    """The call of a tool."""

    def make(answers: Answers, state: str | None, meta: Mapping[str, Any]) -> CallToolRequest:
        return CallToolRequest(
            params=CallToolRequestParams(
                name=name,
                arguments=cast("dict[str, Any]", arguments),
                input_responses=cast("dict[str, Any] | None", answers),
                request_state=state,
                _meta=_meta(effect_id, meta),
            )
        )

    return make


def resource(action: ReadResource, effect_id: EffectId) -> Make:
    """The reading of a resource."""

    def make(answers: Answers, state: str | None, meta: Mapping[str, Any]) -> ReadResourceRequest:
        return ReadResourceRequest(
            params=ReadResourceRequestParams(
                uri=action.uri,
                input_responses=cast("dict[str, Any] | None", answers),
                request_state=state,
                _meta=_meta(effect_id, meta),
            )
        )

    return make


def prompt(action: GetPrompt, effect_id: EffectId) -> Make:
    """The filling in of a prompt."""

    def make(answers: Answers, state: str | None, meta: Mapping[str, Any]) -> GetPromptRequest:
        return GetPromptRequest(
            params=GetPromptRequestParams(
                name=action.name,
                arguments=dict(action.values),
                input_responses=cast("dict[str, Any] | None", answers),
                request_state=state,
                _meta=_meta(effect_id, meta),
            )
        )

    return make


def completing(action: Complete) -> CompleteRequest:
    """How an argument may go on."""
    ref: PromptReference | ResourceTemplateReference = (
        PromptReference(type="ref/prompt", name=action.name)
        if action.of == "prompt"
        else ResourceTemplateReference(type="ref/resource", uri=action.name)
    )
    return CompleteRequest(
        params=CompleteRequestParams(
            ref=ref,
            argument=CompletionArgument(name=action.argument, value=action.value),
            context=CompletionContext(arguments=dict(action.others)) if action.others else None,
        )
    )


LISTS: Final[Mapping[str, tuple[type[Request[Any, Any]], str]]] = {
    RESOURCES: (ListResourcesRequest, "resources"),
    TEMPLATES: (ListResourceTemplatesRequest, "resourceTemplates"),
    PROMPTS: (ListPromptsRequest, "prompts"),
}
"""Request and key of its answer, by what is listed."""


def list_tools(params: PaginatedRequestParams | None) -> ListToolsRequest:
    """One page of tools."""
    return ListToolsRequest(params=params)


def listing(kind: type[Request[Any, Any]], params: PaginatedRequestParams | None) -> Request[Any, Any]:
    """One page of something else."""
    return kind.model_validate({"params": params})


def _meta(effect_id: EffectId, more: Mapping[str, Any]) -> RequestParamsMeta:
    return cast("RequestParamsMeta", {EFFECT_ID_KEY: effect_id, **more})
