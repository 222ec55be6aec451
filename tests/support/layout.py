# SPDX-License-Identifier: Apache-2.0
"""What a page's layout must never do, as scripts for a browser's tab."""

from __future__ import annotations

from tests.support.chromium import Tab

__all__ = ["beyond_the_edge", "broken_words", "hidden_characters", "without_name"]

# A word (letters, digits, underscores) whose boxes are on two lines, although a line of its block
# could hold it. Blocks are measured by their content box.
_BROKEN = r"""(() => {
  const found = [], texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const blockOf = (node) => {
    let block = node.parentElement;
    while (getComputedStyle(block).display.startsWith("inline")) block = block.parentElement;
    return block;
  };
  for (let text = texts.nextNode(); text; text = texts.nextNode()) {
    if (["SCRIPT", "STYLE", "OPTION"].includes(text.parentElement.tagName)) continue;
    if (!text.parentElement.checkVisibility()) continue;
    for (const word of text.data.matchAll(/[\p{L}\p{N}_]{2,}/gu)) {
      const range = document.createRange();
      range.setStart(text, word.index);
      range.setEnd(text, word.index + word[0].length);
      const boxes = [...range.getClientRects()].filter((box) => box.width > 0);
      if (new Set(boxes.map((box) => Math.round(box.top))).size < 2) continue;
      const block = blockOf(text), style = getComputedStyle(block);
      const line = block.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
      const width = boxes.reduce((sum, box) => sum + box.width, 0);
      if (width <= line + 0.5) found.push(`${word[0].slice(0, 40)}: ${width} of ${line} px`);
    }
  }
  return found;
})()"""

# Text that is cut off at the window's edge, and a page that scrolls sideways.
_BEYOND = r"""(() => {
  const found = [], wide = document.documentElement.scrollWidth;
  if (wide > innerWidth) found.push(`the page is ${wide} px wide`);
  const clips = (element) => {
    while (element && getComputedStyle(element).overflowX === "visible") element = element.parentElement;
    return Boolean(element);
  };
  for (const element of document.querySelectorAll("body *")) {
    const box = element.getBoundingClientRect();
    if (box.width > 1 && box.right > innerWidth + 1 && element.checkVisibility() && !clips(element)) {
      found.push(`${element.tagName}.${element.className} ends at ${Math.round(box.right)}`);
    }
  }
  return found;
})()"""

# Control characters, direction overrides and the like in texts, or in attributes that are shown.
_HIDDEN = r"""(() => {
  const bad = /[\p{Cc}\p{Cf}\p{Cs}]/u, found = [];
  const look = (text, where) => {
    if (bad.test(text.replaceAll("\n", ""))) found.push(`${where}: ${JSON.stringify(text.slice(0, 60))}`);
  };
  const names = ["title", "aria-label", "placeholder", "alt", "data-label"];
  for (const element of document.querySelectorAll("body *")) {
    if (element.tagName === "SCRIPT") continue;
    for (const node of element.childNodes) if (node.nodeType === 3) look(node.data, element.tagName);
    for (const name of names) look(element.getAttribute(name) || "", name);
  }
  look(document.title, "title");
  return found;
})()"""

_NAMELESS = r"""[...document.querySelectorAll("button, a, input, select")].filter(
  (one) => one.checkVisibility() && !one.textContent.trim() && !one.ariaLabel && !one.labels?.length
).map((one) => one.outerHTML)"""


def broken_words(tab: Tab) -> list[str]:
    """Returns the words that are broken in two although they would fit on a line."""
    return list(tab.run(_BROKEN))


def beyond_the_edge(tab: Tab) -> list[str]:
    """Returns what is wider than the window."""
    return list(tab.run(_BEYOND))


def hidden_characters(tab: Tab) -> list[str]:
    """Returns texts with characters that are not shown, or that reorder others."""
    return list(tab.run(_HIDDEN))


def without_name(tab: Tab) -> list[str]:
    """Returns controls that a screen reader could not announce."""
    return list(tab.run(_NAMELESS))
