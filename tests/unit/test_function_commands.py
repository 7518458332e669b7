from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from millstream import Client
from millstream.protos import protos, write
from shared.errors import InternalError, InvalidRequest, UnknownModel
from shared.typed import files
from tests.unit.fake_functions import (
    GREET,
    MIRROR,
    Call,
    Functions,
    greet,
)

ROOT = Path(__file__).parents[2]
MILLSTREAM = (sys.executable, "-c", "from millstream.cli import main; main()")
NODE_EXAMPLE = ROOT / "examples" / "node"

NODE = """
import { createRequire } from "node:module";
const require = createRequire(process.argv[2] + "/package.json");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const [protos, target] = process.argv.slice(3);
const options = { includeDirs: [protos], longs: Number, enums: String };
const load = (file) => grpc.loadPackageDefinition(loader.loadSync(file, options));
const v1 = load("millstream/models/v1/mirror.proto").millstream.models.v1;
const mirror = new v1.Mirror(target, grpc.credentials.createInsecure());
const given = {
  text: "hi", number: 7, colour: "MIRROR_COLOUR_BLUE", points: [{ x: 1.5, label: "a" }],
  scores: { a: 0.5 }, picture: { type: "image/png", data: Buffer.from("png") },
  array: { dtype: "float32", shape: [1, 2], data: Buffer.alloc(8) },
};
mirror.Predict(given, (error, { result }) => {
  if (error) throw error;
  const counting = load("millstream/models/v1/count.proto").millstream.models.v1;
  const count = new counting.Count(target, grpc.credentials.createInsecure());
  const items = [];
  count.PredictStream({ to: 3 })
    .on("data", ({ result }) => items.push(result))
    .on("end", () => {
      const { text, number, colour, points, scores, picture, array } = result;
      const [media, shape] = [picture.data.toString(), array.shape];
      console.log(JSON.stringify({ text, number, colour, points, scores, media, shape, items }));
      process.exit(0);
    });
});
"""


@pytest.fixture
async def target(functions: Functions) -> AsyncIterator[str]:
    async with functions.serving() as target:
        yield target


