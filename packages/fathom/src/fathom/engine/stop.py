"""Stop strings in a text that arrives in pieces: found across every border, and nothing of them is shown.

The automaton of Aho and Corasick 1975, "Efficient string matching": time is linear in the text, however many
stop strings there are and however small the pieces. A state is the longest end of the text that begins a stop
string, so its depth is how many characters must be held back, and no more.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from functools import lru_cache


class StopFinder:
    """Finds the first place where one of `stops` is complete; of two that end there, the longer one counts.

    Where the text is cut into pieces changes nothing.
    """

    def __init__(self, stops: tuple[str, ...]) -> None:
        """No stop string may be empty."""
        assert all(stops), "an empty stop string is in every text"
        self._root = self._state = _automaton(stops)
        self._held = ""
        self.found = False

    def push(self, text: str) -> tuple[str, bool]:
        """What of the text so far is new and certain to come before every stop string; whether one was found.

        From then on nothing is returned: what followed is dropped.
        """
        if self.found:
            return "", True
        state, before = self._state, len(self._held)
        text = self._held + text
        for place in range(before, len(text)):
            state = state.after(text[place])
            if state.match:
                self.found, self._held = True, ""
                return text[: place + 1 - state.match], True
        self._state, self._held = state, text[len(text) - state.depth :]
        return text[: len(text) - state.depth], False

    def end(self) -> str:
        """The text ends here: what was held back and is no stop string after all."""
        held, self._held, self._state = self._held, "", self._root
        return held


@dataclass(eq=False, slots=True)
class _State:
    depth: int  # characters of the longest beginning of a stop string that the text ends with
    match: int = 0  # characters of the longest stop string that the text ends with
    shorter: _State | None = None  # the state of the next longest beginning; the root has none
    step: dict[str, _State] = field(default_factory=dict)

    def after(self, character: str) -> _State:
        state: _State = self
        while character not in state.step:
            if state.shorter is None:
                return state
            state = state.shorter
        return state.step[character]


@lru_cache(maxsize=64)
def _automaton(stops: tuple[str, ...]) -> _State:
    root = _State(0)
    for stop in stops:
        state = root
        for character in stop:
            state = state.step.setdefault(character, _State(state.depth + 1))
        state.match = len(stop)
    queue = deque(root.step.values())
    for state in queue:
        state.shorter = root
    while queue:
        state = queue.popleft()
        assert state.shorter is not None
        for character, longer in state.step.items():
            longer.shorter = state.shorter.after(character)
            longer.match = max(longer.match, longer.shorter.match)
            queue.append(longer)
    return root
