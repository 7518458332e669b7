"""From a session to inference responses: a whole answer, or a stream's pieces."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gateway.collected import Collected
from gateway.kserve import inference_pb2 as pb
from gateway.kserve.asks import Ask
from gateway.kserve.models import VERSION
from gateway.kserve.tensors import add_counts, add_strings
from gateway.outlet import Flusher, Writer
from gateway.pieces import Piece, PieceOutlet
from gateway.ports import Summary
from gateway.session import Session
from shared.errors import MillstreamError

FINAL = "triton_final_response"


class Answers:
    """Makes the responses to one request.

    Args:
        name: The client's name for it, echoed in every response.
        model: The served name.
        ask: What was asked.
    """

    __slots__ = ("_ask", "_model", "_name")

    def __init__(self, name: str, model: str, ask: Ask) -> None:
        self._name = name
        self._model = model
        self._ask = ask

    def whole(self, collected: Collected) -> pb.ModelInferResponse:
        """The answer in one response."""
        (summary,) = collected.summaries
        before = self._ask.message.prompt if self._ask.prepend else ""
        return self.piece(
            [before + choice.text for choice in collected.choices],
            [choice.reason for choice in collected.choices],
            summary.prompt_tokens,
            [len(choice.ids) for choice in collected.choices],
        )

    def piece(
        self, texts: Sequence[str], reasons: Sequence[str], prompt: int, counts: Sequence[int]
    ) -> pb.ModelInferResponse:
        """One response; lists have an entry a choice."""
        response = self.empty()
        outputs = self._ask.outputs
        if "text_output" in outputs:
            add_strings(response, "text_output", texts)
        if "finish_reason" in outputs:
            add_strings(response, "finish_reason", reasons)
        if "num_input_tokens" in outputs:
            add_counts(response, "num_input_tokens", [prompt])
        if "num_output_tokens" in outputs:
            add_counts(response, "num_output_tokens", counts)
        return response

    def empty(self) -> pb.ModelInferResponse:
        """A response without outputs."""
        return pb.ModelInferResponse(model_name=self._model, model_version=VERSION, id=self._name)

    def last(self, response: pb.ModelInferResponse) -> list[bytes]:
        """The last response that says something, and the empty one where that was asked for."""
        if not self._ask.empty_final:
            return [streamed(response, final=True)]
        return [streamed(response, final=False), streamed(self.empty(), final=True)]


def streamed(response: pb.ModelInferResponse, *, final: bool) -> bytes:
    """A response as a stream's message."""
    response.parameters[FINAL].bool_param = final
    return pb.ModelStreamInferResponse(infer_response=response).SerializeToString()


class TensorStream(PieceOutlet):
    """An answer as messages of ModelStreamInfer (a `ports.Outlet`).

    Args:
        writer: The call's response stream, which other requests of it write to as well.
        flusher: Shared by all clients.
        overflowed: Called when the buffer is full.
        answers: Makes the responses.
    """

    __slots__ = ("_answers", "_prompt", "session")

    def __init__(
        self,
        writer: Writer,
        flusher: Flusher,
        overflowed: Callable[[MillstreamError], None],
        answers: Answers,
    ) -> None:
        super().__init__(writer, flusher, overflowed)
        self._answers = answers
        self._prompt = 0
        self.session: Session | None = None

    def started(self, worker: str) -> None:
        """A worker took the request."""

    def on_piece(self, piece: Piece) -> None:
        """The next tokens."""
        if not self._prompt and self.session is not None and self.session.answer.begun is not None:
            self._prompt = self.session.answer.begun.prompt_tokens
        # What is not finished has vLLM's word for no reason.
        response = self._answers.piece([piece.text], ["None"], self._prompt, [len(piece.ids)])
        self._put(streamed(response, final=False))

    def finished(self, summary: Summary) -> None:
        """The answer is complete."""
        last = self._answers.piece([""], [summary.reasons[0]], summary.prompt_tokens, [0])
        for message in self._answers.last(last):
            self._put(message)
        self._end()
