"""Makes a tiny Qwen2 model with random weights, so that everything runs without a download.

Owns: the corpus it holds, the tokenizer trained on it, the weights, the chat template.
Not here: quality. Its answers are word salad, but real tokens from a real engine, the same each
time, and long: the tokens that would end an answer are as good as never chosen.

    python vllm/tiny_model.py OUT_DIR
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
from pathlib import Path

VERSION = 1
SEED = 20240917
VOCABULARY_LIMIT = 2000
HIDDEN = 128
LAYERS = 2
MARK = "tandem-model.json"
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "{% if not loop.last or add_generation_prompt or message['role'] != 'assistant' %}"
    "<|im_end|>\n{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

SUBJECTS = (
    "the river", "a small boat", "our neighbour", "the old engine", "a careful reader",
    "the harbour", "every morning", "the second driver", "a long letter", "the quiet garden",
    "my grandmother", "the last train", "an honest clock", "the night watch", "a paper lantern",
)  # fmt: skip
VERBS = (
    "carries", "remembers", "answers", "follows", "repairs", "counts", "paints", "leaves",
    "welcomes", "measures", "crosses", "describes", "protects", "borrows", "returns",
)  # fmt: skip
OBJECTS = (
    "the bridge", "seven stones", "a warm meal", "the open window", "twelve questions",
    "the other side", "a map of the coast", "the broken wheel", "some green apples",
    "the whole story", "a bowl of rice", "the first snow", "two heavy ropes", "a blue door",
)  # fmt: skip
ENDINGS = (
    "before the rain begins", "without a word", "when the tide turns", "in the early light",
    "because nobody else will", "and then starts again", "near the market", "for a friend",
    "as if it were easy", "until the bell rings",
)  # fmt: skip
CHINESE = (
    "春天的风吹过江南的小镇", "老人坐在门前喝茶", "孩子们在桥上看船", "夜里的灯光照着安静的街道",
    "他把旧机器修好了", "我们明天早上出发去海边", "这本书讲述了一个很长的故事",
    "雨停以后天空变得很蓝",
    "请把这封信交给你的朋友", "火车慢慢地离开了车站", "她在花园里种了许多白菜和萝卜",
    "两个人一起划船就会更稳", "山上的雪还没有融化", "请问附近有没有一家面馆", "时间过得真快啊",
)  # fmt: skip
CODE = (
    "def add(left, right):\n    return left + right\n",
    "for line in lines:\n    print(line.strip())\n",
    '{"name": "tandem", "engines": 2, "ready": true}\n',
    "SELECT name, count(*) FROM boats GROUP BY name;\n",
    "# Heading\n\n- first point\n- second point\n\n```python\nx = 1\n```\n",
)


def corpus(seed: int = SEED) -> list[str]:
    """The text that the tokenizer learns from: English, Chinese, code; the same for a seed."""
    chance = random.Random(seed)
    lines = []
    for _ in range(6000):
        kind = chance.random()
        if kind < 0.6:
            words = [chance.choice(part) for part in (SUBJECTS, VERBS, OBJECTS, ENDINGS)]
            lines.append(" ".join(words).capitalize() + chance.choice(".!?;"))
        elif kind < 0.9:
            lines.append("。".join(chance.sample(CHINESE, 2)) + chance.choice("。！？"))
        elif kind < 0.97:
            lines.append(chance.choice(CODE))
        else:
            lines.append(" ".join(str(chance.randrange(100)) for _ in range(5)))
    return lines


def train_tokenizer():
    """Byte-level BPE, like Qwen's own: any text is spelled, nothing is unknown."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_LIMIT,
        special_tokens=[AddedToken(text, special=True, normalized=False) for text in SPECIAL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(corpus(), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def build_model(vocabulary: int, unspoken: list[int]):
    """Random weights, scaled so that the next token depends on the context, and no end in sight."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(SEED)
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=HIDDEN,
        intermediate_size=4 * HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=32768,
        rope_parameters={"rope_type": "default", "rope_theta": 1000000.0},
        tie_word_embeddings=False,
        eos_token_id=2,
        pad_token_id=0,
        bos_token_id=None,
        dtype=torch.float32,
    )
    model = Qwen2ForCausalLM(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:
                continue
            spread = 1.0 if "embed" in name else 0.25
            weight.normal_(0.0, spread)
        # A zero row is a logit of 0, where the best of the others is far above.
        model.lm_head.weight[unspoken] = 0.0
    return model


def unspoken_tokens(tokenizer) -> list[int]:
    """What it should not say: ends, pieces of characters, control bytes."""
    silent = list(range(len(SPECIAL)))
    for token in range(len(SPECIAL), len(tokenizer)):
        text = tokenizer.decode([token])
        blank = text.strip(" \n") == ""
        if "\ufffd" in text or not (blank or text.replace("\n", "").isprintable()):
            silent.append(token)
    return silent


def is_made(folder: Path) -> bool:
    """Whether the folder already holds what this version makes."""
    try:
        return json.loads((folder / MARK).read_text())["version"] == VERSION
    except (OSError, ValueError, KeyError):
        return False


def make(folder: Path) -> bool:
    """Writes the model beside its place and moves it in whole; False when it was there already."""
    if is_made(folder):
        return False
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        tokenizer = train_tokenizer()
        tokenizer.save_pretrained(draft)
        model = build_model(len(tokenizer), unspoken_tokens(tokenizer))
        model.generation_config.eos_token_id = 2
        model.generation_config.pad_token_id = 0
        model.save_pretrained(draft)
        (draft / MARK).write_text(json.dumps({"version": VERSION, "seed": SEED}) + "\n")
        _readable_by_all(draft)
        shutil.rmtree(folder, ignore_errors=True)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return True


def _readable_by_all(folder: Path) -> None:
    """The engine may run as another user than the one that made the model."""
    folder.chmod(0o755)
    for path in folder.iterdir():
        path.chmod(0o644)


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Make the tiny model that try mode serves.")
    parser.add_argument("folder", type=Path, help="where the model goes")
    folder = parser.parse_args(arguments).folder
    if folder.exists() and not is_made(folder) and any(folder.iterdir()):
        if not (folder / "config.json").exists():
            print(f"{folder} holds other things; name an empty or new folder.", file=sys.stderr)
            return 2
    print(f"{folder}: {'made' if make(folder) else 'already there'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
