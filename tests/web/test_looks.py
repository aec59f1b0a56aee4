"""Accessibility in every state, pictures in both languages and both themes, and the weight."""

import gzip
import re
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import Opener, ask, screenshot, signed_in
from fake_gateway import KEY, FakeGateway, Reply, status
from playwright.sync_api import Page, expect

BUDGET_BYTES = 60_000
LOOKS = [(locale, theme) for locale in ("zh-CN", "en-GB") for theme in ("light", "dark")]

ANSWER = {
    "zh-CN": """负载均衡器把到来的请求分给多台服务器，让每一台都不至于过忙。

### 一个例子

银行大厅里的**叫号机**：顾客取号后，由空闲的窗口依次接待。

1. 有窗口关闭时，后面的顾客会被分到其他窗口；
2. 新窗口开放后，队伍自然变短。

| 策略 | 适合的场景 | 延迟 |
|---|---|--:|
| 轮询 | 请求大小相近 | 12 ms |
| 最少连接 | 请求时长不一 | 9 ms |

```python
def choose(engines):
    usable = [e for e in engines if e.healthy]
    return min(usable, key=lambda e: e.in_flight)
```

选择策略时，请先看 `in_flight` 的分布。""",
    "en-GB": """A load balancer shares incoming requests among several servers, so that none of
them is overrun.

### An example

Think of the **ticket machine** in a bank: customers take a number, and the next free counter
serves them.

1. When a counter closes, its customers go to the others.
2. When a new one opens, the queue gets shorter by itself.

| Policy | Good for | Latency |
|---|---|--:|
| Round robin | requests of similar size | 12 ms |
| Least in flight | requests of mixed length | 9 ms |

```python
def choose(engines):
    usable = [e for e in engines if e.healthy]
    return min(usable, key=lambda e: e.in_flight)
```

Before choosing, look at how `in_flight` is spread.""",
}
TITLES = {
    "zh-CN": ["季度经营分析会纪要", "给客户的回信", "Python 列表去重", "杭州三日行程"],
    "en-GB": ["Minutes of the quarterly review", "Reply to a customer",
              "Remove duplicates in Python", "Three days in Hangzhou"],
}  # fmt: skip
QUESTION = {"zh-CN": "什么是负载均衡？请举一个生活中的例子。",
            "en-GB": "What is load balancing? Give one everyday example."}  # fmt: skip


def check(page: Page) -> None:
    found = Axe().run(page)
    serious = [
        f"{one['id']}: {one['help']} {[node['html'] for node in one['nodes']][:3]}"
        for one in found.response["violations"]
        if one["impact"] in ("serious", "critical")
    ]
    assert serious == []


@pytest.mark.parametrize(("locale", "theme"), LOOKS)
def test_looks(new_page: Opener, fake: FakeGateway, page_url: str, locale: str, theme: str) -> None:
    name = f"{locale[:2]}-{theme}"
    for title in TITLES[locale]:
        fake.add_session(title, ("?", "!"))
    page = new_page(locale=locale, color_scheme=theme, viewport={"width": 1360, "height": 860})
    page.goto(page_url)
    expect(page.locator(".key-card")).to_be_visible()
    check_and_keep(page, f"{name}-key")
    signed_in(page, page_url, KEY)
    expect(page.locator(".health.ok")).to_be_visible()
    expect(page.locator(".list .open")).to_have_count(4)
    check_and_keep(page, f"{name}-empty")

    text = ANSWER[locale]
    fake.replies = [Reply(pieces=[text[i : i + 9] for i in range(0, len(text), 9)], failovers=1)]
    ask(page, QUESTION[locale])
    expect(page.locator(".endnote")).to_be_visible()
    expect(page.locator(".hljs-keyword").first).to_be_visible()
    page.mouse.move(700, 80)
    check_and_keep(page, f"{name}-answer")
    fake.replies = [Reply(status=429, retry_after=600)]
    ask(page, QUESTION[locale])
    expect(page.locator(".card")).to_be_visible()
    check_and_keep(page, f"{name}-busy")
    page.locator(".side .foot").click()
    expect(page.locator(".settings")).to_be_visible()
    check_and_keep(page, f"{name}-settings")


@pytest.mark.parametrize(("locale", "theme"), [("zh-CN", "light"), ("en-GB", "dark")])
def test_looks_on_a_telephone(
    new_page: Opener, fake: FakeGateway, page_url: str, locale: str, theme: str
) -> None:
    name = f"{locale[:2]}-{theme}-phone"
    phone = {"width": 390, "height": 780}
    fake.add_session(TITLES[locale][0], ("?", "!"))
    page = new_page(
        locale=locale, color_scheme=theme, viewport=phone, has_touch=True, is_mobile=True,
        device_scale_factor=2,
    )  # fmt: skip
    signed_in(page, page_url, KEY)
    expect(page.locator(".health.ok")).to_be_visible()
    check_and_keep(page, f"{name}-empty")
    fake.replies = [Reply(pieces=[ANSWER[locale]])]
    ask(page, QUESTION[locale])
    expect(page.locator(".endnote")).to_be_visible()
    check_and_keep(page, f"{name}-answer")
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= phone["width"]
    page.locator(".top .only-narrow").click()
    expect(page.locator(".side .new")).to_be_in_viewport()
    check_and_keep(page, f"{name}-list")


def test_looks_while_loading_and_while_failing(
    new_page: Opener, fake: FakeGateway, page_url: str
) -> None:
    fake.status = status("starting", "starting", ready=False)
    page = signed_in(new_page(viewport={"width": 1360, "height": 860}), page_url, KEY)
    expect(page.locator(".banner")).to_be_visible()
    page.locator(".health").click()
    check_and_keep(page, "zh-light-loading")
    fake.replies = [Reply(status=500)]
    ask(page, QUESTION["zh-CN"])
    expect(page.locator(".card")).to_be_visible()
    check_and_keep(page, "zh-light-failed")


def check_and_keep(page: Page, name: str) -> None:
    settle(page)
    screenshot(page, name)
    check(page)


def settle(page: Page) -> None:
    """Transitions over, so that colours are measured as they stay."""
    page.wait_for_function(
        "() => document.getAnimations().every((a) => a.playState !== 'running'"
        " || a.effect.getComputedTiming().iterations === Infinity)"
    )


def test_weight_before_the_first_paint(dist: Path) -> None:
    index = (dist / "index.html").read_text("utf-8")
    first = re.findall(r'(?:src|href)="\./([^"]+)"', index)
    assert any(name.endswith(".js") for name in first)
    packed = sum(size(dist / name) for name in ["index.html", *first])
    assert packed <= BUDGET_BYTES, f"{packed} bytes before the first paint"


def test_everything_is_packed_and_nothing_is_inline(dist: Path) -> None:
    index = (dist / "index.html").read_text("utf-8")
    assert not re.search(r"<style|style=|<script(?![^>]*src=)", index)
    for path in dist.rglob("*"):
        if path.suffix in (".js", ".css", ".html", ".svg"):
            packed = path.with_name(path.name + ".gz")
            assert gzip.decompress(packed.read_bytes()) == path.read_bytes()


def test_the_page_names_no_other_host(dist: Path) -> None:
    fetched = re.compile(r"""(?:src|href)=["']https?:|url\(["']?https?:|import\(["']https?:""")
    for path in dist.rglob("*"):
        if path.suffix in (".js", ".css", ".html"):
            assert not fetched.search(path.read_text("utf-8")), path


def size(path: Path) -> int:
    return path.with_name(path.name + ".gz").stat().st_size
