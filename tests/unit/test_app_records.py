"""What a record's own checks say: every wrong value by its path."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import pydantic
import pytest

from millstream import App, AppError
from millstream.errors import FunctionError, InvalidRequest
from tests.unit.app_bench import Bench, bench

Short = Annotated[str, pydantic.Field(min_length=2)]


class Address(pydantic.BaseModel):
    city: Short


class User(pydantic.BaseModel):
    name: Short
    age: Annotated[int, pydantic.Field(ge=0)] = 0
    more: Any = None
    address: Address | None = None

    @pydantic.model_validator(mode="after")
    def _grown(self) -> User:
        if self.name == "child":
            raise ValueError("is too young")
        return self


class Many(pydantic.BaseModel):
    grid: Any

    @pydantic.field_validator("grid")
    @classmethod
    def _numbers(cls, value: Any) -> Any:
        return pydantic.TypeAdapter(list[int]).validate_python(value)


@dataclass
class Point:
    x: int

    def __post_init__(self) -> None:
        if self.x == -1:
            raise ValueError("x is negative")
        if self.x == -2:
            raise ValueError
        if self.x == -3:
            raise InvalidRequest("want one above", field="x")
        if self.x == -4:
            raise AppError("NOT_FOUND", "no such point")
        if self.x == -5:
            raise ValueError("x" * 10_000)


def records() -> App:
    app = App()

    @app.model("call")
    def call(
        user: User | None = None,
        users: list[User] | None = None,
        many: Many | None = None,
        points: list[Point] | None = None,
        named: dict[str, Point] | None = None,
    ) -> None: ...

    return app


async def refused(running: Bench, **inputs: Any) -> tuple[str, str]:
    """The message and the field of a refusal."""
    with pytest.raises(InvalidRequest) as raised:
        await running.call(**inputs)
    return raised.value.message, raised.value.field


SHORT = "String should have at least 2 characters"
NEGATIVE = "Input should be greater than or equal to 0"


@pytest.mark.parametrize(
    ("inputs", "message", "field"),
    [
        ({"user": {"name": "x"}}, f"user.name: {SHORT}", "user.name"),
        (
            {"user": {"name": "x", "age": -1}},
            f"user.name: {SHORT}; user.age: {NEGATIVE}",
            "user.name",
        ),
        ({"user": {"name": "child"}}, "user: Value error, is too young", "user"),
        (
            {"users": [{"name": "ok"}, {"name": "ok", "address": {"city": ""}}]},
            f"users[1].address.city: {SHORT}",
            "users[1].address.city",
        ),
        ({"points": [{"x": 1}, {"x": -1}]}, "points[1]: x is negative", "points[1]"),
        ({"points": [{"x": -2}]}, "points[0]: ValueError", "points[0]"),
        ({"points": [{"x": -3}]}, "points[0].x: want one above", "points[0].x"),
        ({"named": {"a": {"x": -1}}}, "named['a']: x is negative", "named['a']"),
    ],
)
async def test_all_that_is_wrong_with_a_value_is_told(
    inputs: dict[str, Any], message: str, field: str
) -> None:
    async with bench(records()) as running:
        assert await refused(running, **inputs) == (message, field)


async def test_what_is_told_is_bounded() -> None:
    async with bench(records()) as running:
        message, field = await refused(running, many={"grid": ["x"] * 12})
        assert field == "many.grid[0]"
        assert message.count("; ") == 10
        assert message.endswith("; and 2 more")
        message, field = await refused(running, points=[{"x": -5}])
        assert (len(message), field) == (2048, "points[0]")


async def test_a_status_of_a_records_own_stays_as_it_is() -> None:
    async with bench(records()) as running:
        with pytest.raises(FunctionError, match=r"^no such point$") as raised:
            await running.call(points=[{"x": -4}])
        assert raised.value.code == 5
