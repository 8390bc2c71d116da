"""What is unsafe: refused in production, said aloud in development."""

from collections.abc import Iterator
from ipaddress import ip_address
from urllib.parse import urlsplit

from symbi.config.agent_settings import AgentMode
from symbi.config.mcp_settings import ToolVerification
from symbi.config.sections import KEYS, Mode
from symbi.config.settings import Settings
from symbi.errors import ConfigError
from symbi.policy.compose import AgentRules


def refuse_unsafe(settings: Settings) -> tuple[str, ...]:
    """Judge the settings before anything opens.

    Returns:
        Warnings, one line each: every unsafe setting (in development mode), what is allowed and worth a word, every key
        that has no effect beside what else is set, and every value that was taken as another one.

    Raises:
        ConfigError: Production mode, and a setting is unsafe; the message names all that are.
    """
    unsafe = tuple(_unsafe(settings))
    if settings.runtime.mode is Mode.PRODUCTION and unsafe:
        key, reason, hint = unsafe[0]
        rest = "".join(f"; `{other}`: {why}" for other, why, _ in unsafe[1:])
        msg = f"refused in production mode: `{key}` ({settings.origin(key)}): {reason}{rest}"
        raise ConfigError(msg, code="config.unsafe", place=settings.origin(key).place, hint=hint)
    return (
        *(f"unsafe: `{key}` ({settings.origin(key)}): {reason}; {hint}" for key, reason, hint in unsafe),
        *_risky(settings),
        *_deaf(settings),
        *(
            f"`{key}` ({settings.origin(key)}): `{given}` is taken as `{_show(settings, key)}`"
            for key, given in settings.spelled.items()
            if key == "security.crypto_provider"
        ),
    )


def require_embedding_dimension(settings: Settings, embedder: str, dimension: int) -> None:
    """Refuse an `embedding_dimension` that is not the embedder's.

    Args:
        settings: With or without a dimension of their own.
        embedder: Name of the embedder, for the message.
        dimension: Length of its vectors.

    Raises:
        ConfigError: The two differ; the message names both.
    """
    wanted = settings.context.embedding_dimension
    if wanted is not None and wanted != dimension:
        origin = settings.origin("context.embedding_dimension")
        msg = f"`context.embedding_dimension` is {wanted}, but the embedder `{embedder}` makes vectors of {dimension}"
        raise ConfigError(
            msg, code="config.dimension", place=origin.place, hint="remove the key or change the embedder"
        )


def _unsafe(settings: Settings) -> Iterator[tuple[str, str, str]]:
    """Key, what is wrong, what to do."""
    if not settings.security.enforce_policies:
        yield "security.enforce_policies", "a denied action happens all the same", "set it to true"
    if not settings.security.audit_enabled:
        yield "security.audit_enabled", "the trail is lost when the process ends", "set it to true"
    if settings.mcp.tool_verification is ToolVerification.DISABLED:
        yield "mcp.tool_verification", "tools are called unverified", "set it to `strict`"
    gateway = settings.gateway
    if gateway.http and not _is_loopback(gateway.host) and gateway.tls_cert is None and not gateway.behind_proxy:
        hint = "set `gateway.tls_cert` and `gateway.tls_key`, or `gateway.behind_proxy` where a proxy does TLS"
        yield "gateway.host", "tokens and what tools answer cross the network in the clear", hint
    if not settings.policy.paths:
        yield "policy.paths", "there is no policy: every action would be denied", "name a folder of policies"
    context = settings.context
    if is_open_http(context.vector_db_url):
        yield (
            "context.vector_db_url",
            "vectors, and the key if there is one, go over the network unencrypted",
            "use https:",
        )
    if context.embedder.startswith("openai:") and is_open_http(context.embedder_url):
        yield (
            "context.embedder_url",
            "texts, and the key if there is one, go over the network unencrypted",
            "use https:",
        )
    knowledge = settings.knowledge
    if knowledge.answer_model is not None and is_open_http(knowledge.answer_base_url):
        hint = "use https:"
        yield (
            "knowledge.answer_base_url",
            "passages, and the key if there is one, go over the network unencrypted",
            hint,
        )
    if knowledge.answer_model is not None and knowledge.answer_local and not is_this_machine(knowledge.answer_base_url):
        hint = "leave it out, or name an address of this machine"
        yield (
            "knowledge.answer_local",
            "`knowledge.answer_base_url` is of another machine, and policies are told so",
            hint,
        )


def is_open_http(url: str) -> bool:
    """Whether what is said there can be heard by others: plain HTTP to another machine."""
    return urlsplit(url).scheme == "http" and not is_this_machine(url)


def is_this_machine(url: str) -> bool:
    """Whether an address is one that no other machine answers."""
    return urlsplit(url).hostname in {"localhost", "127.0.0.1", "::1"}


def _is_loopback(host: str) -> bool:
    try:
        return host.lower() == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _risky(settings: Settings) -> Iterator[str]:
    """What is allowed in production too, and worth a word."""
    if settings.runtime.mode is Mode.PRODUCTION and settings.policy.agent_rules is AgentRules.FULL:
        origin = settings.origin("policy.agent_rules")
        yield f"`policy.agent_rules` ({origin}): an agent file permits itself what no forbid takes away"
    if settings.mcp.tool_verification is ToolVerification.TOFU:
        origin = settings.origin("mcp.tool_verification")
        yield f"`mcp.tool_verification` ({origin}): unsigned tools are trusted at first sight; `strict` asks for signatures"
    if settings.mcp.tool_verification is ToolVerification.STRICT:
        for server in settings.mcp.servers:
            if server.public_key is None:
                yield f"`mcp.servers.{server.name}` has no `public_key`: without a pinned key its tools will be refused"


def _deaf(settings: Settings) -> Iterator[str]:
    """What is said of the mailboxes of agents that have none."""
    for agent in settings.agents:
        for name in ("topics", "idle_s", "max_messages"):
            key = f"agents.{agent.name}.{name}"
            if agent.mode is not AgentMode.PERSISTENT and key in settings.origins:
                yield f"no effect: `{key}` ({settings.origin(key)}): it lives for one run; set `mode` to `persistent`"


def _show(settings: Settings, key: str) -> str:
    declared = KEYS[key]
    return declared.show(getattr(getattr(settings, declared.section), declared.field))
