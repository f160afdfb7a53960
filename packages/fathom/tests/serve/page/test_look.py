"""How the page looks and is used: marks, experts, themes, a phone, the keyboard alone, a screen reader."""

from __future__ import annotations

import re
from typing import Any

import pytest

WIDE, PHONE = {"width": 1360, "height": 860}, {"width": 360, "height": 740}
UNNAMED = """() => [...document.querySelectorAll("button, input, textarea, [role]:is(div, span)")]
    .filter((e) => !(e.getAttribute("aria-label") || e.textContent.trim() || [...(e.labels ?? [])].some((l) =>
        l.textContent.trim())))
    .map((e) => e.outerHTML)"""
CONTRAST = """() => {
    const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
    const light = (c) => c.slice(0, 3).map((v) => v / 255)
        .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const behind = (e) => {
        for (; e; e = e.parentElement) {
            const found = rgb(getComputedStyle(e).backgroundColor);
            if (found.length < 4 || found[3] === 1) return found;
        }
        return [255, 255, 255];
    };
    const low = [];
    for (const e of document.querySelectorAll(".said, .said code, .help, .hint, dt, dd, h1, h2, label,"
        + " output, kbd, .chosen small, .numbers, .grid th, .tabs button, .open, .brand, .private, .line,"
        + " .token del, .pager, .legend li, .unit")) {
        if (!e.checkVisibility() || !e.textContent.trim()) continue;
        const [a, b] = [light(rgb(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
        const ratio = (a + 0.05) / (b + 0.05);
        if (ratio < 4.5) low.push(`${e.className || e.tagName} ${ratio}: ${e.textContent.slice(0, 20)}`);
    }
    return low;
}"""


def send(page: Any, text: str = "A story") -> None:
    page.fill("#box", text)
    page.press("#box", "Enter")
    page.wait_for_selector("#messages > li:last-child .reply:not(.writing)")


def marked(open_page: Any, **how: Any) -> Any:
    page = open_page(**how)
    send(page)
    page.keyboard.press("Alt+k")
    page.locator(".tokens").wait_for()
    return page


def fits(page: Any) -> bool:
    found: bool = page.evaluate("""() => {
        const wide = (e) => e.scrollWidth > e.clientWidth + 1;
        return ![...document.querySelectorAll("html, body, .scroll, .sheet-body, .side")].some(wide);
    }""")
    return found


def test_drafts_are_marked_in_the_text(fake, open_page) -> None:
    page = marked(open_page)
    accepted = [token["text"] for token in fake.tokens() if token["draft"]]
    assert [text.replace("\n", "↵\n") for text in accepted] == page.evaluate(
        "[...document.querySelectorAll('.tokens .accepted .text')].map((e) => e.textContent)")
    assert page.locator(".tokens del").all_inner_texts() == [" blue", " dog"]
    style = "getComputedStyle(document.querySelector('.tokens .accepted .text')).textDecorationLine"
    assert page.evaluate(style) == "underline"      # a mark that is no colour
    assert page.locator(".legend li").count() == 3
    assert page.get_by_role("option", name="“ a”, after rejected “ blue” “ dog”").count() == 1
    panel = page.locator("#inside").inner_text()
    assert f"{len(accepted)} of {len(accepted) + 2} drafted tokens accepted" in panel
    page.keyboard.press("Alt+k")
    assert page.locator(".tokens").count() == 0 and page.locator(".markdown strong").count() == 1
    page.reload()
    assert page.locator(".tokens").count() == 0


def test_marks_come_while_the_answer_is_written(fake, open_page) -> None:
    fake.delay = 0.15
    page = open_page()
    page.keyboard.press("Alt+k")
    page.fill("#box", "A story")
    page.press("#box", "Enter")
    page.locator(".writing .token.accepted").first.wait_for()
    page.locator(".writing .token").first.click()
    page.get_by_text("Wait until the answer is finished").wait_for()


