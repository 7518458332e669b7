"""Every type of a parameter and a result, both ways, and what is refused when it is decorated."""
# mypy: disable-error-code="valid-type,name-defined,misc,syntax,type-arg,return-value,arg-type"
# ruff: noqa: F821, UP006, UP037

from __future__ import annotations

import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Annotated, Any, Literal

import numpy as np
import pydantic
import pytest
import torch
from numpy.typing import NDArray

from millstream import App, Audio, Image, Number, Tensor, TorchTensor, Video
from shared.errors import EngineError, InvalidRequest
from shared.signature import EnumType, ListType, MapType, MediaType, Scalar, TensorType
from shared.values import Media
from shared.values import Tensor as Array
from tests.unit.app_bench import bench


class Color(Enum):
    RED = 1
    GREEN = "g"


@dataclass
class Point:
    x: int
    y: int = 7
    tags: list[str] = field(default_factory=lambda: ["new"])

    def __post_init__(self) -> None:
        if self.x < 0:
            raise ValueError("x is negative")


class Person(pydantic.BaseModel):
    name: str
    age: int = pydantic.Field(0, ge=0)
    friends: list[Person2] = []


class Person2(pydantic.BaseModel):
    name: str
    at: Point | None = None


Person.model_rebuild()
MOON = datetime(1969, 7, 20, 20, 17, 40, tzinfo=UTC)


def nested(depth: int) -> Any:
    return {"a": nested(depth - 1)} if depth else 1


async def echoed(annotation: Any, given: Any, *, seen: Any = None, back: Any = None) -> None:
    """A value arrives as `seen`, and comes back as it was given, or as `back`."""
    app = App()
    got: list[Any] = []

    def echo(value: Any) -> Any:
        got.append(value)
        return value

    echo.__annotations__ = {"value": annotation, "return": annotation}
    app.model("echo")(echo)
    async with bench(app) as running:
        assert await running.call(value=given) == [given if back is None else back]
    wanted = given if seen is None else seen
    assert got == [wanted]
    assert type(got[0]) is type(wanted)


@pytest.mark.parametrize(
    ("annotation", "given", "seen"),
    [
        (str, "héllo", None),
        (int, -(1 << 63), None),
        (int, 0, None),
        (float, 0.1, None),
        (bool, False, None),
        (bytes, b"\0\xff", None),
        (datetime, MOON, None),
        (Color, "GREEN", Color.GREEN),
        (Literal["up", "down"], "down", None),
        (list[int], [1, 2], None),
        (list[Color], ["RED"], [Color.RED]),
        (tuple[str, ...], ["a"], ("a",)),
        (list[list[int]], [[1], [], [2, 3]], None),
        (dict[str, float], {"a": 1.5}, None),
        (dict[str, list[str]], {"a": ["b"]}, None),
        (Any, {"a": [1, 2.5, None, True, "x", {}]}, None),
        (dict, {"a": 1}, None),
        (list, [1, "a"], None),
        (typing.List, [1, "a"], None),
        (typing.Dict, {"a": 1}, None),
        (list[Any], [1, {"b": None}], None),
        (list[list[list[Any]]], [[[nested(20)]]], None),
        (Point, {"x": 1, "y": 2, "tags": ["t"]}, Point(1, 2, ["t"])),
        (list[Point], [{"x": 1, "y": 2, "tags": ["t"]}], [Point(1, 2, ["t"])]),
        (dict[str, Point], {"p": {"x": 1, "y": 2, "tags": ["t"]}}, {"p": Point(1, 2, ["t"])}),
        (Image, Media("image/webp", b"x"), Image(b"x", "image/webp")),
        (Audio, Media("audio/L16;rate=16000", b"x"), Audio(b"x", "audio/L16;rate=16000")),
        (Video, Media("video/mp4", b"x"), Video(b"x")),
        (Person2, {"name": "a"}, Person2(name="a")),
    ],
)  # fmt: skip
async def test_a_value_arrives_and_comes_back(annotation: Any, given: Any, seen: Any) -> None:
    await echoed(annotation, given, seen=seen)


@pytest.mark.parametrize(
    "annotation",
    [NDArray[np.float32], np.ndarray, Tensor["float32", "n", 2], Tensor["float32"], Tensor,
     Annotated[np.ndarray, Tensor("float32", None, 2)]],
)  # fmt: skip
async def test_an_array_arrives_and_comes_back(annotation: Any) -> None:
    app = App()
    array = np.arange(4, dtype=np.float32).reshape(2, 2)

    def double(value: Any) -> Any:
        value *= 2
        return value

    double.__annotations__ = {"value": annotation, "return": annotation}
    app.model("double")(double)
    async with bench(app) as running:
        for given in (array, array[:0]):
            [result] = await running.call(value=given)
            assert result == Array("float32", given.shape, (given * 2).tobytes())


