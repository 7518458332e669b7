"""Stream a generation with plain grpcio, asking the gateway itself for the schema.

pip install grpcio grpcio-reflection
python generate_by_reflection.py 127.0.0.1:50051 "Once upon a time"
"""

from __future__ import annotations

import sys

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

SERVICE = "millstream.v1.Inference"


def generate(target: str, prompt: str, max_tokens: int) -> None:
    """Print the answer as it comes."""
    with grpc.insecure_channel(target) as channel:
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        method = pool.FindServiceByName(SERVICE).FindMethodByName("Generate")
        request_class = GetMessageClass(method.input_type)
        response_class = GetMessageClass(method.output_type)
        call = channel.unary_stream(
            f"/{SERVICE}/Generate",
            request_serializer=request_class.SerializeToString,
            response_deserializer=response_class.FromString,
        )
        request = request_class(prompt=prompt, sampling={"max_tokens": max_tokens})
        for response in call(request, timeout=60):
            event = response.WhichOneof("event")
            if event == "delta":
                print(response.delta.text, end="", flush=True)
            elif event == "finished":
                print(f"\n[{response.finished.usage.completion_tokens} tokens]")


def main() -> int:
    """Read the target and the prompt from the command line."""
    if len(sys.argv) not in (3, 4):
        print(f"usage: {sys.argv[0]} HOST:PORT PROMPT [MAX_TOKENS]", file=sys.stderr)
        return 2
    max_tokens = int(sys.argv[3]) if len(sys.argv) == 4 else 64
    try:
        generate(sys.argv[1], sys.argv[2], max_tokens)
    except grpc.RpcError as error:
        print(f"{error.code().name}: {error.details()}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