async def run(*command: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(
        subprocess.run,
        [str(word) for word in command],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
    )


async def millstream(
    target: str, *words: str | Path, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    command = [*MILLSTREAM, *words, "--target", target]
    return await run(*command, stdin=stdin)


def needed(path: Path | str, what: str) -> str:
    found = shutil.which(path)
    if found is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"needs {what}")
    assert found is not None
    return found


async def written(target: str, out: Path, *names: str) -> None:
    async with Client(target) as client:
        for name in names:
            write(await protos(client, name), out)


async def test_the_protos_compile(target: str, tmp_path: Path) -> None:
    done = await millstream(target, "proto", "mirror", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    names = {Path(line).relative_to(tmp_path).as_posix() for line in done.stdout.splitlines()}
    assert names == {
        "millstream/models/v1/mirror.proto",
        "millstream/models/mirror.proto",
        "millstream/v1/types.proto",
    }
    compiled = tmp_path / "compiled"
    protoc = [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={tmp_path}"]
    done = await run(*protoc, f"--descriptor_set_out={compiled}", *sorted(names))
    assert done.returncode == 0, done.stderr
    found = {one.name: one for one in FileDescriptorSet.FromString(compiled.read_bytes()).file}
    own = files(MIRROR)[-1]
    again = found[own.name]
    assert [m.name for m in again.message_type] == [m.name for m in own.message_type]
    assert [(f.name, f.number, f.proto3_optional) for m in again.message_type for f in m.field] == [
        (f.name, f.number, f.proto3_optional) for m in own.message_type for f in m.field
    ]
    (method,) = again.service[0].method
    assert (method.name, method.input_type) == ("Predict", ".millstream.models.v1.MirrorRequest")
    alias = found["millstream/models/mirror.proto"].service[0].method[0]
    assert alias.input_type == ".millstream.models.v1.MirrorRequest"


async def test_an_older_version_has_no_alias(
    functions: Functions, target: str, tmp_path: Path
) -> None:
    functions.serve(replace(GREET, version="2"), greet)  # Now the alias is its.
    async with Client(target) as client:
        assert set(await protos(client, "greet@1")) == {
            "millstream/models/v1/greet.proto",
            "millstream/v1/types.proto",
        }
        assert "millstream/models/greet.proto" in await protos(client, "greet")


async def test_a_node_client_of_the_protos_works(target: str, tmp_path: Path) -> None:
    node = needed("node", "Node.js")
    if not (NODE_EXAMPLE / "node_modules").exists():
        needed("examples/node/node_modules", "npm install in examples/node (make test does it)")
    await written(target, tmp_path, "mirror", "count")
    (tmp_path / "call.mjs").write_text(NODE)
    done = await run(node, tmp_path / "call.mjs", NODE_EXAMPLE, tmp_path, target)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "text": "hi",
        "number": 7,
        "colour": "MIRROR_COLOUR_BLUE",
        "points": [{"x": 1.5, "label": "a"}],
        "scores": {"a": 0.5},
        "media": "png",
        "shape": [1, 2],
        "items": [0, 1, 4],
    }


async def test_an_unknown_function_is_told_what_is_served(target: str, tmp_path: Path) -> None:
    done = await millstream(target, "proto", "nope", "--out", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: 'nope' is not served; served are mirror@1, greet@1, count@1\n"


async def test_a_folder_that_cannot_be_written(target: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = await millstream(target, "proto", "greet", "--out", tmp_path / "file")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: cannot write {tmp_path}/file/millstream/models/v1/")
    assert done.stderr.count("\n") == 1


async def test_what_has_no_protos(functions: Functions, target: str) -> None:
    functions.serve(replace(GREET, name="odd"), greet, typed=False)
    async with Client(target) as client:
        with pytest.raises(InvalidRequest, match="another function has its name"):
            await protos(client, "odd")
        with pytest.raises(InvalidRequest, match="language model"):
            await protos(client, "sim")


@pytest.mark.parametrize("name", ["../evil.proto", "millstream/../../evil.proto", "/evil.proto"])
async def test_a_file_outside_is_not_written(
    functions: Functions, target: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Client(target) as client:
        method = await client.function("greet").method()
        method.files[0].name = name
        with pytest.raises(InternalError, match="describes a file of the name"):
            await protos(client, "greet")


async def test_predict(target: str, tmp_path: Path) -> None:
    done = await millstream(target, "predict", "greet", "who=you")
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello you\n", "")
    done = await millstream(target, "predict", "greet", "who=@-", "--json", stdin="42")
    assert (done.returncode, done.stdout) == (0, '"hello 42"\n')
    done = await millstream(target, "predict", "count", "to=3")
    assert (done.returncode, done.stdout) == (0, "0\n1\n4\n")


async def test_predict_takes_every_type(target: str, tmp_path: Path) -> None:
    picture = tmp_path / "cat.png"
    picture.write_bytes(b"png")
    done = await millstream(
        target,
        *("predict", "mirror", "text=7", "number=7", "ratio=1e3", "flag=true", "raw=abc"),
        *("when=2026-11-21T10:00:00Z", "free=plain", "colour=RED", 'points=[{"x": 1}]'),
        *('scores={"a": 1}', f"picture=@{picture}"),
        'array={"dtype": "float32", "shape": [1, 2], "data": [[1, 2]]}',
        "--json",
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer.pop("array") == {"dtype": "float32", "shape": [1, 2], "data": [[1.0, 2.0]]}
    assert answer.pop("grid") == []
    assert answer == {
        "text": "7",
        "number": 7,
        "ratio": 1000.0,
        "flag": True,
        "raw": "YWJj",
        "when": "2026-11-21T10:00:00Z",
        "free": "plain",
        "colour": "RED",
        "points": [{"x": 1.0}],
        "scores": {"a": 1.0},
        "picture": {"type": "image/png", "data": "cG5n"},
    }


async def test_predict_with_any_values(functions: Functions) -> None:
    odd = Functions()

    async def play(request: Any, call: Call) -> None:
        await call.answer(result=request.inputs["x"])

    odd.serve(replace(GREET, name="odd"), play, typed=False)
    async with odd.serving() as target:
        done = await millstream(target, "predict", "odd", 'x={"a": [1, null]}')
        assert (done.returncode, done.stdout) == (0, '{"a": [1, null]}\n')


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("greet", "who"), "'who': want KEY=VALUE"),
        (("greet", "whom=you"), "whom"),
        (("count", "to=three"), "to: want JSON"),
        (("greet", "who=@/nowhere"), "who: cannot read /nowhere: No such file or directory"),
        (("sim", "x=1"), "'sim' is a language model: call generate"),
        (("greet", "--priority", "urgent"), "'urgent' is not one of"),
    ],
)
async def test_predict_refuses_in_a_line(target: str, words: tuple[str, ...], told: str) -> None:
    done = await millstream(target, "predict", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert told in done.stderr
    assert done.stderr.count("\n") == 1


async def test_models_shows_functions(target: str) -> None:
    done = await millstream(target, "models")
    assert done.returncode == 0
    heading, sim, row, *_ = (line.split() for line in done.stdout.splitlines())
    assert heading[:6] == ["NAME", "STATE", "WORKERS", "ENGINE", "CONTEXT", "DTYPE"]
    assert sim[:5] == ["sim", "ready", "2", "sim", "4096"]
    assert row == ["mirror@1", "ready", "1", "app", "-", "-", "predict"]
    listed = json.loads((await millstream(target, "models", "--json")).stdout)
    assert [one["service"] for one in listed][:2] == ["", "millstream.models.v1.Mirror"]


async def test_an_unknown_name_raises(target: str) -> None:
    async with Client(target) as client:
        with pytest.raises(UnknownModel, match="served are mirror@1"):
            await protos(client, "nope")
