"""Text in and out of the language model: tokens, prompts, decoding, streaming."""
