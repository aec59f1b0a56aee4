"""What the table of faults says, in the two languages of the READMEs."""

from __future__ import annotations

HEAD = {
    "en": (
        "fault", "what is done", "streams", "moved", "failed", "truncated", "doubled", "misspelt",
        "longest gap s", "healed after s",
    ),
    "zh": (
        "故障", "做了什么", "流数", "转移", "失败", "截断", "重复", "错字", "最长停顿（秒）",
        "恢复用时（秒）",
    ),
}  # fmt: skip
RUN = {
    "en": "`./scripts/chaos.sh --yes`, {date}, {streams} callers at a time.",
    "zh": "`./scripts/chaos.sh --yes`，{date}，同时 {streams} 个调用者。",
}
#: By the names in faults.py, which says the same in English.
WHAT_ZH = {
    "kill-server": "kill -9 引擎的 API 服务进程",
    "kill-core": "kill -9 引擎核心进程",
    "kill-worker": "kill -9 引擎的工作进程",
    "kill-engine": "同时 kill -9 引擎的全部进程",
    "term-engine": "负载下向引擎发送 SIGTERM",
    "stop-core": "SIGSTOP 引擎核心进程：引擎挂起",
    "stop-worker": "SIGSTOP 引擎的工作进程：引擎挂起",
    "stop-server": "SIGSTOP 引擎的 API 服务进程",
    "pause-engine": "整个引擎冻结 15 秒",
    "drop-engine": "丢弃发往引擎的网络包 15 秒",
    "reset-engine": "重置与引擎的连接 15 秒",
    "both-engines": "同时 kill -9 两个引擎",
    "drain-engine": "摘下一个引擎再放回",
    "stop-gateway": "正常停止一个网关",
    "kill-gateway": "/v1/chat 对话进行中 kill -9 网关",
    "reload-door": "Nginx 重新加载配置",
    "kill-redis": "kill -9 Redis",
    "pause-redis": "Redis 冻结 15 秒",
    "slow-redis": "15 秒内 Redis 每个操作耗时 0.4 秒",
    "full-redis": "Redis 内存已满",
    "read-only-redis": "Redis 只读",
    "rollout-engines": "scripts/rollout.sh：逐个更换引擎",
    "rollout-gateways": "scripts/rollout.sh --gateway：逐个更换网关",
}