def test_parts_of_a_character_are_put_together(fake, open_page) -> None:
    page = open_page()
    shown = page.evaluate("""async () => {
        const { shownTexts } = await import("./page/tokens.js");
        const t = (...texts) => texts.map((text) => ({ text, rejected: [] })), bad = "\\ufffd";
        return [shownTexts(t("a", bad, bad, " b"), "a\U0001f40b b"), shownTexts(t(bad, bad), "\u00e9"),
                shownTexts(t("a", "<end>"), "a"), shownTexts(t(bad), "")];
    }""")
    assert shown == [["a", "", "\U0001f40b", " b"], ["", "\u00e9"], ["a", "<end>"], ["\ufffd"]]


def test_the_numbers_of_an_answer(fake, open_page) -> None:
    page = open_page()
    send(page)
    panel = page.locator("#inside").inner_text()
    positions = 5 + len(fake.tokens())
    assert "41.5" in panel and "9.6×" in panel
    assert f"{1280 * positions / 1000:.1f} kB" in panel and f"{round(12288 * positions / 1000)} kB" in panel
    ours, plain = page.evaluate("[...document.querySelectorAll('.bars .meter i')].map((e) => e.clientWidth)")
    assert plain / ours == pytest.approx(9.6, rel=0.03)
    assert f"{positions} of 2,048 tokens used" in page.locator("#room").inner_text()


def test_the_experts_of_a_chosen_token(fake, open_page) -> None:
    page = marked(open_page)
    page.get_by_role("option").nth(3).click()
    table = page.get_by_role("table", name="Experts that each layer chose for the token")
    table.wait_for()
    token = 7 + 3
    want = [[str((3 * token + 5 * layer + 7 * rank) % 16) for rank in range(2)] for layer in range(1, 5)]
    assert [row.split() for row in page.locator(".grid .numbers").all_inner_texts()] == want
    assert page.locator(".grid tbody th").all_inner_texts() == ["1", "2", "3", "4"]
    picked = page.evaluate("""[...document.querySelectorAll(".grid tbody tr")].map((row) =>
        [...row.querySelectorAll("[data-expert]")].map((e) => e.dataset.expert))""")
    assert picked == want
    assert "Layer 0 is dense" in page.locator(".experts").inner_text()
    page.keyboard.press("ArrowRight")
    page.locator(".chosen", has_text="id 11").wait_for()
    assert page.get_by_role("option", selected=True).count() == 1
    assert fake.paths.count("/fathom/experts") == 1     # of the whole answer at once


def test_a_model_of_full_size_fits_its_grid(fake, open_page) -> None:
    fake.info |= {"layers": 61, "experts": [0] * 3 + [256] * 58, "experts_per_token": 8}
    page = marked(open_page)
    page.get_by_role("option").first.click()
    page.locator(".grid").wait_for()
    assert page.locator(".grid tbody tr").count() == 58
    assert page.locator(".grid [data-expert]").count() == 58 * 8
    assert fits(page)


def test_a_model_without_experts_or_drafts_says_so(fake, open_page) -> None:
    fake.info |= {"experts": [0] * 5, "drafts": False}
    page = marked(open_page)
    page.get_by_role("option").first.click()
    assert "This model has no experts." in page.locator("#inside").inner_text()
    assert "This model drafts no tokens." in page.locator("#inside").inner_text()
    assert "/fathom/experts" not in fake.paths


def test_the_theme_follows_the_system_until_one_is_chosen(fake, open_page) -> None:
    page = open_page(color_scheme="dark")
    ground = lambda: page.evaluate("getComputedStyle(document.body).backgroundColor")  # noqa: E731
    dark = ground()
    page.get_by_role("button", name="Theme: as the system has it").click()
    light = ground()
    assert light != dark and page.get_by_role("button", name="Theme: light").count() == 1
    page.reload()
    assert ground() == light
    page.get_by_role("button", name="Theme: light").click()
    assert ground() == dark
    page.get_by_role("button", name="Theme: dark").click()
    page.emulate_media(color_scheme="light")
    assert ground() == light


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_every_theme(scheme: str, fake, open_page) -> None:
    page = marked(open_page, color_scheme=scheme)
    page.get_by_role("option").first.click()
    page.locator(".grid").wait_for()
    assert page.evaluate(CONTRAST) == []
    page.get_by_role("tab", name="Settings").click()
    page.keyboard.press("Alt+n")
    assert page.evaluate(CONTRAST) == []


