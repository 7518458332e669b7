"""What the way to vLLM costs: AsyncLLM called directly, vLLM's OpenAI server, Millstream over gRPC.

    .venv-vllm/bin/python -m benchmarks.vllm_overhead --out results.json

The same engine, model and load three ways in one run: all three are up, idle ones are stopped
(SIGSTOP), and they take turns, so that what else the machine does hits each alike. A figure is the
median of the rounds. The client keeps bytes while a load runs and reads them afterwards, HTTP and
gRPC alike. Needs vLLM in the interpreter that runs it; see deploy/vllm.
"""
