"""Runs of `symbi run` that policy or a limit ends: what is said of them, and how they go on. Whole commands, as a user gives them."""

DENIED, FAILED = 3, 1
QUIET = '\n@id("quiet") forbid (principal, action in Action::"InvokeTool", resource);\n'


def permit(workshop, more: str = "") -> None:
    file = workshop.folder / "policies" / "all.cedar"
    workshop.put("policies/all.cedar", file.read_text().replace(QUIET, "") + more)


def test_a_denied_run_is_held_says_how_it_goes_on_and_does_once_policy_lets_it(workshop):
    workshop.write()
    permit(workshop, QUIET)
    said = workshop.run_inside()
    error = said.error(DENIED, "quiet")
    assert error.startswith("error: work.symbi:5:")
    run_id = next(e.run_id for e in workshop.trail() if e.event_type == "run.started")
    assert f"run {run_id} is held" in said.stderr.replace("\n", " ")
    assert "symbi run --resume --run" in said.stderr
    assert workshop.untouched()
    assert workshop.inside("run", "--resume").code == DENIED  # it is asked again, and refused again
    permit(workshop)
    done = workshop.inside("run", "--resume", "--run", run_id)
    assert done.code == 0, done.stderr
    assert len(workshop.sent()) == 1
    states = [e.details["to"] for e in workshop.trail() if e.event_type == "agent.transition"]
    assert states == ["Ready", "Running", "Suspended", "Running", "Suspended", "Running", "Ready", "Terminated"]


def test_a_run_out_of_steps_goes_on_with_more_of_them(workshop):
    workshop.write("for i in range(50000) { let x = 1; }", steps=1000)
    assert "limit.steps" in workshop.run_inside().error(FAILED, "limit.steps")
    assert workshop.untouched()
    workshop.write("for i in range(50000) { let x = 1; }", steps=1_000_000)
    done = workshop.inside("run", "--resume")
    assert done.code == 0, done.stderr
    assert workshop.sent()


def test_what_failed_is_over(workshop):
    workshop.write('int("x");')
    said = workshop.run_inside()
    said.error(FAILED)
    assert "--resume" not in said.stderr
    workshop.inside("run", "--resume").error(2, "there is no run to resume")
