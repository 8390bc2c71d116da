"""What all tests share: deterministic Hypothesis, one event loop back end, and the check that the ledger's tests ran."""

import logging
import tomllib
from pathlib import Path

import anyio.lowlevel
import pytest
from hypothesis import settings

from symbi.testing.docker_engine import python_engine

ROOT = Path(__file__).parents[1]
LEDGER = Path("tests", "acceptance", "ledger.toml")
NARROWING = ("keyword", "deselect", "ignore", "ignore_glob", "lf", "stepwise", "collectonly", "pyargs")
WHOLE_RUNS = ("", "not servers", "servers")  # marker expressions of `pytest`, `make test` and `make test-servers`
DESELECTED = "symbi-deselected"

# The same examples on every run and machine; `--hypothesis-profile=explore` looks for new ones.
settings.register_profile("ci", derandomize=True, print_blob=True, deadline=None, database=None)
settings.register_profile("explore", max_examples=2000, print_blob=True, deadline=None)
settings.load_profile("ci")


@pytest.fixture(autouse=True)
def logging_as_it_was():
    """A command that is run in this process sets logging up for itself alone."""
    loggers = [logging.getLogger(), logging.getLogger("symbi")]
    before = [(logger, logger.level, logger.propagate, logger.disabled) for logger in loggers]
    yield
    for logger, level, propagate, disabled in before:
        logger.setLevel(level)
        logger.propagate, logger.disabled = propagate, disabled
        for handler in [one for one in logger.handlers if type(one).__module__ == "symbi.telemetry"]:
            logger.removeHandler(handler)


@pytest.fixture(scope="session")
def root():
    return ROOT


@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"


class Ahead:
    """The time of an event loop, and some seconds more."""

    def __init__(self, before):
        self.before = before
        self.seconds = 0.0

    def __call__(self):
        return self.before() + self.seconds


@pytest.fixture
def later():
    """Lets time pass all at once for whoever waits on the event loop: when the test says so, however slow the machine is.

    What is on its way into the stores that are named is waited for, since nobody waits for it that long.
    """

    async def let_pass(seconds, *logs):
        while not all(log.at_rest for log in logs):
            await anyio.lowlevel.checkpoint()
        loop = anyio.lowlevel.current_token().native_token
        if not isinstance(loop.time, Ahead):
            loop.time = Ahead(loop.time)
        loop.time.seconds += seconds

    return let_pass


class LedgerCheck:
    """Fails a whole run in which a test that the ledger names was not run, or did not pass.

    A part of the tests, chosen by path, `-k` and the like, is not judged. Of several processes the one that hands tests
    out judges: reports reach it by themselves, and what was left out at collection comes with a worker's end.
    """

    def __init__(self, config):
        self.config = config
        self.deselected = set()
        self.passed = set()
        self.not_passed = {}
        self.missing = []

    def pytest_deselected(self, items):
        self.deselected.update(_plain(item.nodeid) for item in items)

    def pytest_runtest_logreport(self, report):
        name = _plain(report.nodeid)
        if not report.passed:
            self.not_passed[name] = report.outcome
        elif report.when == "call":
            self.passed.add(name)

    @pytest.hookimpl(optionalhook=True)  # of pytest-xdist
    def pytest_testnodedown(self, node, error):
        self.deselected.update(getattr(node, "workeroutput", {}).get(DESELECTED, ()))

    def pytest_sessionfinish(self, session, exitstatus):
        if hasattr(self.config, "workeroutput"):
            self.config.workeroutput[DESELECTED] = sorted(self.deselected)
            return
        if exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED) or not self._is_whole():
            return
        for name in sorted(self._named() - self.deselected):
            outcome = self.not_passed.get(name, "passed" if name in self.passed else "not run")
            if outcome != "passed":
                self.missing.append(f"{name}: {outcome}")
        if self.missing:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter):
        if self.missing:
            terminalreporter.section("tests that the ledger names and that did not pass", red=True)
            for line in self.missing:
                terminalreporter.line(line)

    def _is_whole(self):
        by_path = self.config.args_source is pytest.Config.ArgsSource.ARGS
        narrowed = any(self.config.getoption(name, None) for name in NARROWING)
        return not by_path and not narrowed and self.config.option.markexpr in WHOLE_RUNS

    def _named(self):
        path = self.config.rootpath / LEDGER
        if not path.exists():
            return set()
        return {name for row in tomllib.loads(path.read_text("utf-8"))["row"] for name in row.get("tests", ())}


def _plain(nodeid):
    """The id of a test function without its parameters."""
    return nodeid.partition("[")[0]


def pytest_configure(config):
    config.pluginmanager.register(LedgerCheck(config), "symbi-ledger")


@pytest.fixture(scope="session")
def docker():
    """A Docker Engine with gVisor and an image with Python; where it cannot be started, tests that need it fail."""
    with python_engine() as engine:
        yield engine
