//! Notebooks: cells are shown as text, and everything else in the file is preserved byte for byte.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use text_view::View;

/// A notebook as Jupyter writes it, with one space of indentation per level.
const NOTEBOOK: &str = r##"{
 "cells": [
  {
   "cell_type": "markdown",
   "id": "a1",
   "metadata": {"z": 1, "a": [1,   2]},
   "source": [
    "# Title\n",
    "\n",
    "Some text with \u00e9"
   ]
  },
  {
   "cell_type": "code",
   "execution_count": 7,
   "id": "b2",
   "metadata": {},
   "outputs": [
    {
     "data": {"text/plain": ["'# %% [code] id=zz'"]},
     "output_type": "execute_result"
    }
   ],
   "source": [
    "import math\n",
    "print(math.pi)"
   ]
  },
  {
   "cell_type": "code",
   "execution_count": null,
   "id": "c3",
   "metadata": {},
   "outputs": [],
   "source": []
  }
 ],
 "metadata": {"kernelspec": {"name": "python3"}},
 "nbformat": 4,
 "nbformat_minor": 5
}
"##;

const TEXT: &str = "# %% [markdown] id=a1\n# Title\n\nSome text with é\n# %% [code] id=b2\nimport math\nprint(math.pi)\n# %% [code] id=c3\n\n";

fn view(file: &str) -> View {
    View::of("a.ipynb", file.as_bytes().to_vec()).unwrap()
}

fn text(file: &str) -> String {
    String::from_utf8(view(file).text().to_vec()).unwrap()
}

fn write(file: &str, text: &str) -> Result<String, String> {
    let written = view(file).write(text.as_bytes()).map_err(|e| e.to_string())?;
    let written = String::from_utf8(written).unwrap();
    serde_json::from_str::<serde_json::Value>(&written).unwrap();
    Ok(written)
}

#[test]
fn a_notebook_is_shown_as_its_cells() {
    assert_eq!(text(NOTEBOOK), TEXT);
    assert!(view(NOTEBOOK).is_notebook());
    assert_eq!(write(NOTEBOOK, TEXT).unwrap(), NOTEBOOK);
}

#[test]
fn an_edit_changes_only_the_edited_lines_of_a_source() {
    let new = TEXT.replace("print(math.pi)", "print(\"T\",\n      math.tau)");
    let expected = NOTEBOOK
        .replace("    \"print(math.pi)\"\n", "    \"print(\\\"T\\\",\\n\",\n    \"      math.tau)\"\n");
    assert_eq!(write(NOTEBOOK, &new).unwrap(), expected);
    let new = TEXT.replace("# Title", "# New title");
    assert_eq!(
        write(NOTEBOOK, &new).unwrap(),
        NOTEBOOK.replace("# Title\\n", "# New title\\n"),
        "the escape \\u00e9 should be kept"
    );
}

#[test]
fn an_empty_source_can_be_filled_and_a_non_empty_one_emptied() {
    let new = TEXT.replace("id=c3\n\n", "id=c3\nx = 1\ny = 2\n");
    let filled = NOTEBOOK.replace("\"source\": []", "\"source\": [\n    \"x = 1\\n\",\n    \"y = 2\"\n   ]");
    assert_eq!(write(NOTEBOOK, &new).unwrap(), filled);
    let new = TEXT.replace("import math\nprint(math.pi)\n", "");
    let emptied = NOTEBOOK
        .replace("\"source\": [\n    \"import math\\n\",\n    \"print(math.pi)\"\n   ]", "\"source\": []");
    assert_eq!(write(NOTEBOOK, &new).unwrap(), emptied);
}

