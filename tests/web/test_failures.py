"""What the page shows and does when something is wrong."""

import pytest
from conftest import Opener, ask, signed_in
from fake_gateway import KEY, FakeGateway, Reply, status
from playwright.sync_api import Page, expect

ANSWER = "好的，这是回答。"


def test_a_wrong_key_is_told_at_the_door(
    new_page: Opener, fake: FakeGateway, page_url: str
) -> None:
    page = new_page()
    page.goto(page_url)
    page.locator("input[name=key]").fill("wrong")
    page.get_by_role("button", name="测试并进入").click()
    expect(page.get_by_role("alert")).to_contain_text("密钥无效或已停用。")


def test_401_opens_the_key_dialog_over_the_conversation_and_keeps_the_question(
    page: Page, fake: FakeGateway
) -> None:
    fake.key = "tk-new"
    ask(page, "还在吗")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("密钥无效或已停用。")
    expect(page.locator(".question")).to_have_text("还在吗")
    dialog.locator("input[name=key]").fill("tk-new")
    dialog.get_by_role("button", name="测试并进入").click()
    expect(dialog).to_be_hidden()
    page.locator(".card").get_by_role("button", name="重试").click()
    expect(page.locator(".prose")).to_have_text(ANSWER)


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (Reply(status=409, code="turn_in_progress"), "这个对话正在另一窗口中回答。"),
        (Reply(status=500), "服务器出错，未能完成回答。"),
        (Reply(status=400, message="temperature must be at most 2"), "temperature must be"),
        (Reply(status=400, code="context_length_exceeded"), "内容过长"),
    ],
)
def test_says_what_happened_and_retry_works(
    page: Page, fake: FakeGateway, reply: Reply, says: str
) -> None:
    fake.replies = [reply]
    ask(page, "问题")
    card = page.locator(".card")
    expect(card).to_contain_text(says)
    expect(card).to_contain_text("编号 7f3a21c0")
    card.get_by_role("button", name="重试").click()
    expect(page.locator(".prose")).to_have_text(ANSWER)
    expect(page.locator(".message")).to_have_count(2)
    assert fake.asked[0]["turn_id"] != fake.asked[1]["turn_id"]


@pytest.mark.parametrize(
    ("status_code", "says"), [(429, "请求较多。"), (503, "服务器繁忙，当前排队已满。")]
)
def test_counts_down_and_sends_again(
    page: Page, fake: FakeGateway, status_code: int, says: str
) -> None:
    fake.replies = [Reply(status=status_code, code="overloaded", retry_after=6)]
    ask(page, "问题")
    expect(page.locator(".card")).to_contain_text(says)
    expect(page.locator(".countdown")).to_contain_text("秒后自动重新发送")
    expect(page.locator(".prose")).to_have_text(ANSWER)
    assert len(fake.asked) == 2


def test_the_countdown_can_be_cancelled(page: Page, fake: FakeGateway) -> None:
    fake.replies = [Reply(status=429, retry_after=600)]
    ask(page, "问题")
    page.locator(".card").get_by_role("button", name="取消").click()
    expect(page.locator(".countdown")).to_be_hidden()
    expect(page.locator(".card").get_by_role("button", name="重试")).to_be_visible()


def test_a_full_service_is_not_asked_for_ever(page: Page, fake: FakeGateway) -> None:
    fake.replies = [Reply(status=503, code="overloaded", retry_after=0) for _ in range(20)]
    ask(page, "问题")
    expect(page.locator(".card").get_by_role("button", name="重试", exact=True)).to_be_visible()
    assert len(fake.asked) == 6


def test_a_question_without_an_answer_is_not_lost(page: Page, fake: FakeGateway) -> None:
    fake.add_session("别的", ("问", "答"))
    page.reload()
    fake.replies = [Reply(status=500)]
    ask(page, "重要的问题")
    expect(page.locator(".card")).to_be_visible()
    page.locator(".list .open").click()
    expect(page.locator(".question")).to_have_text("问")
    page.get_by_role("button", name="新建对话").click()
    expect(page.locator(".question")).to_have_text("重要的问题")
    page.get_by_role("button", name="新建对话").click()
    expect(page.locator(".question")).to_have_count(0)
    expect(page.locator(".composer textarea")).to_have_value("重要的问题")


def test_an_expired_conversation_can_be_begun_anew(page: Page, fake: FakeGateway) -> None:
    ask(page, "第一问")
    expect(page.locator(".endnote")).to_have_count(1)
    fake.sessions.clear()
    ask(page, "第二问")
    expect(page.locator(".card")).to_contain_text("服务器上已没有这个对话。")
    page.get_by_role("button", name="用这条消息新建对话").click()
    expect(page.locator(".composer textarea")).to_have_value("第二问")
    page.locator(".composer textarea").press("Enter")
    expect(page.locator(".prose")).to_have_text(ANSWER)


