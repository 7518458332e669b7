"""How the protocol describes a model: every one takes and gives the same tensors. Pure."""

from __future__ import annotations

from gateway.catalog import Entry
from gateway.kserve import inference_pb2 as pb
from gateway.kserve.tensors import INPUTS, OUTPUTS
from shared.errors import InvalidRequest

VERSION = "1"
"""Language models have one version here."""


def check_version(given: str, field: str) -> None:
    """Refuse a version that no model has.

    Raises:
        InvalidRequest: It is neither empty nor the only one.
    """
    if given not in ("", VERSION):
        raise InvalidRequest(f"version {given[:20]!r}: models have only {VERSION!r}", field=field)


def metadata(entry: Entry) -> pb.ModelMetadataResponse:
    """A model's tensors."""
    said = pb.ModelMetadataResponse(name=entry.name, versions=[VERSION], platform=_engine(entry))
    for tensor in INPUTS:
        said.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=[1])
    for tensor in OUTPUTS:
        said.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=[-1])
    return said


def configuration(entry: Entry) -> pb.ModelConfig:
    """A model as Triton describes it."""
    config = pb.ModelConfig(
        name=entry.name,
        platform=_engine(entry),
        backend=_engine(entry),
        model_transaction_policy=pb.ModelTransactionPolicy(decoupled=True),
    )
    for tensor in INPUTS:
        config.input.add(
            name=tensor.name,
            data_type=tensor.config_type,
            dims=[1],
            optional=tensor.optional,
        )
    for tensor in OUTPUTS:
        config.output.add(name=tensor.name, data_type=tensor.config_type, dims=[-1])
    return config


def _engine(entry: Entry) -> str:
    return entry.card.engine if entry.card is not None else ""
