//! Objects as YAML, so that kubectl reads back what was printed. Pure.

use serde_json::{Map, Value};

/// One object as a YAML document, without a separator, its keys in alphabetical order as `kubectl get -o yaml` has them.
pub fn yaml(object: &Value) -> String {
    in_its_order(&sorted(object))
}

/// One object as a YAML document, without a separator, its keys in their own order.
pub fn in_its_order(object: &Value) -> String {
    // The default is YAML 1.1-safe: kubectl reads `yes`, `1e3` and `0o7` as other than strings unless they are quoted.
    let mut options = serde_saphyr::SerializerOptions::default();
    // A long text stays one line, to be searched for and compared.
    options.min_fold_chars = usize::MAX;
    options.folded_wrap_chars = usize::MAX;
    serde_saphyr::to_string_with_options(object, options)
        .expect("JSON values can be written as YAML")
}

/// The same value with all keys in alphabetical order.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut pairs: Vec<(&String, &Value)> = map.iter().collect();
            pairs.sort_by_key(|(key, _)| *key);
            let pairs = pairs
                .into_iter()
                .map(|(key, value)| (key.clone(), sorted(value)));
            Value::Object(pairs.collect::<Map<_, _>>())
        }
        Value::Array(list) => Value::Array(list.iter().map(sorted).collect()),
        plain => plain.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn round_trip(text: &str) {
        let object = json!({"key": text, text: "value", "list": [text], "deep": {"list": [{"a": text}, text]}});
        let printed = yaml(&object);
        let read: Value = serde_saphyr::from_str(&printed)
            .unwrap_or_else(|error| panic!("{text:?}: {error}\n{printed}"));
        assert_eq!(read, object, "{printed}");
    }

    #[test]
    fn strings_that_look_like_something_else_stay_strings() {
        for text in [
            "yes",
            "no",
            "on",
            "y",
            "N",
            "true",
            "null",
            "~",
            "",
            "1",
            "1e3",
            "0x10",
            "0o7",
            "007",
            "1_000",
            "1:2",
            "12:30:00",
            ".inf",
            ".nan",
            "2026-11-23",
            "<<",
            "=",
            "- a",
            "-",
            "---",
            "--- a",
            "...",
            "? a",
            "a: b",
            "a:",
            "a #b",
            "#",
            "*",
            "&a",
            "!t",
            "%d",
            "@x",
            "`x",
            "{a}",
            "[a]",
            "'",
            "\"",
            "|",
            ">",
            "a,b",
        ] {
            round_trip(text);
        }
    }

    #[test]
    fn white_space_and_control_characters_survive() {
        for text in [
            " a",
            "a ",
            "\ta",
            "a\t",
            "a\nb",
            "a\nb\n",
            "a\nb\n\n",
            "\na",
            "\n",
            "\n\n",
            " \n",
            "a \nb",
            "a\n b",
            " a\nb",
            "a\r\nb",
            "a\rb",
            "a\n\tb",
            "a\n \nb",
            "a\n\n\nb\n",
            "\ta\nb",
            "a\u{85}b",
            "a\u{2028}b",
            "\u{feff}a",
            "a\u{0}b",
            "\u{7f}",
            "\u{1b}[0m",
            "ä",
            "日本",
            "😀",
            "a\u{a0}",
            "# a\nb",
            "a\n# b",
            "key: |\n  x\n",
            "- a\n- b",
            "a\n---\nb",
            "a\n...\nb",
            "%YAML 1.2\n---\na",
            "{\"a\":\n1}\n",
            "  \n  a\n",
            "\n a\nb",
        ] {
            round_trip(text);
        }
    }

    proptest! {
        #[test]
        fn any_text_survives(text in "(\\PC|[ \t\n\r:#'\"|>-]){0,40}") {
            round_trip(&text);
        }
    }

    #[test]
    fn keys_are_sorted_and_lists_are_not() {
        let object = json!({"kind": "K", "apiVersion": "v1", "list": [{"b": 1, "a": 2}, 0]});
        assert_eq!(
            yaml(&object),
            "apiVersion: v1\nkind: K\nlist:\n- a: 2\n  b: 1\n- 0\n"
        );
    }
}
