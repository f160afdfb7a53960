"""What one rank finds wrong, all raise: the same error, at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from fathom.config.errors import ConfigError, DataError, DiskError, FathomError
from fathom.config.load import load_recipe
from fathom.parallel.agree import agree, fingerprint, together
from fathom.parallel.group import Alone, Group, RankFailedError
from fathom.parallel.threads import Threads


def everyone_says(size: int, function: Callable[[Group], Any]) -> FathomError:
    """The error that every rank raises, the same everywhere."""

    def work(group: Group) -> FathomError | None:
        try:
            function(group)
        except FathomError as error:
            return error
        return None

    errors = Threads(size, patience_s=5.0).run(work)
    assert errors[0] is not None
    assert {(type(error), str(error)) for error in errors} == {(type(errors[0]), str(errors[0]))}
    assert "\n" not in str(errors[0])
    return errors[0]


def test_ranks_that_run_the_same_agree() -> None:
    mine = fingerprint(load_recipe("tiny").recipe)
    assert mine == fingerprint(load_recipe("tiny").recipe)
    assert set(mine) == {"recipe", "code", "torch"} and mine["torch"] == torch.__version__
    Threads(4).run(lambda group: agree(group, mine))
    agree(Alone(), mine)


def test_any_setting_that_differs_is_another_recipe() -> None:
    recipe = load_recipe("tiny").recipe
    other = replace(recipe, train=replace(recipe.train, seed=recipe.train.seed + 1))
    mine, theirs = fingerprint(recipe), fingerprint(other)
    assert mine["recipe"] != theirs["recipe"]
    assert mine == theirs | {"recipe": mine["recipe"]}


@pytest.mark.parametrize("odd", [0, 1, 3])
def test_the_rank_that_differs_is_named(odd: int) -> None:
    """By what most ranks have, not by what rank 0 has."""
    error = everyone_says(4, lambda group: agree(group, {"torch": "2.12" if group.rank == odd else "2.13"}))
    most = 1 if odd == 0 else 0
    assert isinstance(error, ConfigError)
    assert str(error) == (
        f"torch is not the same on all ranks: rank {most} has '2.13', but rank {odd} has '2.12'. "
        "Fix: install the same torch on every machine"
    )


def test_of_many_that_differ_some_are_named() -> None:
    error = everyone_says(12, lambda group: agree(group, {"recipe": "new" if group.rank > 6 else "old"}))
    assert "rank 7 has 'new', 8 has 'new', 9 has 'new', 10 has 'new' and 1 more" in str(error)


def test_a_rank_that_knows_less_differs() -> None:
    error = everyone_says(3, lambda group: agree(group, {} if group.rank == 1 else {"tokens": "c"}))
    assert "rank 1 has 'none'. Fix: give every rank the same tokens" in str(error)


def test_what_a_function_returns_is_its_own() -> None:
    assert Threads(3).run(lambda group: together(group, lambda: group.rank)) == [0, 1, 2]
    assert Threads(2).run(lambda group: together(group, lambda: None)) == [None, None]
    assert together(Alone(), lambda: 5) == 5


@pytest.mark.parametrize("kind", [ConfigError, DataError, DiskError, FathomError])
def test_an_error_of_one_rank_is_everyones(kind: type[FathomError]) -> None:
    def read(group: Group) -> None:
        if group.rank in (1, 2):
            raise kind(f"no corpus on machine {group.rank}. Fix: copy it there")

    error = everyone_says(4, lambda group: together(group, lambda: read(group)))
    assert type(error) is kind and error.exit_code == kind.exit_code
    assert str(error) == "on rank 1: no corpus on machine 1. Fix: copy it there"


def test_an_error_of_all_names_no_rank() -> None:
    def read() -> None:
        raise DataError("no corpus. Fix: build it")

    error = everyone_says(3, lambda group: together(group, read))
    assert type(error) is DataError and str(error) == "no corpus. Fix: build it"
    with pytest.raises(DataError, match=r"^no corpus\. Fix: build it$"):
        together(Alone(), read)


def test_a_fault_of_the_program_is_not_dressed_up() -> None:
    def work(group: Group) -> None:
        def read() -> None:
            if group.rank == 1:
                raise ZeroDivisionError("a fault")

        together(group, read)

    with pytest.raises(ZeroDivisionError, match="a fault"):
        Threads(2).run(work)


def test_a_lost_rank_is_not_asked_again() -> None:
    def lose() -> None:
        raise RankFailedError("rank 3 is gone. Fix: start again")

    with pytest.raises(RankFailedError, match="^rank 3 is gone"):
        Threads(2, patience_s=5.0).run(lambda group: together(group, lose))
