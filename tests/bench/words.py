"""What a table says, in both languages."""

COLUMNS = {
    "en": [
        "proxy",
        "CPU µs/token",
        "CPU ms/request",
        "to the best router",
        "added TTFT p50, ms",
        "added TTFT p99, ms",
        "added token p99, ms",
        "requests/s",
        "MiB",
        "errors",
    ],
    "zh": [
        "代理",
        "CPU 微秒/token",
        "CPU 毫秒/请求",
        "与最佳路由器之比",
        "首 token 增加 P50（毫秒）",
        "首 token 增加 P99（毫秒）",
        "token 增加 P99（毫秒）",
        "请求/秒",
        "MiB",
        "错误",
    ],
}
SCALE = (10, 100, 500)
TITLES = {
    "en": {
        "streams": "64 streams × 128 tokens at 20 ms",
        "crowd": "1,000 streams at 20 tokens/s",
        "burst": "Short requests, not streamed, 32 at a time",
        "long-prompts": "Prompts of 100 KiB, 16 streams",
        "cancels": "64 streams, 5 % of the callers leave",
        "deploy": "Behind Nginx with TLS, both counted: 64 streams × 128 tokens at 20 ms",
        **{f"scale-{n}": f"{n} streams at 20 tokens/s" for n in SCALE},
    },
    "zh": {
        "streams": "64 路流 × 128 token，间隔 20 毫秒",
        "crowd": "1000 路流，每路每秒 20 token",
        "burst": "短请求（非流式），并发 32",
        "long-prompts": "100 KiB 提示词，16 路流",
        "cancels": "64 路流，5 % 的调用方中途离开",
        "deploy": "Nginx（TLS）加代理，合计：64 路流 × 128 token，间隔 20 毫秒",
        **{f"scale-{n}": f"{n} 路流，每路每秒 20 token" for n in SCALE},
    },
}
HEADING = {
    "en": {
        "peers": (
            "`./scripts/bench.sh --write-readme`, {date}, {cores} cores ({processor}), "
            "{memory_gib} GiB: medians of {rounds} interleaved rounds (least–most)."
        ),
        "affinity": (
            "`./scripts/bench.sh --affinity --write-readme`, {date}, {cores} cores ({processor}), "
            "{memory_gib} GiB."
        ),
    },
    "zh": {
        "peers": (
            "`./scripts/bench.sh --write-readme`，{date}，{cores} 核（{processor}），"
            "{memory_gib} GiB：{rounds} 轮交替测量的中位数（最小–最大）。"
        ),
        "affinity": (
            "`./scripts/bench.sh --affinity --write-readme`，{date}，{cores} 核（{processor}），"
            "{memory_gib} GiB。"
        ),
    },
}
NOTES = {
    "en": "How it is measured, and what it cannot tell: [tests/bench](tests/bench/README.md).",
    "zh": "测量方法与局限见 [tests/bench](tests/bench/README.md)。",
}
PICTURE = {
    "en": "\n\n![CPU per streamed token, by the number of streams](tests/bench/scale.svg)",
    "zh": "\n\n![每个流式 token 的 CPU 开销与流数的关系](tests/bench/scale.svg)",
}
AFFINITY = {
    "en": (
        "16 users, growing conversations, two real vLLM engines on CPU (tiny model), medians of 3",
        [
            "who chooses the engine",
            "prompt tokens found in the prefix cache",
            "requests, most/least",
            "TTFT p50 from the second round, ms",
            "TTFT p95, ms",
            "errors",
        ],
    ),
    "zh": (
        "16 个用户、不断增长的对话，两个真实的 vLLM CPU 引擎（微型模型），三次的中位数",
        [
            "由谁选择引擎",
            "前缀缓存命中的提示 token",
            "请求数最多/最少",
            "第二轮起首 token P50（毫秒）",
            "首 token P95（毫秒）",
            "错误",
        ],
    ),
}
