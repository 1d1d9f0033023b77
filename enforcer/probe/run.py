"""Plays the catalogue: every technique outside and inside, for every user, judged by what the far side saw."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enforcer.probe import host_stages  # noqa: F401 - enters its stages
from enforcer.probe.ground import FIRST_PORT, HOME, PEER, Ground
from enforcer.probe.inside.kit import Technique
from enforcer.probe.launch import Agent, Mode, Outside, run_once
from enforcer.probe.neighbour import Neighbour
from enforcer.probe.results import Attempt, Outcome, Result, judge
from enforcer.probe.sight import Sight, Sighting
from enforcer.probe.stages import DETOUR, STAGES, Props, Scene, Unprepared


@dataclass(slots=True)
class _Try:
    """One side of a technique: what the client said, and what was seen of it, which may still grow."""

    sighting: Sighting
    answer: dict[str, str]
    seconds: float


class Run:
    """One run over chosen techniques. `show` gets each result as soon as it is known."""

    def __init__(
        self,
        mode: Mode,
        users: Sequence[str],
        techniques: Sequence[Technique],
        policies: Path,
        show: Callable[[Result], None] = lambda _result: None,
    ) -> None:
        self._mode = mode
        self._users = users
        self._techniques = techniques
        self._policies = policies
        self._show = show
        self._next_port = FIRST_PORT
        # Has a technique taken the enforcer's programs away?
        self._taken_off = False

    def results(self) -> list[Result]:
        """Plays everything and returns what was found, in the catalogue's order, user by user."""
        with ExitStack() as stack:
            self._ground = stack.enter_context(
                Ground(
                    self._policies,
                    2 * len(self._techniques) * len(self._users),
                    attached=self._mode.takes_over,
                )
            )
            self._sight = Sight(self._ground.witness)
            self._sight.watch(None, DETOUR)
            neighbours = {user: stack.enter_context(Neighbour(self._ground, user)) for user in self._users}
            tries = {}
            for user in self._users:
                tries.update(self._of_user(user, neighbours[user]))
            self._disturb(tries, neighbours)
            self._sight.watch(None, DETOUR)
            return [self._result(technique, user, *both) for (user, technique), both in tries.items()]

    def _of_user(self, user: str, neighbour: Neighbour) -> dict[tuple[str, Technique], tuple[_Try | None, _Try]]:
        """Controls first, then inside. Controls that disturb the enforcer are not made here."""
        mine = [one for one in self._techniques if one.users == "both" or user == "root"]
        found: dict[tuple[str, Technique], tuple[_Try | None, _Try]] = {}
        with Agent(self._ground, Outside(), user) as outside:
            controls = {one.name: self._try(one, user, neighbour, outside) for one in mine if not one.last}
        self._sight.watch(None, DETOUR)
        with Agent(self._ground, self._mode, user) as inside:
            for one in mine:
                tried = self._try(one, user, neighbour, inside)
                control = controls.get(one.name)
                found[user, one] = (control, tried)
                if control is not None:
                    self._show(self._result(one, user, control, tried))
        self._sight.watch(None, DETOUR)
        return found

    def _disturb(
        self, tries: dict[tuple[str, Technique], tuple[_Try | None, _Try]], neighbours: dict[str, Neighbour]
    ) -> None:
        """The controls that are left."""
        for (user, technique), (control, tried) in tries.items():
            if control is None:
                with Agent(self._ground, Outside(), user) as outside:
                    made = self._try(technique, user, neighbours[user], outside)
                tries[user, technique] = (made, tried)
                self._show(self._result(technique, user, made, tried))

    def _try(self, technique: Technique, user: str, neighbour: Neighbour, agent: Agent) -> _Try:
        """Makes one attempt and watches what comes of it."""
        begun = time.monotonic()
        if self._taken_off:
            self._ground.renew()
            self._taken_off = False
        self._ground.heal()
        inside = not isinstance(agent.mode, Outside)
        token, port = secrets.token_hex(8), self._next_port
        self._next_port += 1
        sighting = self._sight.begin(token, port)
        scene = Scene(self._ground, neighbour, user, token, port, inside)
        with ExitStack() as stack:
            try:
                props = stack.enter_context(STAGES[technique.stage](scene))
            except (Unprepared, OSError) as error:
                answer = {"outcome": Outcome.MISSING, "detail": str(error)}
            else:
                answer = self._act(technique, scene, agent, props)
                self._sight.watch(sighting, props.quiet)
        return _Try(sighting, answer, time.monotonic() - begun)

    def _act(self, technique: Technique, scene: Scene, agent: Agent, props: Props) -> dict[str, str]:
        """Has the technique run on its stage; tells the far side if it reached what only we can see."""
        case = {
            "peer4": PEER.address,
            "peer6": PEER.address6,
            "home4": HOME.address,
            "home6": HOME.address6,
            "port": scene.port,
            "token": scene.token,
            "inside": scene.inside,
            "values": props.values,
        }
        task: dict[str, Any] = {"technique": technique.name, "case": case, "limit": technique.limit}
        if technique.start:
            task["keep_stdin"] = True
            answer = run_once(self._ground, agent.mode, scene.user, task, props)
        else:
            answer = agent.run(task)
        told = props.believed and answer["outcome"] == Outcome.DONE
        reached = props.reached()
        # By what was changed, not by what the far side saw of it: that may come later than the next technique.
        self._taken_off = technique.last and reached
        if reached or told:
            scene.neighbour.relay(scene.token)
        return answer

    def _result(self, technique: Technique, user: str, control: _Try | None, inside: _Try) -> Result:
        if control is None:
            raise ValueError(f"{technique.name} has no control")
        control_attempt, inside_attempt = (_attempt(one, technique) for one in (control, inside))
        finding, reason = judge(control_attempt, inside_attempt)
        return Result(
            technique.name,
            technique.group,
            self._mode.name,
            user,
            finding,
            reason,
            control_attempt,
            inside_attempt,
            round(control.seconds + inside.seconds, 3),
        )


def _attempt(tried: _Try, technique: Technique) -> Attempt:
    seen = tried.sighting
    counts = seen.token_seen or not technique.token_only
    return Attempt(
        Outcome(tried.answer["outcome"]),
        tried.answer["detail"],
        seen.token,
        seen.token_seen,
        tuple(seen.frames) if counts else (),
        seen.frame_count if counts else 0,
    )