def test_everything_fits_on_a_phone(fake, open_page) -> None:
    fake.answer = "x" * 300 + "\n\n```\n" + "y" * 300 + "\n```\n\n" + fake.answer
    page = marked(open_page, size=PHONE, has_touch=True, is_mobile=True)
    assert fits(page)
    page.locator(".tokens [role=option]").nth(4).tap()
    page.locator(".grid").wait_for()                    # the panel came up
    assert fits(page) and page.locator("[inert] #main").count() == 1
    page.get_by_role("tab", name="Settings").tap()
    assert fits(page)
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.getAttribute('role')") == "option"
    page.get_by_role("button", name="Conversations", exact=True).tap()
    assert fits(page) and page.locator("#list").is_visible()
    page.locator("#shade").tap(position={"x": 350, "y": 300})
    assert not page.locator("#list").is_visible()
    page.keyboard.press("Alt+k")
    assert fits(page)
    page.keyboard.press("Alt+n")
    assert fits(page)


def test_the_keyboard_alone_is_enough(fake, open_page) -> None:
    page = open_page()
    where = lambda: page.evaluate("document.activeElement.id || document.activeElement.getAttribute('role')")  # noqa: E731
    assert where() == "box"
    page.keyboard.type("one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    page.keyboard.press("Enter")
    page.wait_for_selector(".reply:not(.writing)")
    assert fake.asked[0]["messages"][0]["content"] == "one\ntwo" and where() == "box"
    page.keyboard.press("Alt+k")
    for _ in range(12):
        page.keyboard.press("Shift+Tab")
        if where() == "option":
            break
    assert where() == "option"
    ring = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert ring == "solid"
    page.keyboard.press("End")
    page.locator(".grid").wait_for()
    page.keyboard.press("Escape")
    assert where() == "box"
    page.keyboard.press("ArrowUp")                      # in the empty box: edit the last message
    page.keyboard.type("!")
    page.keyboard.press("Enter")
    page.wait_for_selector(".reply:not(.writing)")
    assert fake.asked[1]["messages"][0]["content"] == "one\ntwo!"
    page.keyboard.press("Alt+r")
    page.locator(".pager", has_text="2 of 2").wait_for()
    page.keyboard.press("Alt+/")
    page.get_by_role("dialog", name="Keyboard shortcuts").wait_for()
    page.keyboard.press("Escape")
    for side in ("p", "l"):
        page.keyboard.press(f"Alt+{side}")
    assert not page.locator("#panel").is_visible() and not page.locator("#list").is_visible()
    page.keyboard.press("Alt+p")
    page.locator("#tab-inside").focus()
    page.keyboard.press("ArrowRight")
    assert page.get_by_label("Temperature").is_visible()


def test_everything_has_a_name_and_a_place(fake, open_page) -> None:
    page = marked(open_page)
    page.get_by_role("option").first.click()
    page.locator(".grid").wait_for()
    page.get_by_role("button", name="Edit this message").click()
    assert page.evaluate(UNNAMED) == []
    tree = page.locator("body").aria_snapshot()
    for role in ("navigation", "main", "banner", "complementary"):
        assert len(re.findall(rf"^\s*- {role}\b", tree, re.M)) == 1, role
    nameless = r"^\s*- (button|textbox|switch|checkbox|slider|tab|option|spinbutton)( \[|:|$)"
    assert not re.search(nameless, tree, re.M), tree
    for name in ('article "Your message"', 'article "Answer"', 'listbox "Tokens of the answer"',
                 'switch "Show tokens', 'table "Experts that each layer chose'):  # fmt: skip
        assert name in tree, name


def test_nothing_moves_for_who_asked_for_that(fake, open_page) -> None:
    fake.delay = 0.1
    page = open_page(reduced_motion="reduce", size=PHONE)
    page.fill("#box", "A story")
    page.press("#box", "Enter")
    page.get_by_role("button", name="Model and settings").click()
    moving = "document.getAnimations().length"
    assert page.evaluate(moving) == 0


def test_a_model_that_is_not_up_yet_is_waited_for(fake, open_page) -> None:
    fake.well = False
    page = open_page(refused=True)
    page.get_by_text("The model is not ready yet.").wait_for()
    fake.well = True
    page.get_by_text("Talk to small-world").wait_for()
