"""Asking and being answered: input method, streaming, stop, reload, the list."""

from pathlib import Path

from conftest import Opener, ask, signed_in
from fake_gateway import KEY, FakeGateway, Reply
from playwright.sync_api import Page, expect


def test_enter_belongs_to_the_input_method_while_it_composes(page: Page, fake: FakeGateway) -> None:
    field = page.locator(".composer textarea")
    field.focus()
    keyboard = page.context.new_cdp_session(page)
    keyboard.send(
        "Input.imeSetComposition", {"text": "ni hao", "selectionStart": 6, "selectionEnd": 6}
    )
    for code in (229, 13):
        keyboard.send(
            "Input.dispatchKeyEvent",
            {"type": "rawKeyDown", "key": "Enter", "code": "Enter", "windowsVirtualKeyCode": code},
        )
    keyboard.send("Input.insertText", {"text": "你好"})
    expect(field).to_have_value("你好")
    assert fake.asked == []
    page.wait_for_timeout(100)  # the one Enter that Safari sends late is swallowed for 50 ms
    field.press("Enter")
    expect(page.locator(".message.user .question")).to_have_text("你好")
    expect(page.locator(".message.assistant .prose")).to_have_text("好的，这是回答。")
    assert [asked["prompt"] for asked in fake.asked] == ["你好"]
    assert fake.asked[0]["stream"] is True
    assert fake.asked[0]["resume"] == "on"


def test_shift_enter_is_a_new_line(page: Page, fake: FakeGateway) -> None:
    field = page.locator(".composer textarea")
    field.press_sequentially("一")
    field.press("Shift+Enter")
    field.press_sequentially("二")
    expect(field).to_have_value("一\n二")
    assert fake.asked == []


def test_streams_stops_and_is_found_after_a_reload(page: Page, fake: FakeGateway) -> None:
    fake.replies = [Reply(pieces=["第一段。", "第二段。", "永不出现"], hold_after=2)]
    ask(page, "讲一个故事")
    prose = page.locator(".message.assistant .prose")
    expect(prose).to_have_text("第一段。第二段。")
    expect(page.locator(".unseen[role=status]")).to_have_text("正在生成")
    page.get_by_role("button", name="停止").click()
    expect(page.locator(".note")).to_have_text("已停止。已生成的内容保留。")
    expect(page.get_by_role("button", name="发送")).to_be_visible()
    assert len(fake.stops) == 1
    expect(page.locator(".list .open")).to_have_text("讲一个故事")

    page.reload()
    expect(page.locator(".message.user .question")).to_have_text("讲一个故事")
    expect(prose).to_have_text("第一段。第二段。")


def test_escape_stops(page: Page, fake: FakeGateway) -> None:
    fake.replies = [Reply(pieces=["开头", "结尾"], hold_after=1)]
    ask(page, "问题")
    expect(page.locator(".message.assistant .prose")).to_have_text("开头")
    page.locator(".composer textarea").press("Escape")
    expect(page.locator(".note")).to_have_text("已停止。已生成的内容保留。")


def test_a_stop_that_comes_before_the_question_is_sent_again(page: Page, fake: FakeGateway) -> None:
    fake.refuse_stops = 2
    fake.replies = [Reply(pieces=["开头", "结尾"], hold_after=1)]
    ask(page, "问题")
    expect(page.locator(".message.assistant .prose")).to_have_text("开头")
    page.get_by_role("button", name="停止").click()
    expect(page.locator(".note")).to_have_text("已停止。已生成的内容保留。")
    assert len(fake.stops) == 1


def test_says_that_an_answer_was_not_saved(page: Page, fake: FakeGateway) -> None:
    fake.replies = [Reply(saved=False)]
    ask(page, "问题")
    expect(page.locator(".note")).to_have_text("这条回答未能保存，对话之后不会记得它。")


def test_the_next_turn_stays_in_the_conversation(page: Page, fake: FakeGateway) -> None:
    ask(page, "第一问")
    expect(page.locator(".endnote")).to_have_count(1)
    ask(page, "第二问")
    expect(page.locator(".endnote")).to_have_count(2)
    first, second = fake.asked
    assert "session_id" not in first
    assert second["session_id"] in fake.sessions
    assert first["turn_id"] != second["turn_id"]


def test_list_opens_searches_renames_and_deletes_with_undo(page: Page, fake: FakeGateway) -> None:
    fake.add_session("季度总结", ("总结一下", "这是总结。"))
    fake.add_session("旅行计划", ("去哪里", "去杭州。"))
    page.reload()
    titles = page.locator(".list .open")
    expect(titles).to_have_text(["旅行计划", "季度总结"])
    titles.nth(1).click()
    expect(page.locator(".message.assistant .prose")).to_have_text("这是总结。")

    page.get_by_role("searchbox").fill("旅行")
    expect(titles).to_have_text(["旅行计划"])
    page.get_by_role("searchbox").fill("")
    expect(titles).to_have_count(2)

    menu(page, "季度总结", "重命名")
    page.get_by_role("textbox", name="新标题").fill("三季度总结")
    page.get_by_role("textbox", name="新标题").press("Enter")
    expect(titles).to_have_text(["旅行计划", "三季度总结"])
    expect(page.locator(".top .title")).to_have_text("三季度总结")

    menu(page, "旅行计划", "删除")
    expect(titles).to_have_text(["三季度总结"])
    page.get_by_role("button", name="撤销").click()
    expect(titles).to_have_text(["旅行计划", "三季度总结"])
    menu(page, "旅行计划", "删除")
    expect(page.locator(".toast")).to_be_hidden()
    expect(titles).to_have_text(["三季度总结"])
    assert len(fake.sessions) == 1


