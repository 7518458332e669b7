"""What the decorator refuses beyond types: no name, a taken service, a wrong default."""
# mypy: disable-error-code="valid-type,name-defined,misc,syntax,type-arg,assignment"

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Annotated, Any, Literal, NewType

import numpy as np
import pydantic
import pytest
import torch

from millstream import App, Audio, Context, Depends, Image, Tensor, TorchTensor
from tests.unit.app_bench import bench


class Color(Enum):
    RED = 1
    GREEN = "g"


@dataclass
class Point:
    x: int
    tags: list[str] = field(default_factory=list)
    at: datetime | None = None


class Person(pydantic.BaseModel):
    name: str
    near: Point | None = None


Name = NewType("Name", str)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
ZEROS = np.zeros(3, np.float32)
MARK = object()


def hello(name: str) -> str:
    return name


def refuse(annotation: Any, default: Any) -> str:
    """Why a parameter's default is refused."""

    def call(x: Any = default) -> None: ...

    call.__annotations__["x"] = annotation
    with pytest.raises(TypeError) as raised:
        App().model("call")(call)
    return str(raised.value)


def test_a_decorator_without_its_parentheses_says_so() -> None:
    app = App()
    with pytest.raises(TypeError, match=r'^hello: write @app.model\("hello"\), with the name'):
        app.model(hello)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r'Point: write @app.model\("Point"\)'):
        app.model(Point)  # type: ignore[arg-type]
    assert not app.models


def test_names_that_are_one_service_are_refused() -> None:
    app = App()
    app.model("my-model")(hello)
    app.model("my-model", version="2.0")(hello)
    with pytest.raises(
        TypeError,
        match=r"model 'my_model', hello: its service would be millstream.models.MyModel, as is "
        "that of my-model@1: choose another name",
    ):
        app.model("my_model")(hello)
    with pytest.raises(TypeError, match="as is that of my-model@1: choose another name"):
        app.model("MyModel", version="3")(hello)
    with pytest.raises(TypeError, match=r"v2_0.MyModel, as is that of my-model@2.0: .* version"):
        app.model("my-model", version="2_0")(hello)
    app.model("mymodel")(hello)
    assert list(app.models) == ["my-model@1", "my-model@2.0", "mymodel@1"]


@pytest.mark.parametrize(
    ("annotation", "default", "why"),
    [
        (int, "abc", "its default 'abc' does not fit int: want int, got str"),
        (int, 1.5, "want int, got float"),
        (int, True, "want int, got bool"),
        (str | None, 3, r"does not fit str | None: want str, got int"),
        (bytes, "x", "want bytes, got str"),
        (Color, "RED", "want Color, got str"),
        (Literal["a", "b"], "c", "want one of a, b"),
        (datetime, "2026-01-01", "want datetime, got str"),
        (list[int], [1, "x"], "its default [1, 'x'] does not fit list[int]: [1]: want int"),
        (list[str], "ab", "want list, got str"),
        (dict[str, int], {"a": "b"}, "['a']: want int, got str"),
        (dict, "abc", "does not fit dict: want dict, got str"),
        (list, {}, "want list, got dict"),
        (Point, {"x": 1}, "want Point, got dict"),
        (Person, Point(1), "want Person, got Point"),
        (Image, Audio(b""), "want Image, got Audio"),
        (Tensor["float32", 3], np.zeros(3), "want float32, got float64"),
        (Tensor["float32", 4], ZEROS, "want the shape [4], got [3]"),
        (Name, 1, "want str, got int"),
    ],
)
def test_a_default_that_is_not_what_its_annotation_says_is_refused(
    annotation: Any, default: Any, why: str
) -> None:
    said = refuse(annotation, default)
    assert said.startswith("model 'call', refuse.<locals>.call: parameter 'x': its default ")
    assert why in said


def test_annotations_that_are_text_are_said_as_written() -> None:
    with pytest.raises(TypeError, match=r"its default 'abc' does not fit Annotated.int, 'years'.:"):

        @App().model("call")
        def call(x: Annotated[int, "years"] = "abc") -> None: ...

    with pytest.raises(TypeError, match="parameter 'x': its default 'abc' does not fit int:"):

        @App().model("call")
        class Call:
            def __call__(self, x: int = "abc") -> None: ...


@pytest.mark.parametrize(
    ("annotation", "default"),
    [
        (int, None),
        (float, 1),
        (float, float("inf")),
        (np.ndarray, ZEROS),
        (Tensor["float32", "n"] | None, ZEROS),
        (Tensor["float32", "n", "n"], np.zeros((2, 2), np.float32)),
        (torch.Tensor, torch.zeros(2, requires_grad=True)),
        (TorchTensor["bfloat16"], torch.zeros(2, dtype=torch.bfloat16)),
        (Color, Color.GREEN),
        (Literal["a"], "a"),
        (datetime, NOON),
        (datetime, datetime(2026, 1, 1)),
        (Point, Point(1, ["a"], NOON)),
        (list[Point], [Point(1)]),
        (Person | None, Person(name="a", near=Point(2))),
        (Sequence[str], ()),
        (tuple[Color, ...], (Color.RED,)),
        (dict[str, list[int]], {"a": [1]}),
        (dict, {"a": 1}),
        (list, []),
        (Any, MARK),
        (int, object()),
        (list, ()),
        (Sequence[int], range(3)),
        (Sequence[str], frozenset()),
        (Point, Point("1")),  # type: ignore[arg-type]
        (Name, Name("a")),
        (Image, Image(b"x")),
    ],
)
async def test_a_default_that_fits_is_what_the_function_gets(annotation: Any, default: Any) -> None:
    got: list[Any] = []

    def call(x: Any = default) -> None:
        got.append(x)

    call.__annotations__["x"] = annotation
    app = App()
    app.model("call")(call)
    async with bench(app) as running:
        await running.call()
    assert got[0] is default


def test_only_what_a_client_gives_has_a_default_to_check() -> None:
    app = App()

    def user(context: Context) -> str:
        return context.request_id

    @app.model("call")
    def call(context: Context = None, name: str = Depends(user), times: int = 2) -> None: ...

    assert [one.name for one in app.models["call@1"].signature.inputs.fields] == ["times"]
