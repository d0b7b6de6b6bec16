"""Reading a prompt and decoding, by the language model's size and the decoder's chunk; eager torch in the same run.

    python benchmarks/prefill.py [--repeats N]

Llamas with random weights, exported as `mova export` does. Tokens are compared first.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from mova_export.bench.facts import cores, facts, short_name
from mova_export.bench.timing import Contender, Spread, interleave, ratios
from mova_export.checkpoint.tensors import HeldTensors
from mova_export.graphs.language.graph import language_graph
from mova_export.graphs.onnx import language_model, save
from mova_runtime.bundle.manifest import File, Language
from mova_runtime.engines.ort import open_engine
from mova_runtime.language import decoder
from mova_runtime.language.generation import Generation
from mova_runtime.language.prompt import Prompt

SIZES = ((64, 2), (512, 4), (1024, 8))
"""Hidden width and layers; the first is the tiny checkpoint's."""
CHUNKS = (256, 512, 4096)
NEW_TOKENS = (1, 16)
PROMPT_TOKENS, VOCABULARY, NEVER = 1390, 8000, -1


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    given = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(cores())
    results: dict[str, Any] = {**facts(cores()), "prompt_tokens": PROMPT_TOKENS, "sizes": {}}
    for hidden, layers in SIZES:
        name = f"hidden {hidden}, {layers} layers"
        results["sizes"][name] = rows = {}
        ours, theirs = _pair(hidden, layers)
        for count in NEW_TOKENS:
            if ours(count, CHUNKS[0]) != theirs(count):
                print(f"{name}: tokens differ from torch's; nothing is reported", file=sys.stderr)
                return 1
            contenders = {f"chunk {n}": Contender(lambda _, n=n, run=ours, count=count: run(count, n)) for n in CHUNKS}
            contenders["torch"] = Contender(lambda _, run=theirs, count=count: run(count))
            times = interleave(contenders, given.repeats)
            against = {key: Spread.of(ratios(sample, times["torch"])).median for key, sample in times.items()}
            rows[f"prompt and {count} tokens"] = {
                key: {"seconds": asdict(Spread.of(sample)), "ratio_to_torch": against[key]}
                for key, sample in times.items()
            }
            told = "  ".join(f"{k} {Spread.of(s).median * 1e3:.1f} ms ({against[k]:.2f})" for k, s in times.items())
            print(f"{name}, prompt and {count} tokens: {told}", flush=True)
    file = Path(__file__).resolve().parent / "results" / f"prefill-{short_name()}.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return 0


def _pair(hidden: int, layers: int) -> tuple[Callable[[int, int], list[int]], Callable[[int], list[int]]]:
    """Our decoder by (tokens, chunk), and torch's by tokens, on the same weights and prompt."""
    heads = max(4, hidden // 64)
    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=int(hidden * 2.75),
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=max(1, heads // 4),
        vocab_size=VOCABULARY,
        max_position_embeddings=4096,
    )
    torch_llama = LlamaForCausalLM(config).eval()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "llm.onnx"
        save(language_model(language_graph(config, HeldTensors(torch_llama.state_dict()))), path)
        engine = open_engine(path, "llm", 0, cores(), prepack=True)
    file = File("none", 0, "")
    language = Language(
        file, None, file, hidden, layers, config.num_key_value_heads, config.head_dim, 4096, 4096, clean_up_spaces=False
    )
    table = torch_llama.get_input_embeddings().weight.detach().numpy() * 20  # away from ties
    ids = tuple(np.random.RandomState(0).randint(0, VOCABULARY, PROMPT_TOKENS).tolist())

    def ours(count: int, chunk: int) -> list[int]:
        decoder.PREFILL_CHUNK = chunk
        return list(decoder.Decoder(engine, table, language).generate(Prompt((ids,)), [], Generation(count), NEVER))

    def theirs(count: int) -> list[int]:
        tokens: list[int] = []
        with torch.inference_mode():
            cache, x = DynamicCache(), torch.from_numpy(table[list(ids)])[None]
            for _ in range(count):
                out = torch_llama(inputs_embeds=x, past_key_values=cache, use_cache=True, logits_to_keep=1)
                tokens.append(int(out.logits[0, -1].argmax()))
                x = torch.from_numpy(table[tokens[-1:]])[None]
        return tokens

    return ours, theirs


if __name__ == "__main__":
    sys.exit(main())