def test_leaving_the_page_makes_a_deletion_final(page: Page, fake: FakeGateway) -> None:
    fake.add_session("旧对话", ("问", "答"))
    page.reload()
    menu(page, "旧对话", "删除")
    page.reload()
    expect(page.locator(".list-note")).to_have_text("您的对话会显示在这里。")


def test_exports_markdown(page: Page, fake: FakeGateway, tmp_path: Path) -> None:
    fake.add_session("旅行计划", ("去哪里", "去杭州。"))
    page.reload()
    with page.expect_download() as download:
        menu(page, "旅行计划", "导出为 Markdown")
    assert download.value.suggested_filename == "旅行计划.md"
    download.value.save_as(tmp_path / "export.md")
    assert "去杭州。" in (tmp_path / "export.md").read_text("utf-8")


def test_scrolling_up_lets_go_and_the_button_comes_back(page: Page, fake: FakeGateway) -> None:
    lines = [f"第 {n} 行\n\n" for n in range(160)]
    fake.replies = [Reply(pieces=lines, hold_after=120)]
    ask(page, "写很多行")
    expect(page.locator(".prose")).to_contain_text("第 119 行")
    scroller = page.locator(".scroller")
    page.wait_for_function(
        "() => { const s = document.querySelector('.scroller');"
        " return s.scrollHeight - s.clientHeight - s.scrollTop < 24; }"
    )
    scroller.hover()
    page.mouse.wheel(0, -600)
    expect(page.locator(".to-bottom")).to_be_visible()
    page.wait_for_function(
        "() => { const s = document.querySelector('.scroller'); const t = s.scrollTop;"
        " const same = window.lastTop === t; window.lastTop = t; return same; }",
        polling=200,
    )
    top = scroller.evaluate("node => node.scrollTop")
    fake.release()
    expect(page.locator(".prose")).to_contain_text("第 159 行")
    assert abs(scroller.evaluate("node => node.scrollTop") - top) < 2
    page.locator(".to-bottom").click()
    expect(page.locator(".to-bottom")).to_be_hidden()


def test_notices_trimmed_history_failover_and_length(page: Page, fake: FakeGateway) -> None:
    fake.replies = [Reply(trimmed=3, failovers=1, finish="length")]
    ask(page, "长对话")
    answer = page.locator(".message.assistant")
    expect(answer).to_contain_text("最早的 3 轮未计入")
    expect(answer.locator(".failover")).to_have_text("已由另一引擎接续，回答未中断。")
    expect(answer).to_contain_text("已达到单次长度上限。")
    answer.get_by_role("button", name="继续生成").click()
    expect(page.locator(".message.user").last).to_contain_text("请继续。")


def test_settings_are_sent_and_kept(page: Page, fake: FakeGateway) -> None:
    page.get_by_role("button", name="设置").click()
    page.get_by_label("系统提示词").fill("你是翻译。")
    page.get_by_label("温度").fill("0.3")
    page.get_by_label("单次回答上限").fill("77")
    page.get_by_role("button", name="保存").click()
    expect(page.get_by_label("系统提示词")).to_have_count(0)
    page.reload()
    ask(page, "翻译")
    expect(page.locator(".endnote")).to_have_count(1)
    sent = fake.asked[0]
    assert (sent["system"], sent["temperature"], sent["max_tokens"]) == ("你是翻译。", 0.3, 77)


def test_the_key_is_kept_for_the_tab_only_unless_asked(
    new_page: Opener, fake: FakeGateway, page_url: str
) -> None:
    page = signed_in(new_page(), page_url, KEY)
    assert page.evaluate("localStorage.getItem('tandem.key')") is None
    page.reload()
    expect(page.locator(".composer textarea")).to_be_visible()
    page.get_by_role("button", name="设置").click()
    page.get_by_role("button", name="退出登录").click()
    page.locator("input[name=key]").fill(KEY)
    page.get_by_label("在此设备记住").check()
    page.get_by_role("button", name="测试并进入").click()
    expect(page.locator(".composer textarea")).to_be_visible()
    assert page.evaluate("localStorage.getItem('tandem.key')") == KEY


def test_english_by_the_browsers_language(
    new_page: Opener, fake: FakeGateway, page_url: str
) -> None:
    page = signed_in(new_page(locale="en-GB"), page_url, KEY)
    expect(page.locator("html")).to_have_attribute("lang", "en")
    expect(page.get_by_role("heading", name="What are you working on?")).to_be_visible()
    page.get_by_role("button", name="Settings").click()
    page.locator(".choice label", has_text="中文").click()
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    expect(page.locator(".settings h2")).to_have_text("设置")


def menu(page: Page, title: str, entry: str) -> None:
    page.get_by_role("button", name=f"“{title}”的操作").focus()
    page.get_by_role("button", name=f"“{title}”的操作").click()
    page.get_by_role("menuitem", name=entry, exact=True).click()
