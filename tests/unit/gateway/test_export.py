"""A conversation as a file."""

from __future__ import annotations

from gateway.export import as_markdown, file_name

SESSION = {
    "id": "sess_1",
    "title": "Rain &\nSpain",
    "system": "be brief",
    "messages": [
        {"role": "user", "content": "why?", "created_at": 0},
        {"role": "assistant", "content": "# because\n\n- 雨", "created_at": 3600},
    ],
}


def test_markdown_has_every_message_in_order_as_it_was_written() -> None:
    text = as_markdown(SESSION)
    assert text.startswith("# Rain & Spain\n")
    places = [text.index(part) for part in ("be brief", "why?", "# because\n\n- 雨")]
    assert places == sorted(places)
    assert "## You · 1970-01-01 00:00 UTC" in text
    assert "## Assistant · 1970-01-01 01:00 UTC" in text


def test_a_conversation_without_anything_is_a_file_too() -> None:
    assert as_markdown({"title": "", "messages": []}).startswith("# Conversation")


def test_a_file_name_has_no_path_and_no_quotes() -> None:
    assert file_name({**SESSION, "title": '../etc/"雨 & x"'}, "md") == "etc-雨-x.md"
    assert file_name({**SESSION, "title": "…!"}, "json") == "sess_1.json"