#[test]
fn a_new_cell_is_laid_out_as_jupyter_does() {
    let new =
        TEXT.replace("# %% [code] id=b2", "# %% [markdown]\n## Part\n\n# %%\nx = 1\ny\n\n# %% [code] id=b2");
    let cells = r###"  {
   "cell_type": "markdown",
   "id": "cell-4",
   "metadata": {},
   "source": [
    "## Part"
   ]
  },
  {
   "cell_type": "code",
   "execution_count": null,
   "id": "cell-5",
   "metadata": {},
   "outputs": [],
   "source": [
    "x = 1\n",
    "y"
   ]
  },
"###;
    let at = NOTEBOOK.find("  {\n   \"cell_type\": \"code\",\n   \"execution_count\": 7").unwrap();
    let expected = format!("{}{cells}{}", &NOTEBOOK[..at], &NOTEBOOK[at..]);
    assert_eq!(write(NOTEBOOK, &new).unwrap(), expected);
}

#[test]
fn a_blank_line_above_a_new_cell_is_not_part_of_the_previous_cell() {
    let new = TEXT.replace("print(math.pi)", "print(1)\n\n# %% [code]\nx = 1\n");
    let written = write(NOTEBOOK, &new).unwrap();
    assert!(written.contains("    \"print(1)\"\n   ]"), "{written}");
    assert!(written.contains("    \"x = 1\"\n   ]"), "{written}");
}

#[test]
fn removed_and_reordered_cells_take_their_outputs_along() {
    let new = TEXT.replace("# %% [code] id=b2\nimport math\nprint(math.pi)\n", "");
    let from = NOTEBOOK.find("  {\n   \"cell_type\": \"code\",\n   \"execution_count\": 7").unwrap();
    let to = NOTEBOOK.find("  {\n   \"cell_type\": \"code\",\n   \"execution_count\": null").unwrap();
    assert_eq!(write(NOTEBOOK, &new).unwrap(), [&NOTEBOOK[..from], &NOTEBOOK[to..]].concat());
    let moved = "# %% [code] id=b2\nimport math\nprint(math.pi)\n# %% [markdown] id=a1\n# Title\n\nSome text with é\n# %% [code] id=c3\n\n";
    let first = NOTEBOOK.find("  {\n   \"cell_type\": \"markdown\"").unwrap();
    let expected =
        [&NOTEBOOK[..first], &NOTEBOOK[from..to], &NOTEBOOK[first..from], &NOTEBOOK[to..]].concat();
    assert_eq!(write(NOTEBOOK, moved).unwrap(), expected);
}

