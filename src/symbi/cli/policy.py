"""`symbi policy`: check a policy set, explain a decision, run its test cases. All of it works offline."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from symbi.cli.options import Agents, Config, Json
from symbi.cli.output import EXIT_FAILED, errors_to_exit, out, print_json
from symbi.cli.policy_check import check
from symbi.cli.policy_diff import diff
from symbi.cli.policy_explain import explain
from symbi.cli.policy_replay import replay
from symbi.cli.policy_set import set_policies
from symbi.cli.policy_sign import sign
from symbi.cli.policy_suggest import suggest_policies
from symbi.cli.policy_tools import known_to_cases
from symbi.cli.policy_why import why
from symbi.config import load_settings
from symbi.policy.cases import parse_cases, run_cases, verdict_of
from symbi.wiring import known_tools, load_policies, read_text

app = typer.Typer(help="Check, explain, test and replay policies.", no_args_is_help=True)
app.command("check")(check)
app.command("explain")(explain)
app.command("suggest")(suggest_policies)
app.command("why")(why)
app.command("diff")(diff)
app.command("set")(set_policies)
app.command("sign")(sign)
app.command("replay")(replay)


@app.command("test")
def run_files(
    files: Annotated[list[Path], typer.Argument(help="Files of cases (TOML).")],
    *,
    agent_files: Agents = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Run policy test cases; exit code 1 if one fails."""
    with errors_to_exit(as_json=as_json):
        settings = load_settings(config)
        policies = load_policies(settings, agent_files or (), known_tools(settings))
        tools = known_to_cases(settings)
        results = []
        for file in files:
            results += run_cases(policies, parse_cases(str(file), read_text(file), tools))
        failed = [result for result in results if result.problems]
        if as_json:
            print_json(
                [
                    {
                        "name": r.case.name,
                        "passed": not r.problems,
                        "verdict": verdict_of(r.decision),
                        "problems": list(r.problems),
                    }
                    for r in results
                ]
            )
        else:
            for result in results:
                mark = "[bold red]FAIL[/]" if result.problems else "[green]ok[/]  "
                out.print(f"{mark} {escape(result.case.name)}")
                for problem in result.problems:
                    out.print(f"     {escape(problem)}")
            out.print(f"{len(results) - len(failed)} passed, {len(failed)} failed")
        if failed or not results:
            raise typer.Exit(EXIT_FAILED)
