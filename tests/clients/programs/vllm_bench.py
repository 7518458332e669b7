"""vLLM's serving benchmark as a client: chat and completions, at several requests at once.

It needs no network: the prompts are random tokens of the bundled model's tokenizer.
"""

from __future__ import annotations

import argparse
import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"

from vllm.benchmarks.serve import add_cli_args, main

PROMPTS, LENGTH = 12, 20

for backend, endpoint in (
    ("openai-chat", "/v1/chat/completions"),
    ("openai", "/v1/completions"),
):
    parser = argparse.ArgumentParser()
    add_cli_args(parser)
    given = [
        *("--backend", backend, "--base-url", os.environ["BASE_URL"], "--endpoint", endpoint),
        *("--model", os.environ["CHAT_MODEL"], "--tokenizer", os.environ["TOKENIZER"]),
        *("--dataset-name", "random", "--random-input-len", "16"),
        *("--random-output-len", str(LENGTH), "--ignore-eos"),
        *("--num-prompts", str(PROMPTS), "--max-concurrency", "4", "--disable-tqdm"),
    ]
    told = main(parser.parse_args(given))
    assert told["completed"] == PROMPTS, told["errors"]
    assert told["failed"] == 0, told["errors"]
    assert told["total_output_tokens"] == PROMPTS * LENGTH
    assert told["mean_ttft_ms"] > 0
    assert told["mean_itl_ms"] > 0
sys.stdout.flush()
print("passed")
