//! Objects as YAML and JSON, so that kubectl reads back what was printed.

use serde_json::{Value, json};

/// One object as a YAML document, without a separator.
pub fn yaml(object: &Value) -> String {
    ark_job::yaml::in_its_order(object)
}

/// Objects as YAML documents, in order.
pub fn documents<'a>(objects: impl IntoIterator<Item = &'a Value>) -> String {
    let texts: Vec<String> = objects.into_iter().map(yaml).collect();
    texts.join("---\n")
}

/// One object as indented JSON, with a newline.
pub fn json(object: &Value) -> String {
    format!("{object:#}\n")
}

/// Objects as one `List`, as kubectl prints several.
pub fn list(objects: Vec<Value>) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": objects})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_that_look_like_something_else_stay_strings() {
        let texts = [
            "true",
            "no",
            "on",
            "y",
            "1",
            "1.5",
            "1e3",
            "0x10",
            "0o7",
            "007",
            "null",
            "~",
            "",
            "2026-11-23",
            "2026-11-23T20:00:00Z",
            "12:30:00",
            "- a",
            "a: b",
            "a #b",
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
            " a",
            "a ",
            "a\nb",
            "a\nb\n",
            "\ta",
            "ä",
            "--name=x",
            "100m",
            "64Mi",
            "=",
            "?",
            ".inf",
            "_1",
            "1_000",
            "+1",
            "-",
            "--- a",
            "0b1",
            "1:2",
            "<<",
        ];
        for text in texts {
            let object = json!({"key": text, text: "value", "list": [text]});
            let printed = yaml(&object);
            let read: Value = serde_saphyr::from_str(&printed).unwrap();
            assert_eq!(read, object, "{printed}");
        }
    }

    #[test]
    fn documents_are_separated() {
        assert_eq!(
            documents(&[json!({"a": 1}), json!({"b": ["x"]})]),
            "a: 1\n---\nb:\n- x\n"
        );
    }
}
