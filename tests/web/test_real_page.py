"""The page before a real instance: nginx, gateways, Redis and engines as they are run."""

from conftest import Instance, Opener, ask, signed_in
from playwright.sync_api import Page, expect

SLOW_MS = 120_000


def open_real(new_page: Opener, tandem: Instance, locale: str = "zh-CN") -> Page:
    page = new_page(locale=locale, ignore_https_errors=True)
    return signed_in(page, f"{tandem.url}/", tandem.key)


def test_asks_and_finds_the_answer_again(new_page: Opener, tandem: Instance) -> None:
    page = open_real(new_page, tandem)
    ask(page, "你好，请介绍一下自己")
    expect(page.locator(".endnote")).to_be_visible(timeout=SLOW_MS)
    expect(page.locator(".card")).to_have_count(0)
    said = page.locator(".message.assistant .prose").text_content() or ""
    assert said
    page.reload()
    expect(page.locator(".message.user .question")).to_have_text("你好，请介绍一下自己")
    expect(page.locator(".message.assistant .prose")).to_have_text(said)
    expect(page.locator(".list .here .open")).to_be_visible()


def test_stops_a_long_answer(new_page: Opener, tandem: Instance) -> None:
    page = open_real(new_page, tandem, "en-GB")
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Longest answer").fill("1500")
    page.get_by_role("button", name="Save").click()
    ask(page, "Tell a very long story")
    stop = page.get_by_role("button", name="Stop")
    expect(stop).to_be_visible()
    stop.click(timeout=SLOW_MS)
    expect(page.get_by_role("button", name="Send")).to_be_visible(timeout=SLOW_MS)
    expect(page.locator(".card")).to_have_count(0)


def test_a_wrong_key_is_refused(new_page: Opener, tandem: Instance) -> None:
    page = new_page(ignore_https_errors=True)
    page.goto(f"{tandem.url}/")
    page.locator("input[name=key]").fill("not-a-key")
    page.get_by_role("button", name="测试并进入").click()
    expect(page.get_by_role("alert")).to_contain_text("密钥无效或已停用。")


def test_the_health_line_knows_both_engines(new_page: Opener, tandem: Instance) -> None:
    page = open_real(new_page, tandem)
    expect(page.locator(".health.ok")).to_be_visible(timeout=SLOW_MS)
    expect(page.locator(".health")).to_contain_text("引擎 2/2")
