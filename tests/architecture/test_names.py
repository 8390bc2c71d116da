"""Rules of the code that no linter knows: names, sizes, swallowed errors, the public surface."""

import ast
import importlib
import re

MAX_LINES = 500
MAX_PUBLIC_NAMES = 25
MAX_PORT_METHODS = 5
PORTS = {"port.py", "ledger.py", "journal.py", "approval.py"}  # where ports stand
VAGUE_ENDINGS = ("Manager", "Handler", "Orchestrator", "Controller", "Helper", "Util", "Utils")

# The only places where any exception at all may be caught without being raised again, and why.
CATCHES_ALL = {
    "adapters/mcp/calls.py": "a caller that fails to take what it is told does not lose the answer; what a call raises is raised outside of its group",
    "adapters/mcp/session.py": "whatever the protocol's library raises is kept and mapped to an error of ours",
    "adapters/qdrant_edge/program.py": "the engine raises `Exception` itself; it is an answer, and the parent says whose fault it is",
    "agent/meter.py": "whatever is thrown into a coroutine that is measured is thrown on into its body",
    "api/control.py": "the outermost place of the control socket: a defect answers one caller and ends no run",
    "api/mcp/serving.py": "the outermost place of the gateway: a defect answers one client and ends no other",
    "audit/log.py": "handed to every caller that waits for the commit",
    "bus/outbox.py": "what a handler raises is counted, logged, and tried again or a dead letter; it ends no other",
    "bus/receiving.py": "what a handler raises is counted and logged, and ends neither the bus nor who waits behind",
    "bus/requests.py": "what a handler raises is an answer to whoever asked: a code, and nothing of the text",
    "bus/sending.py": "raised by each of those whose messages go together",
    "guard/gate.py": "whatever an engine raises is a no, and is recorded as one",
    "runtime/asking.py": "a defect that a run meets which another asked for is an error of the one that waits for it",
    "runtime/dispatch.py": "a defect that one agent meets with its messages is logged, and ends no other",
    "runtime/supervision.py": "a defect that one run meets is logged, judged by the table, and ends no other",
    "runtime/policy_shadow.py": "a candidate set that fails must not touch the set in force; failures are counted",
    "sandbox/inside/command.py": "in a container too: whatever keeps a program from being begun ends the process that was made for it",
    "sandbox/inside/code.py": "runs in a container, not here: whatever the code there raises is the answer",
    "policy/engine.py": "a failed evaluation denies; a subscriber that fails is reported after all have heard",
}


def test_no_class_has_a_vague_name(modules):
    found = [
        f"{path.name}:{node.lineno} {node.name}"
        for path, _, tree in modules
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and node.name.endswith(VAGUE_ENDINGS)
    ]
    assert found == []


def test_no_file_is_longer_than_a_sitting(repository, root):
    long = {
        str(path.relative_to(root)): lines
        for path in repository
        if path.suffix == ".py" and (lines := len(path.read_text("utf-8").splitlines())) >= MAX_LINES
    }
    assert long == {}


def test_no_error_is_swallowed(modules, root):
    silent = []
    catching_all = set()
    for path, text, tree in modules:
        place = str(path.relative_to(root / "src/symbi"))
        lines = text.splitlines()
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler):
                gives_a_reason = any("#" in line for line in lines[node.lineno - 1 : node.end_lineno])
                if says_nothing(node) and (names_all(node) or not gives_a_reason):
                    silent.append(f"{place}:{node.lineno}")
                if catches_all(node):
                    catching_all.add(place)
            elif isinstance(node, ast.Call) and suppresses_all(node):
                silent.append(f"{place}:{node.lineno}")
    assert silent == []
    assert catching_all == set(CATCHES_ALL)


def says_nothing(handler):
    return all(isinstance(part, ast.Pass) or is_ellipsis(part) for part in handler.body)


def is_ellipsis(part):
    return isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant) and part.value.value is ...


def catches_all(handler):
    raises = any(isinstance(part, ast.Raise) for part in ast.walk(handler))
    return (handler.type is None or names_all(handler.type)) and not raises


def names_all(node):
    return any(isinstance(part, ast.Name) and part.id in ("Exception", "BaseException") for part in ast.walk(node))


def suppresses_all(call):
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    return name == "suppress" and any(names_all(argument) for argument in call.args)


def test_every_silenced_rule_says_why(modules, root):
    found = [
        f"{path.relative_to(root)}:{number}"
        for path, text, _ in modules
        for number, line in enumerate(text.splitlines(), 1)
        if re.search(r"#\s*noqa", line) and not re.search(r"# noqa: [A-Z]+\d+(, [A-Z]+\d+)* - \w", line)
    ]
    assert found == []


def test_a_port_has_at_most_five_methods(modules, root):
    found = []
    for path, _, tree in modules:
        for node in tree.body if path.name in PORTS else ():
            if isinstance(node, ast.ClassDef) and any(names_protocol(base) for base in node.bases):
                methods = [part.name for part in node.body if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)]
                own = [name for name in methods if not name.startswith("__")]
                if len(own) > MAX_PORT_METHODS:
                    found.append(f"{path.relative_to(root)}: {node.name} has {len(own)}")
    assert found == []


def names_protocol(base):
    return any(isinstance(part, ast.Name) and part.id == "Protocol" for part in ast.walk(base))


def test_every_method_of_a_port_that_has_an_effect_takes_a_permit_first(modules):
    """Ports to tools and sandboxes: what is neither a property nor a context method nor storage takes a `Permit`.

    A ping alone hands nothing over and asks for nothing; and what a permit has begun ends without one.
    """
    free = {"ping", "unsubscribe"}
    for name in ("ToolServer", "ServerSession", "ResourceUpdates", "SandboxDriver"):
        port = next(node for _, _, tree in modules for node in tree.body if getattr(node, "name", "") == name)
        for part in port.body:
            if isinstance(part, ast.AsyncFunctionDef) and not part.name.startswith("__") and part.name not in free:
                first = part.args.args[1]
                assert first.arg == "permit", part.name
                assert ast.unparse(first.annotation).startswith("Permit["), part.name


def test_the_public_surface_is_small_sorted_and_there():
    symbi = importlib.import_module("symbi")
    names = symbi.__all__
    assert len(names) <= MAX_PUBLIC_NAMES
    assert list(names) == sorted(names, key=lambda name: (0 if name.isupper() else 1 if name[0].isupper() else 2, name))
    assert len(set(names)) == len(names)
    for name in names:
        assert getattr(symbi, name) is not None