@pytest.mark.parametrize("dtype", ["bfloat16", "float64", "bool", "uint8"])
async def test_a_torch_tensor_arrives_and_comes_back(dtype: str) -> None:
    app = App()

    def echo(value: Any) -> Any:
        assert value.dtype == getattr(torch, dtype)
        return value

    echo.__annotations__ = {"value": TorchTensor[dtype, "n"], "return": torch.Tensor}
    app.model("echo")(echo)
    async with bench(app) as running:
        tensor = torch.tensor([0, 1, 1]).to(getattr(torch, dtype))
        [result] = await running.call(value=tensor)
        assert (result.dtype, result.shape) == (dtype, (3,))
        [empty] = await running.call(value=tensor[:0])
        assert empty.shape == (0,)


async def test_defaults_are_pythons_own() -> None:
    app = App()

    @app.model("call")
    def call(
        text: str,
        times: int = 3,
        color: Color = Color.RED,
        maybe: str | None = None,
        bare: int | None = None,
        words: tuple[str, ...] = ("a", "b"),
        options: dict[str, int] | None = None,
        point: Point | None = None,
    ) -> str:
        return repr((text, times, color, maybe, bare, words, options, point))

    async with bench(app) as running:
        assert await running.call(text="") == [
            repr(("", 3, Color.RED, None, None, ("a", "b"), None, None))
        ]
        assert await running.call(text="x", times=0, bare=0, point={"x": 1}) == [
            repr(("x", 0, Color.RED, None, 0, ("a", "b"), None, Point(1)))
        ]
        with pytest.raises(InvalidRequest) as raised:
            await running.call(times=1)
        assert raised.value.field == "text"
    fields = {f.name: f for f in app.models["call@1"].signature.inputs.fields}
    assert [(f.number, f.required) for f in fields.values()] == [
        (1, True), *((number, False) for number in range(2, 9)),
    ]  # fmt: skip
    assert (fields["times"].default, fields["color"].default) == (3, "RED")


async def test_an_optional_parameter_without_default_is_none() -> None:
    app = App()

    @app.model("call")
    def call(maybe: int | None, many: list[int] | None) -> str | None:
        assert many is None
        return None if maybe is None else str(maybe)

    async with bench(app) as running:
        assert await running.call() == [None]
        assert await running.call(maybe=4) == ["4"]


async def test_a_records_own_checks_are_the_clients_fault() -> None:
    app = App()

    @app.model("call")
    def call(points: list[Point], person: Person | None = None) -> None:
        return

    async with bench(app) as running:
        with pytest.raises(InvalidRequest, match="x is negative") as raised:
            await running.call(points=[{"x": 1}, {"x": -1}])
        assert raised.value.field.startswith("points")
        with pytest.raises(InvalidRequest, match="greater than or equal") as raised:
            await running.call(person={"name": "a", "age": -1})
        assert raised.value.field == "person.age"


async def test_a_validation_alias_may_be_one_of_several() -> None:
    class Aliased(pydantic.BaseModel):
        one: int = pydantic.Field(validation_alias=pydantic.AliasChoices("x", "y"))

    app = App()

    @app.model("call")
    def call(given: Aliased) -> int:
        return given.one

    async with bench(app) as running:
        assert await running.call(given={"one": 7}) == [7]


def test_the_signature_is_what_the_annotations_say() -> None:
    app = App()

    @app.model("call", version="2.1", default=True)
    def call(
        image: Image,
        pinned: Annotated[int, Number(1)],
        vectors: Tensor["float32", "batch", 384],
        labels: dict[str, list[Color]],
        mode: Literal["a", "b"] = "a",
    ) -> Iterator[Person]:
        """Call it.

        And more.
        """
        yield Person(name="a", age=1)

    signature = app.models["call@2.1"].signature
    assert (signature.streaming, signature.default, signature.summary) == (True, True, "Call it.")
    assert [(f.name, f.number, f.type) for f in signature.inputs.fields] == [
        ("image", 2, MediaType("image")),
        ("pinned", 1, Scalar("int64")),
        ("vectors", 3, TensorType("float32", ("batch", 384))),
        ("labels", 4, MapType(ListType(EnumType("Color", ("RED", "GREEN"))))),
        ("mode", 5, EnumType("Mode", ("a", "b"))),
    ]


