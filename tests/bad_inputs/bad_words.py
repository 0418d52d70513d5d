"""Words and files of words that are none."""

from __future__ import annotations

from bad_images import encoded

WORDS: dict[str, list[str]] = {
    "empty": [""],
    "blank": ["  "],
    "twice": ["road", "road"],
    "twice_spaced": ["road", " road "],
    "colon_only": [":"],
    "no_name": [": sky"],
    "no_words": ["sky:"],
    "empty_word": ["sky: a | | b"],
    "word_twice": ["sky: a | a"],
    "bar_without_name": ["a | b"],
    "bang_only": ["!"],
    "bang_blank": ["! "],
    **{
        f"control_{code:02x}": [f"ro{chr(code)}ad"]
        for code in (0, 1, 7, 8, 9, 10, 11, 12, 13, 27, 31, 127, 133)
    },
    "line_separator": ["a\u2028b"],
    "lone_surrogate": ["\ud800"],
}

WORD_FILES: dict[str, bytes] = {
    "empty.txt": b"",
    "comments.txt": b"# a\n#b\n\n",
    "latin1.txt": b"caf\xe9\n",
    "utf16.txt": "road\ncar\n".encode("utf-16"),
    "nul.txt": b"road\0car\n",
    "twice.txt": b"road\nroad\n",
    "image.txt": encoded("png"),
    "broken.json": b"{",
    "number.json": b"3",
    "null.json": b"null",
    "empty_list.json": b"[]",
    "numbers.json": b"[1, 2]",
    "nested.json": b'[["road"]]',
    "no_classes.json": b"{}",
    "classes_text.json": b'{"classes": "road"}',
    "no_name.json": b'{"classes": [{"words": ["a"]}]}',
    "words_text.json": b'{"classes": [{"name": "a", "words": "a"}]}',
    "colour.json": b'{"classes": [{"name": "a", "colour": [1, 2]}]}',
    "background.json": b'{"classes": [{"name": "a", "background": "yes"}]}',
    "deep.json": b"[" * 5000,
    "latin1.json": b'["caf\xe9"]',
}