#[test]
fn ambiguous_edits_are_refused() {
    for (new, why) in [
        (TEXT.replace("id=b2", "id=b9"), "no cell with id=b9"),
        (TEXT.replace("id=c3", "id=b2"), "twice"),
        (TEXT.replace("[code] id=b2", "[markdown] id=b2"), "cannot become a markdown cell"),
        (TEXT.replace("# %% [code] id=b2", "# %% code b2"), "is not a valid start of a notebook cell"),
        (format!("print(1)\n{TEXT}"), "is outside every notebook cell"),
        (NOTEBOOK.to_owned(), "is outside every notebook cell"),
    ] {
        let error = write(NOTEBOOK, &new).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn cells_without_ids_are_numbered_and_must_not_be_renumbered() {
    let old = NOTEBOOK
        .replace("   \"id\": \"a1\",\n", "")
        .replace("   \"id\": \"b2\",\n", "")
        .replace("   \"id\": \"c3\",\n", "")
        .replace("\"nbformat_minor\": 5", "\"nbformat_minor\": 2")
        .replace("\"source\": []", "\"source\": \"last\"");
    let shown = text(&old);
    assert!(shown.contains("# %% [code] id=2\nimport math"), "{shown}");
    let new = shown.replace("last\n", "last + 1\n# %% [code]\nnew\n");
    let written = write(&old, &new).unwrap();
    assert!(written.contains("\"source\": \"last + 1\"") && !written.contains("\"id\""), "{written}");
    let renumbered =
        shown.replace("# %% [code] id=2\nimport math\nprint(math.pi)\n", "").replace("id=3", "id=2");
    let error = write(&old, &renumbered).unwrap_err();
    assert!(error.contains("id=3 now appears under id=2"), "{error}");
}

#[test]
fn if_a_source_contains_the_marker_the_markers_of_all_cells_get_longer() {
    let file = NOTEBOOK.replace("import math\\n", "# %% [code]\\n");
    let shown = text(&file);
    assert!(shown.contains("# %%% [code] id=b2\n# %% [code]\nprint"), "{shown}");
    assert_eq!(write(&file, &shown.replace("math.pi", "1")).unwrap(), file.replace("math.pi", "1"));
}

#[test]
fn the_layout_of_the_json_is_kept() {
    let compact: serde_json::Value = serde_json::from_str(NOTEBOOK).unwrap();
    let compact = compact.to_string();
    let new = TEXT
        .replace("print(math.pi)", "print(1)\nprint(2)")
        .replace("# %% [code] id=c3", "# %% [code]\nz\n# %% [code] id=c3");
    let written = write(&compact, &new).unwrap();
    assert!(written.contains(r#""source":["import math\n","print(1)\n","print(2)"]"#), "{written}");
    assert!(written.contains(r#""outputs":[],"source":["z"]},{"#) && !written.contains('\n'), "{written}");
    let four: serde_json::Value = serde_json::from_str(NOTEBOOK).unwrap();
    let mut wide = Vec::new();
    let style = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    serde::Serialize::serialize(&four, &mut serde_json::Serializer::with_formatter(&mut wide, style))
        .unwrap();
    let wide = String::from_utf8(wide).unwrap();
    let written = write(&wide, &new).unwrap();
    let expected: serde_json::Value = serde_json::from_str(&written).unwrap();
    let mut again = Vec::new();
    let style = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    serde::Serialize::serialize(&expected, &mut serde_json::Serializer::with_formatter(&mut again, style))
        .unwrap();
    assert_eq!(written, String::from_utf8(again).unwrap());
}

#[test]
fn a_file_with_escaped_characters_stays_ascii() {
    let new = TEXT.replace("import math", "import math  # ü😀");
    let written = write(NOTEBOOK, &new).unwrap();
    assert!(written.is_ascii() && written.contains("# \\u00fc\\ud83d\\ude00\\n"), "{written}");
}

#[test]
fn an_invalid_or_older_notebook_is_shown_as_plain_text() {
    for file in [
        "{}",
        "",
        "not json",
        r#"{"nbformat": 3, "cells": []}"#,
        r#"{"nbformat": 4, "worksheets": []}"#,
        r#"{"nbformat": 4, "cells": [{"cell_type": "chart", "source": ""}]}"#,
        r#"{"nbformat": 4, "cells": [], "cells": []}"#,
    ] {
        assert!(view(file).is_plain(), "{file}");
    }
    assert!(View::of("a.json", NOTEBOOK.as_bytes().to_vec()).unwrap().is_plain());
}

#[test]
fn a_new_notebook_is_created_from_cells() {
    let made = text_view::new_file("b.ipynb", b"# %% [markdown]\n# Hi\n\n# %% [code]\nx = 1\n").unwrap();
    let made = String::from_utf8(made).unwrap();
    assert_eq!(text(&made), "# %% [markdown] id=cell-1\n# Hi\n# %% [code] id=cell-2\nx = 1\n");
    assert!(
        made.ends_with("}\n")
            && made.contains("  {\n   \"cell_type\": \"code\",\n   \"execution_count\": null")
    );
    assert_eq!(text_view::new_file("b.ipynb", NOTEBOOK.as_bytes()).unwrap(), NOTEBOOK.as_bytes());
    assert_eq!(text_view::new_file("b.py", b"# %% [code]\n").unwrap(), b"# %% [code]\n");
    let first =
        write(r#"{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}"#, "# %%\nx\n").unwrap();
    assert_eq!(text(&first), "# %% [code] id=cell-1\nx\n");
}