@pytest.mark.parametrize(
    ("annotation", "returned", "why"),
    [
        (str, 1, "the result: want str, got int"),
        (int, 1.0, "want int, got float"),
        (int, True, "want int, got bool"),
        (int, 1 << 63, "64 bits"),
        (float, "1", "want float"),
        (bool, 1, "want bool"),
        (bytes, "x", "want bytes"),
        (str, None, "want str, got NoneType"),
        (str, "\ud800", "surrogates"),
        (Color, "RED", "want Color, got str"),
        (Literal["a"], "b", "want one of a"),
        (list[int], [1, "x"], r"the result\[1\]: want int, got str"),
        (list[int], "ab", "want list"),
        (dict[str, int], {1: 1}, "want str, got int"),
        (dict[str, list[int]], {"a": [None]}, r"the result\['a'\]\[0\]: want int"),
        (Point, {"x": 1}, "want Point, got dict"),
        (Point, Point(1, "y"), r"the result.y: want int, got str"),
        (Image, Audio(b""), "want Image, got Audio"),
        (datetime, 1.0, "want datetime"),
        (Any, object(), "want what JSON has, got object"),
        (Any, nested(21), "nested more than 20 deep"),
        (None, 3, "want None, got int"),
        (Tensor["float32"], np.zeros(2), "want float32, got float64"),
        (Tensor["float64", 3], np.zeros(2), r"want the shape \[3\], got \[2\]"),
        (Tensor["float64", "n", "n"], np.zeros((2, 3)), r"got \[2, 3\] where n is 2"),
        (Tensor["float64"], [1.0], "want an array, got list"),
    ],
)
async def test_a_broken_contract_is_said(annotation: Any, returned: Any, why: str) -> None:
    app = App()

    def call() -> Any:
        return returned

    call.__annotations__ = {"return": annotation}
    app.model("call")(call)
    async with bench(app) as running:
        with pytest.raises(EngineError, match=why):
            await running.call()


async def test_equal_dimensions_of_request_and_result_are_equal_lengths() -> None:
    app = App()

    @app.model("call")
    def call(x: Tensor["float64", "n"], more: int) -> Tensor["float64", "n", 2]:
        return np.zeros((len(x) + more, 2))

    async with bench(app) as running:
        [result] = await running.call(x=np.zeros(3), more=0)
        assert result.shape == (3, 2)
        with pytest.raises(EngineError, match=r"got \[4, 2\] where n is 3"):
            await running.call(x=np.zeros(3), more=1)


class Recursive:
    pass


@dataclass
class Tree:
    left: Tree | None = None


@pytest.mark.parametrize(
    ("annotation", "why"),
    [
        (set, "parameter 'x': set is not supported; use str"),
        (Recursive, "Recursive is not supported"),
        (complex, "complex is not supported"),
        (int | str, "a union of types is not supported"),
        (list[int | None], r"parameter 'x'\[...\]: values in a list or dict cannot be None"),
        (dict[int, str], "the keys of a dict must be str"),
        (tuple[int, str], "use a dataclass"),
        (Literal[1, 2], "use Enum"),
        (Tree, "Tree contains itself"),
        (np.float32, "float32 is not supported"),
        ("Unknown", "name 'Unknown' is not defined"),
        ("Tensor['complex64']", "a tensor of 'complex64'"),
    ],
)
def test_what_is_not_supported_is_refused_when_decorated(annotation: Any, why: str) -> None:
    def call(x: Any) -> str:
        return ""

    call.__annotations__["x"] = annotation
    with pytest.raises(TypeError, match=rf"model 'echo', .*call: .*{why}"):
        App().model("echo")(call)


def test_a_function_says_all_its_types() -> None:
    app = App()
    with pytest.raises(TypeError, match="parameter 'x': has no annotation"):
        app.model("a")(lambda x: x)
    with pytest.raises(TypeError, match="the result: has no annotation"):
        app.model("a")(lambda: 1)

    def many(*texts: str) -> str:
        return ""

    with pytest.raises(TypeError, match=r"parameter 'texts': .* name each one"):
        app.model("a")(many)

    def serialize(FromString: str) -> str:
        return ""

    with pytest.raises(TypeError, match="FromString"):
        app.model("a")(serialize)


def test_names_versions_and_options_are_checked() -> None:
    app = App()

    def call() -> str:
        return ""

    app.model("a", default=True)(call)
    app.model("a", version="2")(call)
    with pytest.raises(ValueError, match="a@2 is there already"):
        app.model("a", version="2")(call)
    with pytest.raises(ValueError, match="a@1 is the default version already"):
        app.model("a", version="3", default=True)(call)
    with pytest.raises(TypeError, match="the name is 'not ok'"):
        app.model("not ok")(call)
    with pytest.raises(TypeError, match="the version is 2: want text"):
        app.model("a", version=2)(call)
    with pytest.raises(TypeError, match="streaming=True, but it returns once"):
        app.model("b", streaming=True)(call)
    with pytest.raises(TypeError, match="concurrency=0"):
        app.model("b", concurrency=0)(call)
    assert list(app.models) == ["a@1", "a@2"]


def test_a_batched_function_is_annotated_as_for_many_items() -> None:
    app = App()

    @app.model("embed", batch=True, max_batch=8)
    def embed(
        text: list[str], vector: Tensor["float32", "batch", 3], more: list[int | None]
    ) -> Tensor["float32", "batch", 3]:
        return vector

    def one(text: str) -> str:
        return text

    spec = app.models["embed@1"]
    assert spec.batch is not None
    assert (spec.batch.stacked, spec.batch.max_size) == ({"vector": "numpy"}, 8)
    assert spec.signature.output == TensorType("float32", (3,))
    with pytest.raises(TypeError, match="mean something with batch=True only"):
        app.model("other", max_batch=8)(one)
