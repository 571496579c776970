//! Files in other encodings: how they are shown, and which bytes an edit keeps.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use encoding_rs::Encoding;
use text_view::{Unwritable, View};

fn view(path: &str, bytes: &[u8]) -> View {
    View::of(path, bytes.to_vec()).unwrap()
}

fn text(view: &View) -> &str {
    std::str::from_utf8(view.text()).unwrap()
}

fn encoded(label: &str, text: &str) -> Vec<u8> {
    let (bytes, _, failed) = Encoding::for_label(label.as_bytes()).unwrap().encode(text);
    assert!(!failed, "{label}");
    bytes.into_owned()
}

fn utf16(big: bool, text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(|unit| if big { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect()
}

/// A realistic file in each common encoding, a line to insert, and a line that the encoding cannot
/// represent.
const FILES: &[(&str, &str, &str, &str)] = &[
    ("windows-1252", "// Größe der Fläche\nint größe = 3; // „so“\n", "// señor — 5 €\n", "// 日本\n"),
    ("iso-8859-2", "# Zażółć gęślą jaźń\nx = 1\n", "# Źdźbło święte\n", "# 5 €\n"),
    ("windows-1250", "# Příliš žluťoučký kůň úpěl ďábelské ódy\nx = 1\n", "# Šťastný, že žije\n", "# Ω\n"),
    ("windows-1251", "// Привет, мир! Это проверка.\nint x;\n", "// Ещё одна строка №1\n", "// é\n"),
    ("koi8-r", "// Привет, мир! Это проверка.\nint x;\n", "// Ещё одна строка\n", "// ß\n"),
    ("ibm866", "// Привет, мир! Это проверка кодировки.\nint x;\n", "// Ещё одна строка\n", "// ß\n"),
    ("shift_jis", "// これはテストです\nint x;\n", "// 日本語の表示能力\n", "// é\n"),
    ("euc-jp", "// これはテストです。日本語\nint x;\n", "// 漢字かな\n", "// 한글\n"),
    ("gbk", "// 这是一个测试文件\nint x;\n", "// 你好，世界\n", "// é日😀\n"),
    ("big5", "// 這是一個測試檔案\nint x;\n", "// 你好，世界\n", "// é\n"),
    ("euc-kr", "// 안녕하세요 세계 테스트입니다\nint x;\n", "// 한글 주석\n", "// é\n"),
    ("windows-1253", "// Καλημέρα κόσμε, αυτό είναι\nint x;\n", "// Ελληνικά\n", "// ж\n"),
    ("windows-1255", "// שלום עולם זה מבחן\nint x;\n", "// עברית\n", "// ж\n"),
    ("windows-1256", "// مرحبا بالعالم هذا اختبار\nint x;\n", "// عربي\n", "// ж\n"),
    ("windows-1254", "// Türkçe karakterler: ığüşöç İstanbul\nint x;\n", "// Şimdi değiş\n", "// ж\n"),
    ("windows-874", "// สวัสดีชาวโลก นี่คือการทดสอบ\nint x;\n", "// ภาษาไทย\n", "// ж\n"),
];

#[test]
fn a_file_is_decoded_and_a_new_line_is_written_in_its_encoding() {
    for (label, content, line, never) in FILES {
        for ending in ["\n", "\r\n"] {
            let with = |text: &str| text.replace('\n', ending);
            let bytes = encoded(label, &with(content));
            let view = view("a.c", &bytes);
            assert_eq!(text(&view), with(content), "{label}");
            let at = with(content).find('\n').unwrap() + 1;
            let mut new = with(content);
            new.insert_str(at, &with(line));
            let written = view.write(new.as_bytes()).unwrap_or_else(|e| panic!("{label}: {e}"));
            assert_eq!(written, encoded(label, &new), "{label}");
            let mut new = with(content);
            new.insert_str(at, &with(never));
            let refused = view.write(new.as_bytes()).unwrap_err();
            assert!(matches!(refused, Unwritable::Character { line: 2, .. }), "{label}: {refused}");
        }
    }
}

#[test]
fn a_refusal_names_the_character_the_line_and_the_encoding() {
    let refused = view("s.java", b"// m\xe1s\n").write("// más\nx\n// → y\n".as_bytes()).unwrap_err();
    let error = refused.to_string();
    assert!(
        error.contains("line 3") && error.contains("'→' (U+2192)") && error.contains("windows-1250"),
        "{error}"
    );
}

#[test]
fn latin_1_does_not_become_windows_1252() {
    let view = view("a.c", b"// caf\xe9\n");
    assert_eq!(view.write("// café ñ ÿ\n".as_bytes()).unwrap(), b"// caf\xe9 \xf1 \xff\n");
    assert!(
        view.write("// café “x”\n".as_bytes()).is_err(),
        "the file may be ISO-8859-1, which lacks the quotes"
    );
}

#[test]
fn a_letter_shared_by_western_and_eastern_europe_leaves_the_encoding_open() {
    // Spanish and Czech both have the letter `á`, which is the same byte in Latin-1 and
    // Windows-1250.
    let view = view("a.java", b"// m\xe1s\n");
    assert_eq!(text(&view), "// más\n");
    assert_eq!(view.write("// más señor\n".as_bytes()).unwrap(), b"// m\xe1s se\xf1or\n");
    assert_eq!(view.write("// más č\n".as_bytes()).unwrap(), b"// m\xe1s \xe8\n");
    assert!(matches!(view.write("// más š\n".as_bytes()), Err(Unwritable::UncertainEncoding { .. })));
}

#[test]
fn a_single_western_european_symbol_or_letter_is_read_correctly() {
    for word in [
        "más",
        "señor",
        "café",
        "naïve",
        "ação",
        "œuvre",
        "smörgås",
        "høj",
        "così",
        "£5",
        "25°C",
        "© 2020",
        "½",
        "µm",
        "±5",
        "§ 3",
        "¿Qué?",
        "¡hola!",
        "«bonjour»",
        "ñ",
        "ø",
        "x²",
        "Straße",
        "don’t",
        "5 €",
        "1 – 2",
    ] {
        let content = format!("// {word}\nint x = 1;\n");
        let view = view("a.c", &encoded("windows-1252", &content));
        assert_eq!(text(&view), content);
    }
    for (label, word) in [
        ("windows-1250", "žluťoučký"),
        ("iso-8859-2", "źródło"),
        ("windows-1250", "Łódź"),
        ("windows-1250", "świat"),
        ("shift_jis", "日本語テスト"),
        ("gbk", "这是测试文件"),
        ("big5", "這是測試檔案"),
        ("euc-kr", "한글 주석입니다"),
        ("windows-1251", "Привет"),
        ("koi8-r", "Привет"),
    ] {
        let content = format!("// {word}\nint x = 1;\n");
        let view = view("a.c", &encoded(label, &content));
        assert_eq!(text(&view), content, "{label}");
    }
}

#[test]
fn a_few_east_asian_characters_leave_the_encoding_open() {
    // In GBK and in EUC-KR, the bytes of these two Big5 characters stand for other characters.
    let view = view("a.c", &encoded("big5", "// 測試\nint x = 1;\n"));
    let new = format!("{}// 中文\n", text(&view));
    assert!(
        matches!(view.write(new.as_bytes()), Err(Unwritable::UncertainEncoding { .. })),
        "{:?}",
        view.note()
    );
    let ascii = text(&view).replace("x = 1", "x = 2");
    assert_eq!(view.write(ascii.as_bytes()).unwrap(), encoded("big5", "// 測試\nint x = 2;\n"));
    let korean = self::view("a.c", &encoded("euc-kr", "// 한국어입\nint x;\n"));
    let new = format!("{}// 주석\n", text(&korean));
    assert_eq!(
        korean.write(new.as_bytes()).unwrap(),
        encoded("euc-kr", &new),
        "only one of the encodings has these letters"
    );
}

#[test]
fn if_a_file_fits_two_encodings_letters_that_they_encode_differently_are_refused() {
    let polish = encoded("windows-1250", "# łóż żółw łąk ęół\n");
    // This text has no ą. All its letters have the same bytes in ISO-8859-2.
    let same = encoded("windows-1250", "# łóż żółw ęół, łół óżył ćół\n");
    let shown = view("a.py", &same);
    let refused = shown.write(format!("{}# ś\n", text(&shown)).as_bytes()).unwrap_err();
    assert!(matches!(refused, Unwritable::UncertainEncoding { c: 'ś', line: 2, .. }), "{refused}");
    let shown = view("a.py", &polish);
    assert!(
        shown.write(format!("{}# ś\n", text(&shown)).as_bytes()).is_ok(),
        "ą should distinguish the encodings"
    );
}

#[test]
fn unchanged_lines_keep_their_bytes_even_if_they_are_invalid() {
    // Shift_JIS with an invalid line, and a character written as two different byte pairs.
    let line = "// これはテストです。日本語の表示\n".repeat(20);
    let mut bytes = encoded("shift_jis", &format!("// -*- coding: shift_jis -*-\n{line}int a;\n"));
    bytes.extend(b"// \xfd\xfe broken\n// \x87\x90 \x81\xe0 \xee\xf9\nint b;\n");
    let view = view("a.c", &bytes);
    let new = text(&view).replace("int b;", "int b; // 能");
    let written = view.write(new.as_bytes()).unwrap();
    let mut expected = bytes[..bytes.len() - 1].to_vec();
    expected.extend(b" // \x94\x5c\n");
    assert_eq!(written, expected);
    let within = text(&view).replace(" broken", " fixed");
    let written = view.write(within.as_bytes()).unwrap();
    assert!(
        written.windows(9).any(|w| w == b"\xfd\xfe fixed\n"),
        "an edited line should keep its other bytes too"
    );
    let invented = text(&view).replace("int b;", "\u{fffd}");
    assert!(matches!(view.write(invented.as_bytes()), Err(Unwritable::Unreadable { .. })));
}

#[test]
fn a_mostly_utf_8_file_keeps_its_invalid_lines() {
    let bytes = b"// caf\xc3\xa9\n// na\xc3\xafve\n// se\xf1or\n// \xc3\xa0\nx\n";
    let view = view("a.c", bytes);
    assert_eq!(text(&view), "// café\n// naïve\n// señor\n// à\nx\n");
    let new = text(&view).replace("x\n", "ñ\n").replace("señor", "señorá");
    assert_eq!(
        view.write(new.as_bytes()).unwrap(),
        b"// caf\xc3\xa9\n// na\xc3\xafve\n// se\xf1or\xe1\n// \xc3\xa0\n\xc3\xb1\n"
    );
}

#[test]
fn utf_16_keeps_byte_order_mark_and_line_endings() {
    for big in [false, true] {
        for (mark, ending) in [("\u{feff}", "\r\n"), ("\u{feff}", "\n"), ("", "\r\n"), ("\u{feff}", "\r")] {
            let file = |text: &str| utf16(big, &text.replace('\n', ending));
            let content = format!("{mark}Windows Registry Editor\n\n[HKEY]\n\"a\"=\"ä\"\n");
            let view = view("a.reg", &file(&content));
            let shown = if ending == "\r" { content.clone() } else { content.replace('\n', ending) };
            assert_eq!(text(&view), shown, "{big} {mark:?} {ending:?}");
            let new = shown.replace("\"ä\"", "\"日😀\"");
            let expected = file(&content.replace("\"ä\"", "\"日😀\""));
            assert_eq!(view.write(new.as_bytes()).unwrap(), expected, "{big} {mark:?} {ending:?}");
        }
    }
}

#[test]
fn a_file_with_zeros_that_is_not_utf_16_is_binary() {
    for bytes in [
        b"\0asm\x01\0\0\0".to_vec(),
        b"a\0b\0\0\0c\0".to_vec(),
        b"\xff\xfe\0\0a\0\0\0".to_vec(),
        b"PK\x03\x04\x14\0\0\0\x08\0".to_vec(),
        b"text\0".to_vec(),
        b"\xff\xfea\0\0\0b\0".to_vec(),
    ] {
        assert!(View::of("a", bytes.clone()).is_err(), "{bytes:?}");
    }
}

#[test]
fn lone_carriage_returns_end_lines_and_are_kept() {
    for (bytes, shown) in [(&b"one\rtwo\rthree\r"[..], "one\ntwo\nthree\n"), (b"one\rtwo", "one\ntwo")] {
        let view = view("a.txt", bytes);
        assert_eq!(text(&view), shown);
        let new = shown.replace("two", "zwei\r\nund ü");
        let written = String::from_utf8(view.write(new.as_bytes()).unwrap()).unwrap();
        assert_eq!(written, String::from_utf8_lossy(bytes).replace("two", "zwei\rund ü"));
    }
    let latin = view("a.txt", b"caf\xe9\rtwo\r");
    assert_eq!(latin.write("café\nñ\n".as_bytes()).unwrap(), b"caf\xe9\r\xf1\r");
    for plain in ["a\r\nb\r\n", "10%\r20%\ndone\n", "a\n", "a\r\r\n\n"] {
        assert!(view("a.txt", plain.as_bytes()).is_plain(), "{plain:?}");
    }
}

#[test]
fn a_declared_encoding_applies_even_if_the_file_is_ascii() {
    for (path, head, new, expected) in [
        ("a.py", "# -*- coding: latin-1 -*-\n", "ñ", Some(&b"\xf1"[..])),
        ("a.py", "#!/usr/bin/python\n# vim: set fileencoding=iso-8859-15 :\n", "€", Some(b"\xa4")),
        ("a.py", "# coding=cp1252\n", "€", Some(b"\x80")),
        ("a.py", "# -*- coding: latin-1 -*-\n", "€", None),
        ("a.py", "# coding: cp932\n", "能", Some(b"\x94\x5c")),
        ("a.py", "# -*- coding: cp437 -*-\n", "é", None),
        ("a.py", "# -*- coding: ascii -*-\n", "é", None),
        ("a.py", "# -*- coding: utf-8 -*-\n", "é", Some("é".as_bytes())),
        ("a.rb", "# encoding: windows-1251\n", "ж", Some(b"\xe6")),
        ("a.el", ";; -*- mode: lisp; coding: iso-8859-1-unix -*-\n", "é", Some(b"\xe9")),
        ("a.xml", "<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?>\n<a/>\n", "é", Some(b"\xe9")),
        ("a.xml", "<?xml version='1.0' encoding='koi8-r'?>\n<a/>\n", "ж", Some(b"\xd6")),
        ("a.xml", "<?xml version=\"1.0\" encoding=\"US-ASCII\"?>\n", "é", None),
        ("a.xml", "<?xml version=\"1.0\"?>\n<a encoding=\"latin1\"/>\n", "é", Some("é".as_bytes())),
        ("a.html", "<!DOCTYPE html>\n<html><head><meta charset=iso-8859-1>\n", "€", Some(b"\x80")),
        (
            "a.html",
            "<html><meta http-equiv=\"Content-Type\" content=\"text/html; charset=windows-1251\">\n",
            "ж",
            Some(b"\xe6"),
        ),
        ("a.html", "<!-- <meta charset=koi8-r> --><html>\n", "ж", Some("ж".as_bytes())),
        ("a.css", "@charset \"iso-8859-15\";\n", "€", Some(b"\xa4")),
        ("a.tex", "\\documentclass{article}\n\\usepackage[latin1]{inputenc}\n", "é", Some(b"\xe9")),
        ("a.tex", "% \\usepackage[latin1]{inputenc}\n", "é", Some("é".as_bytes())),
        (
            "a.po",
            "msgid \"\"\nmsgstr \"\"\n\"Content-Type: text/plain; charset=ISO-8859-2\\n\"\n",
            "ł",
            Some(b"\xb3"),
        ),
        ("a.md", "# Coding: the basics\n", "é", Some("é".as_bytes())),
        ("a.c", "/* encoding: latin-1 */\n", "é", Some("é".as_bytes())),
        ("a.txt", "plain\n", "é", Some("é".as_bytes())),
    ] {
        let view = view(path, head.as_bytes());
        let new_text = format!("{head}{new}\n");
        let written = view.write(new_text.as_bytes()).ok();
        let expected = expected.map(|bytes| [head.as_bytes(), bytes, b"\n"].concat());
        assert_eq!(written, expected, "{path} {head}");
    }
}

#[test]
fn a_declaration_that_the_bytes_contradict_is_ignored() {
    let view = view("a.py", "# -*- coding: latin-1 -*-\n# naïve café, señor\n".as_bytes());
    assert!(view.is_plain(), "the file is UTF-8, regardless of what it declares");
}

#[test]
fn a_declaration_decides_when_the_bytes_are_inconclusive() {
    let bytes = [b"# -*- coding: iso-8859-2 -*-\n# ", &encoded("iso-8859-2", "żó")[..], b"\n"].concat();
    let view = view("a.py", &bytes);
    assert_eq!(text(&view), "# -*- coding: iso-8859-2 -*-\n# żó\n");
    let written = view.write(format!("{}# ś\n", text(&view)).as_bytes()).unwrap();
    assert_eq!(written, [&bytes[..], b"# \xb6\n"].concat());
}

#[test]
fn iso_2022_jp_is_written_line_by_line() {
    let content = "// これは\nint x;\n";
    let view = view("a.c", &encoded("iso-2022-jp", content));
    assert_eq!(text(&view), content);
    let new = "// これは\n// 日本\nint y;\n";
    assert_eq!(view.write(new.as_bytes()).unwrap(), encoded("iso-2022-jp", new));
}

#[test]
fn the_text_of_a_utf_8_file_is_its_bytes_including_the_byte_order_mark() {
    for content in ["\u{feff}caf\u{e9}\n", "é", "", "a\r\nb\n"] {
        let view = view("a", content.as_bytes());
        assert!(view.is_plain() && view.note().is_none());
        assert_eq!(view.text(), content.as_bytes());
    }
}