def test_an_error_in_the_stream_keeps_the_text(page: Page, fake: FakeGateway) -> None:
    error = {"message": "The engine failed.", "code": "upstream_error"}
    fake.replies = [Reply(pieces=["开头"], stream_error=error)]
    ask(page, "问题")
    expect(page.locator(".card")).to_contain_text("服务器出错，未能完成回答。")
    expect(page.locator(".prose")).to_have_text("开头")
    assert fake.reattached == []


def test_reattaches_where_the_connection_was_lost(page: Page, fake: FakeGateway) -> None:
    fake.replies = [Reply(pieces=["一", "二", "三", "四"], hold_after=2)]
    ask(page, "数数")
    expect(page.locator(".prose")).to_have_text("一二")
    fake.refuse_events = 1_000
    fake.cut()
    expect(page.locator(".banner")).to_contain_text("连接中断，正在重新连接。")
    fake.refuse_events = 0
    expect(page.locator(".banner")).to_be_hidden()
    fake.release()
    expect(page.locator(".prose")).to_have_text("一二三四")
    expect(page.locator(".endnote")).to_be_visible()
    assert set(fake.reattached) == {"e3x"}
    assert len(fake.asked) == 1


def test_goes_on_after_minutes_without_a_network(page: Page, fake: FakeGateway) -> None:
    page.clock.install()
    fake.replies = [Reply(pieces=["一", "二", "三"], hold_after=1)]
    ask(page, "数数")
    expect(page.locator(".prose")).to_have_text("一")
    page.context.set_offline(True)
    expect(page.locator(".banner")).to_contain_text("当前处于离线状态。")
    page.clock.fast_forward("10:00")
    expect(page.locator(".banner")).to_contain_text("当前处于离线状态。")
    expect(page.locator(".card")).to_have_count(0)
    fake.release()
    page.context.set_offline(False)
    expect(page.locator(".prose")).to_have_text("一二三")
    expect(page.locator(".banner")).to_be_hidden()


def test_a_reload_finds_the_running_answer_again(page: Page, fake: FakeGateway) -> None:
    fake.replies = [Reply(pieces=["一", "二", "三"], hold_after=2)]
    ask(page, "数数")
    expect(page.locator(".prose")).to_have_text("一二")
    page.reload()
    expect(page.locator(".question")).to_have_text("数数")
    expect(page.locator(".prose")).to_have_text("一二")
    fake.release()
    expect(page.locator(".prose")).to_have_text("一二三")
    expect(page.locator(".endnote")).to_be_visible()
    page.reload()
    expect(page.locator(".prose")).to_have_text("一二三")
    expect(page.locator(".message")).to_have_count(2)
    assert len(fake.asked) == 1


def test_a_forgotten_turn_is_read_from_its_session(page: Page, fake: FakeGateway) -> None:
    fake.replies = [Reply(pieces=["一", "二"], hold_after=1)]
    ask(page, "数数")
    expect(page.locator(".prose")).to_have_text("一")
    turn = fake.turns.popitem()[1]
    fake.save(turn.session, turn.id, "数数", "一二，完毕", "stop")
    fake.cut()
    expect(page.locator(".prose")).to_have_text("一二，完毕")
    fake.release()


def test_says_that_the_model_is_loading_and_sends_when_it_is_ready(
    new_page: Opener, fake: FakeGateway, page_url: str
) -> None:
    fake.status = status("starting", "starting", ready=False)
    page = signed_in(new_page(), page_url, KEY)
    expect(page.locator(".health")).to_contain_text("模型载入中")
    expect(page.locator(".banner")).to_contain_text("模型正在载入。")
    fake.replies = [Reply(status=503, code="no_engine_available", retry_after=1)]
    ask(page, "早上好")
    expect(page.locator(".prose")).to_have_text(ANSWER)
    fake.status = status()
    expect(page.locator(".health")).to_contain_text("服务正常")
    expect(page.locator(".banner")).to_be_hidden()


def test_shows_that_one_engine_is_away(page: Page, fake: FakeGateway) -> None:
    fake.status = status("healthy", "down")
    page.reload()
    expect(page.locator(".health")).to_contain_text("部分可用")
    expect(page.locator(".health")).to_contain_text("引擎 1/2")
    page.locator(".health").click()
    expect(page.locator(".sheet li")).to_have_text(["vllm-a正常", "vllm-b停止"])
